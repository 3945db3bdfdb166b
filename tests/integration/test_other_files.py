"""What becomes of an import that did not end when another file of its feed, or its own again, is imported.

By the library, the command line and HTTP: scenarios 09, 10 and 28.
"""

from __future__ import annotations

import json
import re

import psycopg
import pytest

from customer_panel._native import generate
from customer_panel.errors import (
    Interrupted,
    MappingError,
    Overtaken,
    SourceChanged,
    SourceEmpty,
    Stopped,
)
from customer_panel.imports import Stop, import_customers
from support.envelope import failed, ok
from support.waiting import wait_until
from support.workers import ask, index_count, interrupt, jobs, status

ROWS = 4000


@pytest.fixture
def nights(tmp_path):
    """The files of three nights of a feed, of other customers each."""
    folder = tmp_path / "nights"
    folder.mkdir()
    for day in (24, 25, 26):
        generate(str(folder / f"customers-{day}.csv"), ROWS, seed=day)
    return folder


def night(folder, day):
    return folder / f"customers-{day}.csv"


def reason(dsn, job=1):
    return ask(dsn, "SELECT error FROM imports WHERE id = %s", job)[0][0]


def rows(dsn):
    return ask(dsn, "SELECT count(*) FROM customers")[0][0]


class Library:
    def __init__(self, dsn):
        self.dsn, self.notes = dsn, []

    def __call__(self, path, **how):
        self.notes = []
        return import_customers(path, self.dsn, noted=self.notes.append, **how)

    def said(self):
        return "\n".join(self.notes)


class CommandLine:
    def __init__(self, dsn, run):
        self.dsn, self.run, self.result = dsn, run, {}

    def __call__(self, path, **how):
        flags = [f"--{name}" for name, is_set in how.items() if is_set]
        done = self.run("import", path, "--json", *flags, DATABASE_URL=self.dsn)
        self.result = json.loads(done.stdout)
        assert done.returncode == 0, done.stderr
        assert set(self.result["notes"]) <= set(done.stderr.splitlines())

    def said(self):
        return "\n".join(self.result["notes"])


@pytest.fixture(params=["library", "command line"])
def importing(request, dsn, run):
    return Library(dsn) if request.param == "library" else CommandLine(dsn, run)


# -- another file of the feed ----------------------------------------------------------------------


@pytest.mark.parametrize("left", ["INTERRUPTED", "RUNNING"])
def test_its_file_is_gone_so_it_is_cancelled_and_the_next_nights_go_in(
    dsn, nights, importing, left
):
    """Scenario 28."""
    interrupt(night(nights, 24), dsn, left, batches=1)
    kept = rows(dsn)
    night(nights, 24).unlink()
    importing(night(nights, 25))
    assert jobs(dsn) == ["CANCELLED", "COMPLETED"]
    assert "gone" in reason(dsn)
    assert "import 1" in importing.said()
    assert "gone" in importing.said()
    assert rows(dsn) == kept + ROWS
    assert index_count(dsn) == 3
    importing(night(nights, 26))
    assert jobs(dsn) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert importing.said() == ""


@pytest.mark.parametrize("left", ["INTERRUPTED", "RUNNING"])
def test_its_file_is_there_so_it_is_finished_first(dsn, nights, importing, left):
    interrupt(night(nights, 24), dsn, left, batches=1)
    importing(night(nights, 25))
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]
    assert rows(dsn) == 2 * ROWS
    assert "import 1" in importing.said()
    assert "finished first" in importing.said()
    ended = ask(dsn, "SELECT id FROM imports ORDER BY end_number")
    assert ended == [(1,), (2,)]


def test_several_are_finished_oldest_first(dsn, nights):
    for day in (24, 25):
        interrupt(night(nights, day), dsn, batches=1)
        if day == 24:
            # As if it could not be opened that night.
            ask(dsn, "UPDATE imports SET status = 'PAUSED'")
    ask(dsn, "UPDATE import_lanes SET rows_processed = 0, rows_inserted = 0 WHERE import_id = 2")
    ask(dsn, "UPDATE imports SET status = 'INTERRUPTED'")
    import_customers(night(nights, 26), dsn)
    assert ask(dsn, "SELECT id FROM imports ORDER BY end_number") == [(1,), (2,), (3,)]


