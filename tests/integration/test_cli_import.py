"""`customer-panel import` and `jobs`, run as a user runs them."""

from __future__ import annotations

import base64
import csv
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Run
from customer_panel._native import generate
from customer_panel.db import embedded
from support.databases import command, environment
from support.waiting import wait_until

GOOD = "Customer Id,First Name,City,Colour\n1,Ada,Bonn,red\n2,Bob,Ulm,\n"
FIGURES = {
    *("jobId", "status", "rowsProcessed", "rowsInserted", "rowsUpdated", "rowsUnchanged"),
    *("rowsProtected", "rowsDuplicate", "rowsSkipped", "warnings", "bytesRead", "elapsedSec"),
    *("maintenanceSec", "rateRowsPerSec", "peakRssBytes"),
}
ROWS = 60_000
PATIENCE_S = 60.0
STOPS_WITHIN_S = 5.0


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    return path


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    path = tmp_path / "dirty.csv"
    path.write_bytes(
        b"Customer Id,First Name,Subscription Date\n"
        b"1,Ada,not a date\n"
        b",Nobody,\n"
        b"2,=1+1,\n"
        b"3,B\xf6b,\n"
        b'4,"quoted, with\nline end",01/02/2021\n'
    )
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.csv"
    generate(str(path), ROWS, seed=4)
    return path


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object on stdout."""
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


# -- what it says and how it ends -----------------------------------------------------------------


def test_all_in_is_exit_0_and_a_summary_on_stdout(run: Run, dsn: str, good: Path) -> None:
    done = run("import", good, DATABASE_URL=dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Import 1 of {good} is done" in done.stdout
    lines = {
        line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line[:2] == "  "
    }
    assert lines["inserted"] == "2"
    assert lines["skipped"] == "0"
    assert "Customer Id -> customerId, First Name -> firstName" in done.stdout
    assert "Not used: Colour" in done.stdout


def test_json_is_one_object_with_every_figure(run: Run, dsn: str, good: Path) -> None:
    result = answer(run("import", good, "--json", DATABASE_URL=dsn))
    assert result.keys() >= FIGURES
    assert (result["jobId"], result["status"], result["rowsInserted"]) == (1, "COMPLETED", 2)
    assert result["mapping"][0] == {"header": "Customer Id", "field": "customerId"}
    assert result["unmapped"] == ["Colour"]
    assert result["bytesRead"] == good.stat().st_size
    again = answer(run("import", good, "--json", DATABASE_URL=dsn))
    assert (again["jobId"], again["rowsInserted"], again["rowsUnchanged"]) == (2, 0, 2)


def test_quiet_says_nothing(run: Run, dsn: str, dirty: Path) -> None:
    done = run("import", dirty, "--quiet", DATABASE_URL=dsn)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_rejects_are_exit_3_and_it_says_how_to_see_them(run: Run, dsn: str, dirty: Path) -> None:
    done = run("import", dirty, DATABASE_URL=dsn)
    assert done.returncode == 3
    assert "customer-panel jobs show 1" in done.stdout
    shown = run("jobs", "show", "1", DATABASE_URL=dsn)
    assert "line 3: reject no_identity" in shown.stdout
    assert "line 2: warning unreadable_date in subscriptionDate" in shown.stdout


def test_rejects_file_has_every_finding_and_its_exact_bytes(
    run: Run, dsn: str, dirty: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("of the night before")
    done = run("import", dirty, "--rejects", out, DATABASE_URL=dsn)
    assert done.returncode == 3
    assert f"{out} (4)" in done.stdout
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["line"], row["severity"], row["code"], row["field"]) for row in found] == [
        ("2", "warning", "unreadable_date", "subscriptionDate"),
        ("3", "reject", "no_identity", ""),
        ("5", "reject", "invalid_utf8", ""),
        ("6", "warning", "ambiguous_date", "subscriptionDate"),
    ]
    whole = dirty.read_bytes()
    for row in found:
        raw = whole[int(row["byte_from"]) : int(row["byte_to"])]
        exact = base64.b64decode(row["raw_base64"]) or (row["raw"] + "\n").encode()
        assert raw == exact
    assert found[2]["raw"] == "3,B\N{REPLACEMENT CHARACTER}b,"
    assert found[3]["raw"].startswith('4,"quoted, with\nline end"')
    assert not list(tmp_path.glob("*.part"))
    later = tmp_path / "later.csv"
    shown = run("jobs", "show", "1", "--rejects", later, DATABASE_URL=dsn)
    assert shown.returncode == 0
    assert later.read_bytes() == out.read_bytes()


def test_source_is_never_overwritten_by_its_rejects(run: Run, dsn: str, dirty: Path) -> None:
    before = dirty.read_bytes()
    link = dirty.with_name("link.csv")
    link.symlink_to(dirty)
    for out in (dirty, link):
        failed = run("import", dirty, "--rejects", out, DATABASE_URL=dsn)
        assert failed.returncode == 1
        assert "is the file to import" in failed.stderr
    assert dirty.read_bytes() == before


def test_rejects_that_cannot_be_written_are_said_before_the_import(
    run: Run, dsn: str, good: Path, database: psycopg.Connection[Any]
) -> None:
    failed = run("import", good, "--rejects", "none/out.csv", DATABASE_URL=dsn)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: none/out.csv cannot be written")
    assert database.execute("SELECT count(*) FROM imports").fetchone() == (0,)


def test_a_failed_import_leaves_the_old_rejects(run: Run, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    assert run("import", "none.csv", "--rejects", "out.csv", DATABASE_URL=dsn).returncode == 1
    assert [path.name for path in tmp_path.glob("out*")] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,city\n", "has a header and no rows"),
        ("colour\nred\n", 'Headers seen: "colour"'),
        (None, "no such file"),
    ],
    ids=["empty", "header only", "no identity", "missing"],
)
def test_what_cannot_be_imported_is_exit_1(
    run: Run, dsn: str, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "file.csv"
    if text is not None:
        path.write_text(text)
    failed = run("import", path, DATABASE_URL=dsn)
    assert (failed.returncode, failed.stdout) == (1, "")
    error, hint = failed.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_json_of_a_failure_has_its_code(run: Run, dsn: str, tmp_path: Path) -> None:
    failed = run("import", tmp_path, "--json", DATABASE_URL=dsn)
    assert failed.returncode == 1
    assert answer(failed)["error"]["code"] == "not_a_file"


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("x.csv", "--lanes", "0"),
        ("x.csv", "--batch-rows", "1"),
        ("x.csv", "--date-order", "ymd"),
        ("x.csv", "--delimiter", "x"),
        ("x.csv", "--blank", "maybe"),
        ("x.csv", "--map", "Mail"),
        ("x.csv", "--map", "=email"),
        ("x.csv", "--map", "Mail=email", "--map", "Mail=website"),
        ("x.csv", "--dry-run", "--rejects", "out.csv"),
        ("x.csv", "--nonsense"),
        ("x.csv", "y.csv"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(run: Run, dsn: str, args: tuple[str, ...]) -> None:
    failed = run("import", *args, DATABASE_URL=dsn)
    assert (failed.returncode, failed.stdout) == (2, "")


def test_file_comes_from_csv_path(run: Run, dsn: str, good: Path) -> None:
    assert answer(run("import", "--json", DATABASE_URL=dsn, CSV_PATH=good))["rowsInserted"] == 2


def test_options_reach_the_import(
    run: Run, dsn: str, tmp_path: Path, database: psycopg.Connection[Any]
) -> None:
    path = tmp_path / "file.csv"
    path.write_text("Nr;a=b;seit;Stadt;City\n7;x@Y.org;01/02/2021;Ulm;Bonn\n")
    options = ["--map", "Nr=customerId", "--map", "a=b=email", "--map", "seit=subscription_date"]
    options += ["--map", "City=", "--map", "Stadt=city", "--delimiter", "semicolon"]
    options += ["--date-order", "dmy", "--source", "erp", "--lanes", "1", "--batch-rows", "100"]
    result = answer(run("import", path, *options, "--json", DATABASE_URL=dsn))
    assert (result["source"], result["unmapped"]) == ("erp", ["City"])
    row = database.execute(
        "SELECT customer_id, email, subscription_date::text, city FROM customers"
    ).fetchone()
    assert row == ("7", "x@y.org", "2021-02-01", "Ulm")
    path.write_text("id,city\n7,\n")
    run("import", path, "--source", "erp", DATABASE_URL=dsn)
    assert database.execute("SELECT city FROM customers").fetchone() == ("Ulm",)
    run("import", path, "--source", "erp", "--blank", "clear", DATABASE_URL=dsn)
    assert database.execute("SELECT city FROM customers").fetchone() == (None,)


def test_dry_run_counts_and_writes_nothing(
    run: Run, dsn: str, dirty: Path, database: psycopg.Connection[Any]
) -> None:
    done = run("import", dirty, "--dry-run", DATABASE_URL=dsn)
    assert done.returncode == 3
    assert "nothing was written" in done.stdout
    result = answer(run("import", dirty, "--dry-run", "--json", DATABASE_URL=dsn))
    assert (result["jobId"], result["isDryRun"], result["rowsInserted"]) == (None, True, 3)
    assert database.execute("SELECT count(*) FROM imports").fetchone() == (0,)


def test_without_any_setting_it_brings_its_own_server(run: Run, home: Path, dirty: Path) -> None:
    done = run("import", dirty, "--rejects", "out.csv", CP_HOME=home)
    assert done.returncode == 3, done.stderr
    assert len((dirty.parent / "out.csv").read_text().splitlines()) > 4
    assert embedded.status(home).pid is None
    assert run("jobs", "list", CP_HOME=home).stdout.count("COMPLETED") == 1


# -- while it runs --------------------------------------------------------------------------------


def test_bar_is_on_a_terminal_only(dsn: str, large: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("import", str(large)),
        env=environment(DATABASE_URL=dsn, TERM="xterm", COLUMNS="140"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        pass  # how Linux says that the other end of a terminal is closed
    os.close(master)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert b"\x1b[" not in out
    text = shown.decode()
    for part in ("importing", "rows/s", "rows", f"/{large.stat().st_size / 1e6:,.1f} MB", "%"):
        assert part in text, text


def started(large: Path, dsn: str, *args: str) -> subprocess.Popen[str]:
    """An import that has committed some of its rows; batches are small, so it has far to go."""
    process = subprocess.Popen(
        command("import", str(large), "--lanes", "1", "--batch-rows", "100", *args),
        env=environment(DATABASE_URL=dsn),
        cwd=large.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with psycopg.connect(dsn, autocommit=True) as conn:

        def has_rows() -> bool:
            assert process.poll() is None, process.communicate()
            row = conn.execute("SELECT sum(rows_processed) FROM import_lanes").fetchone()
            return row is not None and bool(row[0])

        wait_until("rows are committed", has_rows, PATIENCE_S)
    return process


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, "PAUSED"), (signal.SIGTERM, "INTERRUPTED")]
)
def test_signal_stops_at_a_batch_border_and_the_next_import_goes_on(
    run: Run, dsn: str, large: Path, number: signal.Signals, status: str
) -> None:
    process = started(large, dsn)
    process.send_signal(number)
    out, err = process.communicate(timeout=STOPS_WITHIN_S)
    assert (process.returncode, out) == (1, "")
    said, error, hint = err.splitlines()
    assert said == "stopping at the next batch border"
    assert error == "error: import 1 was stopped at a batch border"
    assert hint.startswith("hint: Run the same command again")

    shown = run("jobs", "show", "1", DATABASE_URL=dsn).stdout
    assert f"Import 1: {status} (scanning)" in shown
    assert f"To go on: customer-panel import {large}" in shown

    dry_run = run("import", large, "--dry-run", DATABASE_URL=dsn).stdout
    assert "Note: import 1 of this file is not finished" in dry_run

    other = large.with_name("other.csv")
    other.write_text(GOOD)
    refused = run("import", other, "--strict", DATABASE_URL=dsn)
    assert refused.returncode == 1
    state = "is paused" if status == "PAUSED" else "was interrupted"
    assert f"import 1 of {large} {state} and is not finished" in refused.stderr

    done = run("import", large, "--json", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "going on with import 1, which was interrupted\n"
    result = answer(done)
    assert (result["jobId"], result["isResumed"]) == (1, True)
    assert result["rowsInserted"] == result["rowsProcessed"] == ROWS


def test_restart_cancels_the_interrupted_import(run: Run, dsn: str, large: Path) -> None:
    process = started(large, dsn)
    process.terminate()
    process.communicate(timeout=STOPS_WITHIN_S)
    done = run("import", large, "--restart", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    assert f"import 1 of {large} is cancelled" in done.stderr
    first, second = reversed(json.loads(run("jobs", "list", "--json", DATABASE_URL=dsn).stdout))
    assert (first["status"], second["status"]) == ("CANCELLED", "COMPLETED")
    assert first["rowsInserted"] + second["rowsInserted"] == ROWS


def test_killed_import_is_shown_as_interrupted(run: Run, dsn: str, large: Path) -> None:
    process = started(large, dsn)
    process.send_signal(signal.SIGSTOP)  # alive, and as long as it takes to look
    running = json.loads(run("jobs", "list", "--json", DATABASE_URL=dsn).stdout)
    refused = run("import", large, DATABASE_URL=dsn)
    process.kill()
    process.communicate()
    assert running[0]["status"] == "RUNNING"
    assert refused.returncode == 1
    assert "already running" in refused.stderr

    def status() -> str:
        return json.loads(run("jobs", "show", "1", "--json", DATABASE_URL=dsn).stdout)["status"]

    wait_until("it is shown as interrupted", lambda: status() == "INTERRUPTED", PATIENCE_S, status)


# -- jobs -----------------------------------------------------------------------------------------


def test_jobs_begin_empty_and_are_listed_newest_first(run: Run, dsn: str, good: Path) -> None:
    assert "no imports yet" in run("jobs", "list", DATABASE_URL=dsn).stdout
    for _ in range(2):
        run("import", good, DATABASE_URL=dsn)
    listed = run("jobs", "list", DATABASE_URL=dsn)
    head, newest, oldest = listed.stdout.splitlines()
    assert head.split()[:4] == ["id", "status", "rows", "inserted"]
    assert newest.split()[:4] == ["2", "COMPLETED", "2", "0"]
    assert oldest.split()[:4] == ["1", "COMPLETED", "2", "2"]
    assert (
        len(json.loads(run("jobs", "list", "--limit", "1", "--json", DATABASE_URL=dsn).stdout)) == 1
    )


def test_job_that_does_not_exist_is_named(run: Run, dsn: str) -> None:
    failed = run("jobs", "show", "7", DATABASE_URL=dsn)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: there is no import 7")


def test_job_in_json_is_whole(run: Run, dsn: str, dirty: Path) -> None:
    run("import", dirty, DATABASE_URL=dsn)
    job = answer(run("jobs", "show", "1", "--json", DATABASE_URL=dsn))
    assert (
        job["rowsProcessed"]
        == 5
        == sum(
            job[f"rows{name}"]
            for name in ("Inserted", "Updated", "Unchanged", "Protected", "Duplicate", "Skipped")
        )
    )
    assert job["mapping"][0] == {"header": "Customer Id", "field": "customerId"}
    assert [reject["code"] for reject in job["rejects"]][:2] == ["unreadable_date", "no_identity"]
    assert sum(lane["rowsProcessed"] for lane in job["lanes"]) == 5
