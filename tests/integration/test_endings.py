"""However an import ends, in whatever phase: what is left is whole, and the next import comes to the same."""

from __future__ import annotations

import contextlib
import json
import threading

import psycopg
import pytest

from customer_panel.errors import CustomerPanelError, SourceChanged, Stopped
from customer_panel.imports import Stop, import_customers
from customer_panel.imports.engine import indexes
from customer_panel.imports.job import progress
from support.compare import digest, run
from support.workers import ask, index_count, jobs, status

PHASES = ["scanning", "indexing", "merging", "maintenance"]
BATCH_ROWS = 300


class Ending:
    """Ends an import with `status` when it is in `phase`: during the scan, after the first rows."""

    def __init__(self, phase: str, status: str) -> None:
        self.phase, self.status, self.stop = phase, status, Stop()
        self.is_over = False

    def __call__(self, shown):
        is_there = shown.phase == self.phase and (
            self.phase != "scanning" or shown.counts.processed > 4 * BATCH_ROWS
        )
        if not is_there or self.is_over or self.status == "COMPLETED":
            return
        self.is_over = True
        if self.status == "FAILED":
            raise SourceChanged("it changed while it was read")
        self.stop.ask(self.status)


def ended(path, dsn, phase, status):
    """Imports the file, and ends it."""
    ending = Ending(phase, status)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "EVERY_S", 0)
        with contextlib.suppress(Stopped, SourceChanged):
            run(path, dsn, on_progress=ending, stop=ending.stop, batch_rows=BATCH_ROWS, lanes=2)


def is_whole(dsn, job):
    """What every import that has ended leaves."""
    ((parked, asked, pending, processed, outcomes),) = ask(
        dsn,
        "SELECT (SELECT count(*) FROM import_parked), (SELECT count(*) FROM import_requests),"
        " sum(rows_pending)::int, sum(rows_processed)::int, sum(rows_inserted + rows_updated"
        "   + rows_unchanged + rows_protected + rows_duplicate + rows_skipped)::int"
        " FROM import_lanes WHERE import_id = %s",
        job,
    )
    assert (parked, asked, pending) == (0, 0, 0)
    assert processed == outcomes
    assert index_count(dsn) == 3
    ((has_key,),) = ask(
        dsn,
        "SELECT EXISTS (SELECT FROM pg_constraint"
        " WHERE conrelid = 'customers'::regclass AND contype = 'p')",
    )
    assert has_key
    ((total, rows),) = ask(
        dsn,
        "SELECT (SELECT coalesce(sum(delta), 0)::int FROM customer_totals),"
        " (SELECT count(*) FROM customers WHERE deleted_at IS NULL)",
    )
    assert total == rows


def inserted(dsn):
    return ask(dsn, "SELECT coalesce(sum(rows_inserted), 0)::int FROM import_lanes")[0][0]


# Only a first load has indexes to build at its end.
CASES = [(name, phase) for name in ("first", "again") for phase in PHASES]
CASES.remove(("again", "indexing"))


@pytest.mark.parametrize(("name", "phase"), CASES)
@pytest.mark.parametrize("wanted", ["COMPLETED", "FAILED", "CANCELLED", "PAUSED", "INTERRUPTED"])
def test_every_end_in_every_phase_leaves_a_whole_table(small, databases, name, phase, wanted):
    scene = small[name]
    with databases.copy(scene.before) as dsn:
        (before,) = ask(dsn, "SELECT count(*) FROM customers")[0]
        ended(scene.path, dsn, phase, wanted)
        job = ask(dsn, "SELECT max(id) FROM imports")[0][0]
        reached = status(dsn, job)
        # Nothing may be left to stop once the last phase is reached.
        assert reached == wanted or (phase, reached) == ("maintenance", "COMPLETED")
        (rows,) = ask(dsn, "SELECT count(*) FROM customers")[0]
        earlier = before if name == "again" else 0
        assert inserted(dsn) == rows
        assert rows >= earlier
        if reached in ("COMPLETED", "FAILED", "CANCELLED"):
            is_whole(dsn, job)
        result = run(scene.path, dsn)
        assert result.status == "COMPLETED"
        assert result.is_resumed == (reached in ("PAUSED", "INTERRUPTED"))
        assert min(result.rows_inserted, result.rows_updated, result.rows_protected) >= 0
        is_whole(dsn, result.job_id)
        assert digest(dsn) == scene.table
        assert inserted(dsn) == ask(dsn, "SELECT count(*) FROM customers")[0][0]