def test_its_file_cannot_be_opened_so_it_stays_with_the_reason(dsn, nights, importing):
    interrupt(night(nights, 24), dsn, batches=1)
    night(nights, 24).unlink()
    night(nights, 24).mkdir()
    importing(night(nights, 25))
    assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]
    assert "folder" in reason(dsn)
    assert "stays interrupted" in importing.said()


def test_a_paused_one_stays_paused(dsn, nights, importing):
    interrupt(night(nights, 24), dsn, "PAUSED", batches=1)
    importing(night(nights, 25))
    assert jobs(dsn) == ["PAUSED", "COMPLETED"]
    assert "paused" in importing.said()


def test_its_file_holds_something_else_so_it_is_cancelled(dsn, nights, importing):
    interrupt(night(nights, 24), dsn, batches=1)
    night(nights, 24).write_text("id,city\nother,Rome\n")
    importing(night(nights, 25))
    assert jobs(dsn) == ["CANCELLED", "COMPLETED"]
    assert "file changed between byte" in reason(dsn)


def test_one_of_another_feed_is_left_alone(dsn, nights, importing):
    interrupt(night(nights, 24), dsn, batches=1)
    ask(dsn, "INSERT INTO sources (name) VALUES ('erp')")
    ask(dsn, "UPDATE imports SET source_id = (SELECT id FROM sources WHERE name = 'erp')")
    importing(night(nights, 25))
    assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]
    assert (reason(dsn), importing.said()) == (None, "")


@pytest.mark.parametrize("left", ["there", "gone", "folder", "paused"])
def test_strict_refuses_instead(run, dsn, nights, left):
    interrupt(night(nights, 24), dsn, "PAUSED" if left == "paused" else "INTERRUPTED", batches=1)
    if left in ("gone", "folder"):
        night(nights, 24).unlink()
    if left == "folder":
        night(nights, 24).mkdir()
    before = jobs(dsn)
    with pytest.raises(Interrupted, match=r"import 1 of .*customers-24"):
        import_customers(night(nights, 25), dsn, strict=True)
    refused = run("import", night(nights, 25), "--strict", DATABASE_URL=dsn)
    assert refused.returncode == 1
    assert "import 1 of" in refused.stderr
    assert jobs(dsn) == before


def test_a_stop_of_the_call_stops_the_one_that_is_finished_first(dsn, nights):
    """The same call again goes on with both."""
    interrupt(night(nights, 24), dsn, batches=1)
    stop = Stop()
    with pytest.raises(Stopped):
        import_customers(
            night(nights, 25), dsn, stop=stop, progress=lambda _: stop.ask("PAUSED"), batch_rows=100
        )
    assert jobs(dsn) == ["INTERRUPTED"]
    import_customers(night(nights, 25), dsn)
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]


def test_a_stream_finishes_it_first_too(dsn, nights):
    interrupt(night(nights, 24), dsn, batches=1)
    import_customers([night(nights, 25).read_bytes()], dsn)
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]


# -- its own file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["INTERRUPTED", "PAUSED"])
@pytest.mark.parametrize("how", ["replaced", "rewritten", "shorter"])
def test_a_path_that_holds_another_file_is_imported_in_the_same_call(
    dsn, nights, importing, left, how
):
    path = night(nights, 24)
    interrupt(path, dsn, left, batches=1)
    kept = rows(dsn)
    if how == "replaced":
        night(nights, 25).replace(path)
    elif how == "rewritten":
        path.write_bytes(night(nights, 25).read_bytes())
    else:
        path.write_text("id,city\nx,Rome\n")
    importing(path)
    assert jobs(dsn) == ["CANCELLED", "COMPLETED"]
    # The rows are counted where the reason is shown.
    assert re.fullmatch(r"file changed between byte \d+ and \d+", reason(dsn))
    assert "import 1" in importing.said()
    assert importing.said().count("stay") == 1
    assert rows(dsn) == kept + (1 if how == "shorter" else ROWS)


