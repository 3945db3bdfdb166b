"""GET /customers/progress: before, while and after; whoever imports, and after a restart."""

from __future__ import annotations

import subprocess
import time

import psycopg
import pytest

from support.customers import FIELDS, create_customer, csv
from support.databases import command, environment
from support.envelope import TIME, failed, ok
from support.waiting import held, held_midway, wait_until

SNAPSHOT = {
    *("jobId", "status", "filePath", "rowsProcessed", "rowsInserted", "bytesRead", "percent"),
    *("rateRowsPerSec", "elapsedSec", "etaSec", "startedAt", "updatedAt", "completedAt"),
    *("lastRowHash", "error", "disableSync", "recentCustomers"),
}
COUNTERS = ("rowsProcessed", "rowsInserted", "bytesRead")
ROWS = 60_000


def is_whole(snapshot) -> bool:
    """Every field, each of its kind."""
    assert set(snapshot) >= SNAPSHOT
    for name in COUNTERS:
        assert isinstance(snapshot[name], str), name
        assert snapshot[name].isdecimal(), name
    for name in ("percent", "rateRowsPerSec", "elapsedSec"):
        assert type(snapshot[name]) in (int, float), name
        assert snapshot[name] >= 0
    assert 0 <= snapshot["percent"] <= 100
    assert snapshot["etaSec"] is None or snapshot["etaSec"] >= 0
    for name in ("startedAt", "updatedAt", "completedAt"):
        assert snapshot[name] is None or TIME.fullmatch(snapshot[name]), name
    assert snapshot["disableSync"] is (snapshot["status"] == "RUNNING")
    assert all(set(customer) >= FIELDS for customer in snapshot["recentCustomers"])
    return True


def test_before_the_first_job(serve, dsn):
    """
    > `GET /customers/progress?totalRows=&recentLimit=` -> the snapshot: `jobId` (null before the
    > first job), `status` (`"idle"` before the first job, then
    """
    api = serve(DATABASE_URL=dsn)
    create_customer(api)
    snapshot = api.progress()
    assert is_whole(snapshot)
    assert (snapshot["jobId"], snapshot["status"]) == (None, "idle")
    assert snapshot["disableSync"] is False
    assert [snapshot[name] for name in COUNTERS] == ["0"] * 3
    assert (snapshot["percent"], snapshot["recentCustomers"]) == (0, [])
    for name in ("filePath", "startedAt", "completedAt", "lastRowHash", "error", "etaSec"):
        assert snapshot[name] is None, name


def test_while_it_runs_and_afterwards(serve, dsn, files):
    """
    > `RUNNING`, `COMPLETED`, `FAILED`; new states are allowed), `filePath`, `rowsProcessed`,
    > `rowsInserted`, `bytesRead`, `percent` (0..100),
    > `rateRowsPerSec`, `elapsedSec` (stops when the job does), `etaSec` (null when unknown),
    > `startedAt`, `updatedAt`, `completedAt`, `lastRowHash`,
    > `error`, `disableSync` (true while running),
    >
    > After the job its last figures stay.
    """
    path = csv(files / "snapshot.csv", ROWS)
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, IMPORT_BATCH_SIZE=1000)
    started = {}
    with held_midway(dsn, lambda: started.update(api.sync(path))):
        first = api.progress()
        assert is_whole(first)
        assert (first["jobId"], first["status"]) == (started["id"], "RUNNING")
        assert first["filePath"] == str(path)
        assert first["disableSync"] is True
        assert 0 < int(first["rowsProcessed"]) < ROWS
        assert first["rowsInserted"] == first["rowsProcessed"]
        assert 0 < int(first["bytesRead"]) < path.stat().st_size
        assert 0 < first["percent"] < 100
        # Of bytes, not of rows that somebody guessed.
        share = 100 * int(first["bytesRead"]) / path.stat().st_size
        assert first["percent"] == pytest.approx(share, abs=1)
        guessed = api.progress(totalRows="1000000000")
        assert guessed["percent"] == pytest.approx(share, abs=1)
        assert first["completedAt"] is None
        assert first["lastRowHash"]
        assert first["etaSec"] is None or first["etaSec"] > 0
        # Its clock goes on although nothing is committed.
        wait_until(
            "elapsedSec grows", lambda: api.progress()["elapsedSec"] > first["elapsedSec"], 2
        )
    done = api.until("COMPLETED")
    assert is_whole(done)
    assert (done["percent"], done["etaSec"], done["disableSync"]) == (100, 0, False)
    assert (done["rowsProcessed"], done["rowsInserted"]) == (str(ROWS), str(ROWS))
    assert done["bytesRead"] == str(path.stat().st_size)
    assert TIME.fullmatch(done["completedAt"])
    assert done["error"] is None
    assert done["rateRowsPerSec"] == pytest.approx(ROWS / done["elapsedSec"], rel=0.1)
    time.sleep(0.3)  # nothing may change, and a clock that still ran would show by then
    assert api.progress() == done
    # A restart forgets nothing.
    api.terminate()
    api.start().wait_ready()
    assert api.progress() == done
    api.kill()
    api.start().wait_ready()
    assert api.progress() == done