def test_customers_made_by_hand_are_counted_with_the_load_that_met_them(dsn, tmp_path):
    """The first load fails, its keys cannot be built, and the next import builds them."""
    path = tmp_path / "customers.csv"
    rows = "".join(f"c{number},Ulm\n" for number in range(3000))
    path.write_text("id,city\n" + rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(indexes, "BUILD", dict.fromkeys(indexes.BUILD, "SELECT 1 / 0"))
        ended(path, dsn, "scanning", "FAILED")
    assert (status(dsn), index_count(dsn)) == ("FAILED", 1)
    ask(dsn, "INSERT INTO customers (customer_id, city) VALUES ('c0', 'Bonn')")
    result = import_customers(path, dsn)
    assert result.rows_inserted >= 0
    assert result.rows_processed == 3000
    assert inserted(dsn) == 2999  # one of them was made by hand
    assert index_count(dsn) == 3
    assert ask(dsn, "SELECT city FROM customers WHERE customer_id = 'c0'") == [("Bonn",)]


@pytest.mark.parametrize("wanted", ["FAILED", "CANCELLED"])
def test_a_build_that_fails_does_not_keep_the_job_from_its_end(dsn, small, wanted, run):
    """The job ends, it is said, and `doctor --repair` does what is left."""
    path = small["first"].path
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(indexes, "BUILD", dict.fromkeys(indexes.BUILD, "SELECT 1 / 0"))
        ended(path, dsn, "scanning", wanted)
    assert (status(dsn), index_count(dsn)) == (wanted, 1)
    found = run("doctor", "--json", DATABASE_URL=dsn)
    assert found.returncode == 1
    (line,) = [f for f in json.loads(found.stdout)["findings"] if f["name"] == "imports"]
    assert "index" in line["value"]
    assert "--repair" in line["hint"]
    repaired = run("doctor", "--repair", "--json", DATABASE_URL=dsn)
    assert repaired.returncode == 0, repaired.stdout
    (line,) = [f for f in json.loads(repaired.stdout)["findings"] if f["name"] == "imports"]
    assert "are built" in line["value"]
    is_whole(dsn, 1)
    assert run("doctor", DATABASE_URL=dsn).returncode == 0


def test_rows_that_a_failed_end_left_parked_are_given_up_by_the_next_claim(dsn, small, monkeypatch):
    scene = small["first"]
    with monkeypatch.context() as patched:
        patched.setattr(
            "customer_panel.imports.engine.finish.merge_parked",
            lambda *_: (_ for _ in ()).throw(psycopg.errors.DivisionByZero()),
        )
        ended(scene.path, dsn, "indexing", "FAILED")
    is_whole(dsn, 1)
    assert run(scene.path, dsn).status == "COMPLETED"
    assert digest(dsn) == scene.table


def test_a_stream_whose_process_died_has_failed_and_left_a_whole_table(dsn, small, runner):
    """Seen to by whoever comes next, with the rows that it had parked."""
    scene = small["first"]
    ended(scene.path, dsn, "scanning", "INTERRUPTED")
    ask(dsn, "UPDATE imports SET status = 'RUNNING', file_path = NULL")
    result = import_customers([scene.path.read_bytes()], dsn)
    assert jobs(dsn) == ["FAILED", "COMPLETED"]
    ((reason,),) = ask(dsn, "SELECT error FROM imports WHERE id = 1")
    assert "stream" in reason
    is_whole(dsn, 1)
    is_whole(dsn, result.job_id)
    assert digest(dsn) == scene.table


def test_a_job_that_is_cancelled_beside_another_first_load_gets_its_keys_from_that(
    run, dsn, small, tmp_path
):
    """`jobs cancel` of one that waits, while another import runs: at once, and its rows count."""
    ended(small["first"].path, dsn, "scanning", "PAUSED")
    other = tmp_path / "other.csv"
    other.write_text("id,city\n" + "".join(f"x{number},Rome\n" for number in range(3000)))
    first, steered = threading.Lock(), []

    def on_progress(shown):
        if shown.job_id == 2 and shown.counts.processed and first.acquire(blocking=False):
            steered.append(run("jobs", "cancel", "1", DATABASE_URL=dsn))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "EVERY_S", 0)
        import_customers(other, dsn, feed="other", progress=on_progress, batch_rows=200)
    assert steered[0].returncode == 0, steered[0].stderr
    assert "import 1 is CANCELLED" in steered[0].stdout
    assert jobs(dsn) == ["CANCELLED", "COMPLETED"]
    is_whole(dsn, 1)
    is_whole(dsn, 2)
    assert inserted(dsn) == ask(dsn, "SELECT count(*) FROM customers")[0][0]


# -- dead ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", ["main", "other"])
def test_a_dead_running_job_is_in_nobodys_way(run, dsn, small, tmp_path, feed):
    """Whatever comes next: another file of its feed or of another one, a cancel, a resume, a doctor."""
    ended(small["first"].path, dsn, "scanning", "INTERRUPTED")
    other = tmp_path / "other.csv"
    other.write_text("id,city\nx,Rome\n")
    ask(dsn, "UPDATE imports SET status = 'RUNNING'")
    assert import_customers(other, dsn, feed=feed).status == "COMPLETED"
    assert jobs(dsn) == ["COMPLETED" if feed == "main" else "INTERRUPTED", "COMPLETED"]
    if feed == "main":
        return
    # A paused one is resumed while another one died.
    ended(small["again"].path, dsn, "scanning", "PAUSED")
    ask(dsn, "UPDATE imports SET status = 'RUNNING' WHERE id = 1")
    assert run("import", small["again"].path, DATABASE_URL=dsn).returncode in (0, 3)
    assert jobs(dsn)[0] in ("INTERRUPTED", "COMPLETED")
    ask(dsn, "UPDATE imports SET status = 'RUNNING', completed_at = NULL WHERE id = 1")
    repaired = run("doctor", "--repair", DATABASE_URL=dsn)
    assert "import 1 is interrupted: its process is dead" in repaired.stdout
    assert run("jobs", "cancel", "1", DATABASE_URL=dsn).returncode == 0
    with pytest.raises(CustomerPanelError):
        import_customers(tmp_path / "none.csv", dsn)