def test_one_whose_rows_were_all_read_is_finished_before_the_other_file_at_its_path(dsn, nights):
    path = night(nights, 24)
    stop = Stop()

    def on_progress(shown):
        if shown.phase == "merging":
            stop.ask("INTERRUPTED")

    with pytest.raises(Stopped):
        import_customers(path, dsn, stop=stop, progress=on_progress)
    assert ask(dsn, "SELECT scanned_to FROM imports") == [(path.stat().st_size,)]
    night(nights, 25).replace(path)
    result = import_customers(path, dsn)
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]
    assert (result.job_id, rows(dsn)) == (2, 2 * ROWS)
    assert any("another file" in note for note in result.notes)


def test_a_request_ends_the_one_that_is_finished_first_alone(dsn, nights):
    for what, left in (("PAUSED", "PAUSED"), ("CANCELLED", "CANCELLED")):
        ask(dsn, "TRUNCATE customers, imports RESTART IDENTITY CASCADE")
        interrupt(night(nights, 24), dsn, batches=1)
        ask(dsn, "INSERT INTO import_requests VALUES (1, %s)", what)
        # Its session that listens may be slower than the rest of a small file.
        import_customers(night(nights, 25), dsn, batch_rows=100, lanes=1)
        assert jobs(dsn)[0] in (left, "COMPLETED")
        assert jobs(dsn)[1] == "COMPLETED"


def test_strict_refuses_another_file_at_its_path(run, dsn, nights):
    path = night(nights, 24)
    interrupt(path, dsn, "PAUSED", batches=1)
    night(nights, 25).replace(path)
    with pytest.raises(SourceChanged):
        import_customers(path, dsn, strict=True)
    assert run("import", path, "--strict", DATABASE_URL=dsn).returncode == 1
    assert jobs(dsn) == ["PAUSED"]
    assert "file changed" in reason(dsn)


def test_a_file_that_cannot_be_imported_at_all_cancels_nothing(dsn, nights):
    path = night(nights, 24)
    interrupt(path, dsn, batches=1)
    payload = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(SourceEmpty):
        import_customers(path, dsn)
    assert jobs(dsn) == ["INTERRUPTED"]
    assert "empty" in reason(dsn)
    path.write_bytes(payload)
    assert import_customers(path, dsn).is_resumed


def test_one_of_other_rules_is_imported_anew_with_its_options(dsn, tmp_path):
    path = tmp_path / "customers.csv"
    lines = [f"c{number},01/02/2021\n" for number in range(ROWS)]
    path.write_text("id,date\n" + "".join(lines))
    interrupt(path, dsn, batches=1)
    ask(
        dsn,
        "UPDATE imports SET rules_version = 0,"
        ' options = \'{"date_order": "dmy", "blank": "clear"}\'',
    )
    with pytest.raises(MappingError):
        import_customers(path, dsn, strict=True)
    result = import_customers(path, dsn)
    assert jobs(dsn) == ["CANCELLED", "COMPLETED"]
    assert result.rows_processed == ROWS
    options = ask(dsn, "SELECT options FROM imports WHERE id = 2")[0][0]
    assert options == {"date_order": "dmy", "blank": "clear"}


def test_other_options_begin_anew(dsn, nights):
    path = night(nights, 24)
    interrupt(path, dsn, batches=1)
    with pytest.raises(MappingError, match="cannot go on with"):
        import_customers(path, dsn, blank="clear", strict=True)
    result = import_customers(path, dsn, blank="clear")
    assert (jobs(dsn), result.rows_processed) == (["CANCELLED", "COMPLETED"], ROWS)
    assert "--blank clear" in reason(dsn)


def test_a_file_that_was_renamed_goes_on_and_is_known_by_its_new_name(dsn, nights):
    interrupt(night(nights, 24), dsn, batches=1)
    moved = night(nights, 24).rename(nights / "moved.csv")
    assert import_customers(moved, dsn).is_resumed
    assert ask(dsn, "SELECT file_path FROM imports") == [(str(moved),)]


