"""`settle`: a file is read when it has stood still, for folders that uploads arrive in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from customer_panel import import_customers
from customer_panel.errors import SourceEmpty, SourceNotFound, Stopped
from customer_panel.imports import Stop, settling
from customer_panel.imports.sources import FileSource
from customer_panel.imports.stop import StopRequested
from customer_panel.settings import Settings
from support.compare import digest
from support.customers import csv
from support.databases import command, environment
from support.envelope import ok
from support.waiting import wait_until
from support.workers import ask, index_count

FOR_EVER = 86_400
SHORT = 0.01
TEXT = b"Mail;Name\nada@x.org;Ada Lovelace\nbob@x.org;Bob\n"


@pytest.fixture
def path(tmp_path) -> Path:
    """A file whose upload has only begun."""
    path = tmp_path / "upload.csv"
    path.touch()
    return path


class Clock(Stop):
    """A stop whose waits take no time, but move the clock; something may happen in each."""

    def __init__(self, *acts) -> None:
        super().__init__()
        self.now, self.acts = 100.0, list(acts)

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        if self.acts:
            self.acts.pop(0)()
        return self.is_asked()


def waited(path: Path, clock: Clock, monkeypatch, seconds: float = 2.0) -> tuple[float, bytes]:
    """How long it has waited, and the start of the file that it has then."""
    monkeypatch.setattr(settling.time, "monotonic", clock.monotonic)
    source = FileSource(path)
    try:
        settling.wait_until_still(source, seconds, clock)
        return round(clock.now - 100.0, 3), source.head
    finally:
        source.close()


def nothing() -> None:
    """An act."""


# -- the wait -------------------------------------------------------------------------------------


def test_a_file_that_stands_still_is_taken_after_that_time(path, monkeypatch):
    path.write_bytes(TEXT)
    assert waited(path, Clock(), monkeypatch) == (2.0, TEXT)


def test_every_change_begins_the_wait_anew(path, monkeypatch):
    def append() -> None:
        with path.open("ab") as file:
            file.write(b"x")

    def touch() -> None:
        os.utime(path, (1, 1))

    acts = [nothing, append, nothing, append, nothing, nothing, touch]
    after = len(acts) * settling.LOOK_S + 2.0
    assert waited(path, Clock(*acts), monkeypatch) == (round(after, 3), b"xx")


def test_the_file_that_has_the_name_in_the_end_is_taken(path, monkeypatch):
    def replace() -> None:
        other = path.with_name("part")
        other.write_bytes(TEXT)
        other.replace(path)

    assert waited(path, Clock(nothing, replace), monkeypatch) == (2.4, TEXT)


def test_a_file_that_is_gone_is_an_error(path, monkeypatch):
    with pytest.raises(SourceNotFound):
        waited(path, Clock(nothing, path.unlink), monkeypatch)


def test_the_wait_ends_with_a_stop(path, monkeypatch):
    clock = Clock(nothing)
    clock.acts.append(clock.ask)
    with pytest.raises(StopRequested):
        waited(path, clock, monkeypatch)
    assert clock.now == pytest.approx(100.4)


# -- imports --------------------------------------------------------------------------------------


def test_what_is_imported_is_the_file_as_it_stands_still(dsn, path):
    notes: list[str] = []

    def noted(text: str) -> None:
        notes.append(text)
        path.write_bytes(TEXT)

    result = import_customers(path, dsn, settle=SHORT, noted=noted)
    assert (result.rows_inserted, result.bytes_read) == (2, len(TEXT))
    assert notes == [f"waiting until {path} has stood still for 0.01 s"]
    assert ask(dsn, "SELECT file_size, keys_deferred, delimiter, options FROM imports") == [
        (len(TEXT), True, ";", {"blank": "keep", "date_order": None})
    ]
    assert index_count(dsn) == 3
    assert import_customers(path, dsn, settle=SHORT).rows_unchanged == 2


def test_without_it_a_file_is_read_at_once(dsn, path):
    path.write_bytes(TEXT)
    notes: list[str] = []
    import_customers(path, dsn, noted=notes.append)
    assert not notes


def test_the_result_is_that_of_an_import_that_does_not_wait(databases, template, tmp_path):
    file = csv(tmp_path / "file.csv", 5000, seed=3, duplicates=0.05, dirty=0.02)
    tables = []
    for settle in (0, SHORT):
        with databases.copy(template) as dsn:
            import_customers(file, dsn, settle=settle, blank="clear", lanes=3)
            import_customers(file, dsn, settle=settle, blank="clear", lanes=2)
            tables.append(digest(dsn))
    assert tables[0] == tables[1]


@pytest.mark.parametrize("settle", [0, SHORT])
@pytest.mark.parametrize("status", ["PAUSED", "INTERRUPTED"])
def test_one_that_is_stopped_while_it_waits_keeps_its_options(dsn, path, settle, status):
    stop = Stop()
    with pytest.raises(Stopped):
        import_customers(
            path,
            dsn,
            settle=FOR_EVER,
            mapping={"Name": "company"},
            delimiter=";",
            feed="uploads",
            stop=stop,
            noted=lambda _: stop.ask(status),
        )
    assert ask(dsn, "SELECT status, phase, error FROM imports") == [(status, "settling", None)]
    path.write_bytes(TEXT)
    result = import_customers(path, dsn, settle=settle)
    assert (result.job_id, result.is_resumed, result.source) == (1, True, "uploads")
    found = ask(dsn, "SELECT customer_id, company, first_name FROM customers ORDER BY 1")
    assert found == [("ada@x.org", "Ada Lovelace", None), ("bob@x.org", "Bob", None)]


def test_options_of_the_call_that_goes_on_count_and_another_feed_is_another_import(dsn, path):
    stop = Stop()
    with pytest.raises(Stopped):
        import_customers(
            path, dsn, settle=FOR_EVER, feed="a", stop=stop, noted=lambda _: stop.ask()
        )
    path.write_bytes(TEXT)
    assert import_customers(path, dsn, feed="b").job_id == 2
    result = import_customers(path, dsn, mapping={"Name": ""})
    assert result.unmapped == ("Name",)


def test_a_file_that_is_empty_when_it_stands_still_has_failed(dsn, path):
    with pytest.raises(SourceEmpty):
        import_customers(path, dsn, settle=SHORT)
    ((status, error),) = ask(dsn, "SELECT status, error FROM imports")
    assert status == "FAILED"
    assert "is empty" in error
    path.write_bytes(TEXT)
    assert import_customers(path, dsn, settle=SHORT).job_id == 2
    assert index_count(dsn) == 3


def test_a_file_that_is_gone_interrupts_it(dsn, path):
    with pytest.raises(SourceNotFound):
        import_customers(path, dsn, settle=FOR_EVER, noted=lambda _: path.unlink())
    ((status, error),) = ask(dsn, "SELECT status, error FROM imports")
    assert status == "INTERRUPTED"
    assert "no such file" in error


def test_a_dry_run_waits_too(dsn, path):
    noted = []

    def note(text: str) -> None:
        noted.append(text)
        path.write_bytes(TEXT)

    result = import_customers(path, dsn, settle=SHORT, dry_run=True, noted=note)
    assert (result.rows_inserted, result.bytes_read, len(noted)) == (2, len(TEXT), 1)
    stop = Stop()
    with pytest.raises(Stopped):
        import_customers(
            path, dsn, settle=FOR_EVER, dry_run=True, stop=stop, noted=lambda _: stop.ask()
        )


def test_a_stream_has_nothing_to_wait_for(dsn):
    assert import_customers([TEXT], dsn, settle=FOR_EVER).rows_inserted == 2


def test_the_setting_is_the_default(dsn, path):
    path.write_bytes(TEXT)
    notes: list[str] = []
    settings = Settings(settle_s=SHORT)
    import_customers(path, dsn, settings=settings, noted=notes.append)
    import_customers(path, dsn, settings=settings, settle=0, noted=notes.append)
    assert len(notes) == 1


# -- command line and server ----------------------------------------------------------------------


def test_the_command_line_waits_says_so_and_stops_at_once(dsn, path):
    path.write_bytes(TEXT)
    process = subprocess.Popen(
        command("import", path, "--settle", str(FOR_EVER)),
        env=environment(DATABASE_URL=dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "waiting until" in line
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped" in errors
    assert ask(dsn, "SELECT status, phase FROM imports") == [("PAUSED", "settling")]


def test_the_command_line_takes_the_option_and_the_setting(dsn, path, run):
    path.write_bytes(TEXT)
    done = run("import", path, "--settle", "0.01", "--json", DATABASE_URL=dsn)
    assert (done.returncode, json.loads(done.stdout)["rowsInserted"]) == (0, 2)
    assert "for 0.01 s" in done.stderr
    done = run("import", path, DATABASE_URL=dsn, IMPORT_SETTLE_SEC="0.02")
    assert done.returncode == 0
    assert "for 0.02 s" in done.stderr
    assert run("import", path, "--settle", "-1", DATABASE_URL=dsn).returncode == 2
    wrong = run("import", path, DATABASE_URL=dsn, IMPORT_SETTLE_SEC="soon")
    assert wrong.returncode == 1
    assert "IMPORT_SETTLE_SEC: 'soon' is not a number of seconds" in wrong.stderr


def test_over_http_it_waits_in_sight_and_can_be_paused_resumed_and_cancelled(serve, dsn, path):
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=path.parent, IMPORT_SETTLE_SEC=FOR_EVER)
    job = api.sync(path)
    assert job["status"] == "RUNNING"

    def waits() -> bool:
        shown = ok(api.get(f"/imports/{job['id']}"))
        return (shown["status"], shown["phase"]) == ("RUNNING", "settling")

    wait_until("it waits", waits, 30)
    ok(api.post(f"/imports/{job['id']}/pause"))
    api.until("PAUSED", job=job["id"])
    ok(api.post(f"/imports/{job['id']}/resume"))
    wait_until("it waits again", waits, 30)
    ok(api.post(f"/imports/{job['id']}/cancel"))
    api.until("CANCELLED", job=job["id"])
    assert index_count(dsn) == 3


def test_a_server_that_is_started_again_goes_on_with_what_waited(serve, dsn, path):
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=path.parent, IMPORT_SETTLE_SEC=FOR_EVER)
    job = api.sync(path)
    api.kill()
    path.write_bytes(TEXT)
    api.settings["IMPORT_SETTLE_SEC"] = "0.01"
    api.start().wait_ready()
    shown = api.until("COMPLETED", job=job["id"])
    assert shown["rowsInserted"] == "2"


def test_a_stop_during_the_wait_is_immediate(path):
    """Not at the next look: a look may be far away."""
    stop, ended = Stop(), threading.Event()
    source = FileSource(path)

    def wait() -> None:
        with pytest.raises(StopRequested):
            settling.wait_until_still(source, FOR_EVER, stop)
        ended.set()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(settling, "LOOK_S", FOR_EVER)
        thread = threading.Thread(target=wait)
        thread.start()
        stop.ask()
        assert ended.wait(30)
        thread.join()
    source.close()