def test_an_import_of_the_command_line_is_shown_too(api, files, shared_dsn, tmp_path):
    path = csv(files / "by-hand.csv", 500)
    with held(shared_dsn):
        process = subprocess.Popen(
            command("import", str(path), "--json"),
            env=environment(DATABASE_URL=shared_dsn),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running = api.until("RUNNING")
        assert running["filePath"] == str(path)
        assert running["disableSync"] is True
    process.communicate(timeout=60)
    done = api.until("COMPLETED", job=running["jobId"])
    assert is_whole(done)
    assert done["rowsProcessed"] == "500"
    assert len(done["recentCustomers"]) == 20


def test_recent_customers_are_the_last_that_were_written(api, files, shared_dsn):
    """
    > `recentCustomers` (the last N written, whole Customers, newest first, N = `recentLimit`,
    > default 20; outside 1..200: 400).
    """
    api.sync(csv(files / "recent.csv", 400, seed=8))
    api.until("COMPLETED")
    recent = api.progress()["recentCustomers"]
    assert len(recent) == 20
    assert all(ok(api.get(f"/customers/{customer['id']}")) == customer for customer in recent)
    order = [(customer["updatedAt"], customer["id"]) for customer in recent]
    assert order == sorted(order, reverse=True)
    for limit in (1, 7, 20):
        assert api.progress(recentLimit=str(limit))["recentCustomers"] == recent[:limit]
    assert len(api.progress(recentLimit="200")["recentCustomers"]) >= 20
    for wrong in ("0", "201", "-1", "x", "1.5", "", "9" * 40):
        error = failed(api.get("/customers/progress", recentLimit=wrong), 400)
        assert [detail["field"] for detail in error["details"]] == ["recentLimit"]
    for wrong in ("0", "-1", "x", "1.5", "", "9" * 40):
        error = failed(api.get("/customers/progress", totalRows=wrong), 400)
        assert [detail["field"] for detail in error["details"]] == ["totalRows"]
    # Who was deleted is not shown.
    ok(api.delete(f"/customers/{recent[0]['id']}"))
    assert recent[0] not in api.progress()["recentCustomers"]
    # What was changed by hand afterwards is shown as it is now.
    changed = ok(api.patch(f"/customers/{recent[1]['id']}", {"city": "Now"}))
    assert changed in api.progress()["recentCustomers"]


def test_recent_customers_of_a_night_that_changed_some(api, files, shared_dsn):
    """The ones that were written, not the ones that were read."""
    common = {"rows": 2000, "seed": 31}
    api.sync(csv(files / "night-1.csv", **common))
    api.until("COMPLETED")
    job = api.sync(csv(files / "night-2.csv", **common, changed=0.01))
    done = api.until("COMPLETED", job=job["id"])
    with psycopg.connect(shared_dsn) as conn:
        written = {
            row[0]
            for row in conn.execute(
                "SELECT id FROM customers WHERE import_id = %s", [int(job["id"])]
            )
        }
    assert 0 < len(written) < 100
    assert done["recentCustomers"]
    assert {customer["id"] for customer in done["recentCustomers"]} <= written


def test_a_failed_one_says_why(serve, dsn, files):
    path = csv(files / "failing.csv", ROWS, seed=6)
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, IMPORT_BATCH_SIZE=1000)
    started = {}
    with held_midway(dsn, lambda: started.update(api.sync(path))) as let_go:
        ok(api.post(f"/imports/{started['id']}/pause"))
        let_go()
        api.until("PAUSED")
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(b"\n") + 3)
        file.write(b"#")
    with api.stream() as stream, psycopg.connect(dsn) as conn:
        # Interrupted, as by a kill: the server goes on by itself. (For who asks, a file that has
        # changed is a new import.)
        conn.execute("UPDATE imports SET status = 'INTERRUPTED'")
        conn.commit()
        message = stream.until("error")[-1].payload
    failed_one = api.until("FAILED")
    assert is_whole(failed_one)
    assert "file changed between byte" in failed_one["error"]
    assert message["error"] == failed_one["error"]
    assert message["jobId"] == started["id"]
    assert failed_one["disableSync"] is False
    assert failed_one["percent"] < 100
    assert int(failed_one["rowsInserted"]) > 0
    time.sleep(0.2)  # a clock that still ran would show by then
    assert api.progress()["elapsedSec"] == failed_one["elapsedSec"]
    assert ok(api.get(f"/imports/{started['id']}"))["error"] == failed_one["error"]


def test_percent_never_goes_back(serve, dsn, files):
    path = csv(files / "forward.csv", ROWS, seed=14)
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, IMPORT_BATCH_SIZE=1000)
    api.sync(path)
    seen = []
    while not seen or seen[-1]["status"] != "COMPLETED":
        seen.append(api.progress())
    for name in ("percent", "updatedAt", "elapsedSec"):
        values = [snapshot[name] for snapshot in seen]
        assert values == sorted(values), name
    for name in COUNTERS:
        values = [int(snapshot[name]) for snapshot in seen]
        assert values == sorted(values), name
    assert len({snapshot["percent"] for snapshot in seen}) > 3