# -- older values over newer ones ------------------------------------------------------------------


@pytest.fixture
def overtaken(dsn, tmp_path):
    """An import of yesterday's file that was paused, and one of today's that has completed."""
    yesterday, today = tmp_path / "yesterday.csv", tmp_path / "today.csv"
    yesterday.write_text("id,city\n" + "".join(f"c{n},Old\n" for n in range(ROWS)))
    today.write_text("id,city\n" + "".join(f"c{n},New\n" for n in range(ROWS)))
    interrupt(yesterday, dsn, "PAUSED", batches=1)
    import_customers(today, dsn)
    assert new_values(dsn) == ROWS
    return yesterday


def new_values(dsn):
    return ask(dsn, "SELECT count(*) FROM customers WHERE city = 'New'")[0][0]


def test_an_overtaken_import_is_refused_and_can_be_forced(run, dsn, overtaken):
    with pytest.raises(Overtaken, match="import 2"):
        import_customers(overtaken, dsn)
    refused = run("import", overtaken, DATABASE_URL=dsn)
    assert refused.returncode == 1
    assert "import 2" in refused.stderr
    assert (jobs(dsn), new_values(dsn)) == (["PAUSED", "COMPLETED"], ROWS)
    assert run("import", overtaken, "--force", DATABASE_URL=dsn).returncode == 0
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]
    assert new_values(dsn) < ROWS


def test_an_overtaken_one_is_not_finished_first(dsn, overtaken, nights):
    ask(dsn, "UPDATE imports SET status = 'INTERRUPTED' WHERE id = 1")
    import_customers(night(nights, 24), dsn)
    assert (jobs(dsn)[0], new_values(dsn)) == ("INTERRUPTED", ROWS)
    assert "import 2" in reason(dsn)


def test_a_newer_one_without_a_row_overtakes_nobody(dsn, overtaken):
    ask(dsn, "UPDATE imports SET status = 'FAILED' WHERE id = 2")
    with pytest.raises(Overtaken):
        import_customers(overtaken, dsn)
    ask(dsn, "DELETE FROM import_lanes WHERE import_id = 2")
    assert import_customers(overtaken, dsn).is_resumed


# -- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture
def own(serve, dsn, nights):
    return serve(DATABASE_URL=dsn, IMPORT_ROOTS=nights, IMPORT_BATCH_SIZE=1000)


def agree(api, job, wanted):
    """List, job and snapshot say the same state and reason."""
    shown = ok(api.get(f"/imports/{job}"))
    (listed,) = [j for j in ok(api.get("/imports", limit="100"))["data"] if j["id"] == str(job)]
    assert (shown["status"], listed) == (wanted, shown)
    snapshot = api.progress()
    if snapshot["jobId"] == str(job):
        assert (snapshot["status"], snapshot["error"]) == (wanted, shown["error"])
        assert snapshot["disableSync"] is False
    return shown


def test_the_file_is_gone_after_a_crash(own, dsn, nights):
    """Scenarios 10 and 28: both are killed, the file is tidied away, the server starts again."""
    own.kill()
    interrupt(night(nights, 24), dsn, "RUNNING", batches=1)
    kept = rows(dsn)
    night(nights, 24).unlink()
    own.start().wait_ready()
    wait_until("the reason is told", lambda: reason(dsn) is not None, 10)
    shown = agree(own, 1, "INTERRUPTED")
    assert "gone" in shown["error"]
    assert own.progress()["error"] == shown["error"]
    error = failed(own.post("/imports/1/resume"), 400)
    assert "no such file" in error["message"]
    strict = {"filePath": "customers-25.csv", "strict": True}
    assert "import 1" in failed(own.post("/customers/sync", strict), 409)["message"]
    job = own.sync(filePath="customers-25.csv")
    own.until("COMPLETED", job=job["id"])
    cancelled = agree(own, 1, "CANCELLED")
    assert "gone" in cancelled["error"]
    assert rows(dsn) == kept + ROWS
    own.sync(filePath="customers-26.csv")
    own.until("COMPLETED", job="3")


def test_a_dead_import_of_a_file_outside_of_the_roots(own, dsn, nights, tmp_path, runner):
    """Scenario 09."""
    outside = tmp_path / "outside.csv"
    generate(str(outside), 20_000, seed=9)
    assert runner.run(outside, dsn, batches=3, tuning={"batch_rows": 1000}).exit == -9
    wait_until("it is INTERRUPTED", lambda: status(dsn) == "INTERRUPTED", 10)
    wait_until("the reason is told", lambda: reason(dsn) is not None, 10)
    own.until("INTERRUPTED")
    assert agree(own, 1, "INTERRUPTED")["error"]
    own.sync(filePath="customers-25.csv")
    own.until("COMPLETED", job="2")
    assert status(dsn) == "INTERRUPTED"
    assert ok(own.post("/imports/1/cancel"))["status"] == "CANCELLED"
    assert index_count(dsn) == 3


def test_one_whose_file_is_there_is_finished_before_the_next_is_taken(own, dsn, nights):
    own.kill()
    interrupt(night(nights, 24), dsn, "RUNNING", batches=1)
    own.start().wait_ready()

    def sync():
        answer = own.post("/customers/sync", {"filePath": "customers-25.csv"})
        if answer.status_code != 200:
            message = failed(answer, 409)["message"]
            assert "already running" in message or "import 1" in message
        return answer.status_code == 200

    wait_until("the next file is taken", sync, 20)
    own.until("COMPLETED", job="2")
    assert jobs(dsn) == ["COMPLETED", "COMPLETED"]
    assert ask(dsn, "SELECT id FROM imports ORDER BY end_number") == [(1,), (2,)]


def test_an_overtaken_one_is_refused_over_http(own, dsn, nights):
    interrupt(night(nights, 24), dsn, "PAUSED", batches=1)
    own.sync(filePath="customers-25.csv")
    own.until("COMPLETED", job="2")
    for answer in (
        own.post("/imports/1/resume"),
        own.post("/customers/sync", {"filePath": "customers-24.csv"}),
    ):
        assert "import 2" in failed(answer, 409)["message"]
    assert agree(own, 1, "PAUSED")
    assert ok(own.post("/imports/1/resume", {"force": True}))["id"] == "1"
    own.until("COMPLETED", job="1")


def test_the_worker_resumes_no_overtaken_one(own, dsn, nights):
    interrupt(night(nights, 24), dsn, "PAUSED", batches=1)
    own.sync(filePath="customers-25.csv")
    own.until("COMPLETED", job="2")
    ask(dsn, "UPDATE imports SET status = 'INTERRUPTED' WHERE id = 1")
    wait_until("the reason is told", lambda: reason(dsn) is not None, 10)
    assert "import 2" in agree(own, 1, "INTERRUPTED")["error"]


@pytest.mark.parametrize("how", ["sync", "resume"])
def test_another_file_at_its_path_is_imported_over_http(own, dsn, nights, how):
    path = night(nights, 24)
    interrupt(path, dsn, "PAUSED", batches=1)
    night(nights, 25).replace(path)
    asked = {"sync": "/customers/sync", "resume": "/imports/1/resume"}[how]
    body = {"filePath": "customers-24.csv"} if how == "sync" else {}
    job = ok(own.post(asked, body))
    assert job["id"] == "2"
    own.until("COMPLETED", job="2")
    assert "file changed between byte" in agree(own, 1, "CANCELLED")["error"]


def test_the_worker_imports_nothing_that_nobody_asked_for(own, dsn, nights):
    """It was to go on with the file of last night, and finds another one."""
    path = night(nights, 24)
    own.kill()
    interrupt(path, dsn, "RUNNING", batches=1)
    night(nights, 25).replace(path)
    own.start().wait_ready()
    own.until("FAILED")
    failure = agree(own, 1, "FAILED")
    assert "file changed between byte" in failure["error"]
    assert f"the {failure['rowsInserted']} rows that were written stay" in failure["error"]
    assert failure["rowsInserted"] != "0"
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM imports").fetchone() == (1,)
