"""The server's worker: what it takes up by itself, what it is asked for, and that nothing ends it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api import csv, held, held_midway, waited_for
from customer_panel.api.idempotency import Key, Repeated, take
from customer_panel.db import embedded
from customer_panel.errors import (
    AlreadyRunning,
    MappingError,
    OutsideRoots,
    SourceEmpty,
    SourceNotFound,
    Stopped,
)
from customer_panel.imports import keys, progress, rests, worker
from customer_panel.imports.apply import Writer
from customer_panel.imports.stop import Stop
from customer_panel.imports.worker import Worker
from customer_panel.settings import Settings
from customer_panel.sql import statement
from stage import RUNS
from table import digest, run, settled

ROWS = 40_000
BATCH_ROWS = 1000
PATIENCE_S = 30.0
TAKEN_UP_S = 2.0  # an interrupted import goes on within


@pytest.fixture
def folder(tmp_path):
    """The only folder that workers may import from."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def pristine(databases, template, tmp_path_factory):
    """A file, and what its import comes to when nobody disturbs it."""
    path = csv(
        tmp_path_factory.mktemp("pristine") / "customers.csv",
        ROWS,
        seed=7,
        duplicates=0.02,
        dirty=0.01,
    )
    with databases.copy(template) as dsn:
        result = run(path, dsn)
        return path, digest(dsn), settled(dsn, result.job_id)


@pytest.fixture
def file(pristine, folder):
    path = folder / "customers.csv"
    os.link(pristine[0], path)
    return path


@pytest.fixture
def check(pristine, dsn):
    """The import has come to what it comes to when nobody disturbs it."""

    def check(job: int = 1) -> None:
        assert digest(dsn) == pristine[1]
        assert settled(dsn, job) == pristine[2]
        assert indexes(dsn) == 3

    return check


def indexes(dsn: str) -> int:
    return int(
        ask(
            dsn,
            "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid",
        )[0][0]
    )


@pytest.fixture
def working(dsn, folder):
    """Starts workers; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(**how: Any) -> Worker:
            return stack.enter_context(at_work(dsn, folder, **how))

        yield start


@contextlib.contextmanager
def at_work(dsn: str, folder: Path, **how: Any) -> Iterator[Worker]:
    settings = Settings(import_roots=(folder,), batch_rows=BATCH_ROWS)
    worker = Worker(dsn, settings, **how)
    worker.start()
    try:
        yield worker
    finally:
        worker.ask_stop()
        assert worker.join(PATIENCE_S)


def ask(dsn: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        done = conn.execute(query.encode(), parameters)
        return done.fetchall() if done.description else []


def status(dsn: str, job: int = 1) -> str | None:
    found = ask(dsn, "SELECT status FROM imports WHERE id = %s", job)
    return found[0][0] if found else None


def until(dsn: str, wanted: str, job: int = 1, timeout: float = PATIENCE_S) -> float:
    return waited_for(
        lambda: status(dsn, job) == wanted, timeout, lambda: f"{wanted}, but {status(dsn, job)}"
    )


def jobs(dsn: str) -> list[str]:
    return [row[0] for row in ask(dsn, "SELECT status FROM imports ORDER BY id")]


def requested(dsn: str, job: int, what: str) -> None:
    """As the API asks the runner."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement("ask_import"), {"import_id": job, "requested": what})


def given_up(dsn: str, job: int) -> None:
    """As the API asks for the end of an import that nobody runs."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.execute(statement("ask_waiting_import"), {"import_id": job}).fetchone()


def interrupted(path: Path, dsn: str, status: str = "INTERRUPTED", batches: int = 3) -> None:
    """An import that was stopped after some batches, or claims to run and does not."""
    stop = Stop()

    def told(found):
        if found.counts.inserted > batches * BATCH_ROWS:
            stop.ask("PAUSED" if status == "PAUSED" else "INTERRUPTED")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "EVERY_S", 0)
        with pytest.raises(Stopped):
            run(path, dsn, told=told, stop=stop, batch_rows=BATCH_ROWS, lanes=2)
    if status == "RUNNING":
        ask(dsn, "UPDATE imports SET status = 'RUNNING'")


# -- what it takes up by itself --------------------------------------------------------------------


def test_a_killed_import_goes_on_at_the_next_start(runner, dsn, file, working, check):
    ended = runner.run(file, dsn, batches=4, tuning={"batch_rows": BATCH_ROWS})
    assert ended.exit == -9
    assert status(dsn) == "RUNNING"
    began = time.monotonic()
    working()
    waited_for(lambda: ask(dsn, "SELECT epoch FROM imports") == [(2,)], TAKEN_UP_S)
    assert time.monotonic() - began < TAKEN_UP_S
    until(dsn, "COMPLETED")
    check()
    assert jobs(dsn) == ["COMPLETED"]


@pytest.mark.parametrize("left", ["INTERRUPTED", "RUNNING"])
def test_an_interrupted_one_goes_on_while_the_worker_is_idle(dsn, file, working, check, left):
    idle = working()
    waited_for(lambda: idle.has_schema, PATIENCE_S)
    interrupted(file, dsn, left)
    until(dsn, "COMPLETED")
    check()


def test_a_paused_one_stays_paused_until_it_is_asked_for(dsn, file, working, check):
    interrupted(file, dsn, "PAUSED")
    idle = working()
    for _ in range(25):
        idle.wake()
        time.sleep(0.1)
    assert status(dsn) == "PAUSED"
    assert idle.submit(str(file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check()


def test_a_file_that_cannot_be_opened_blocks_nothing(dsn, folder, tmp_path, file, working, check):
    outside = csv(tmp_path / "outside.csv", 5000, seed=99)
    interrupted(outside, dsn, "RUNNING", batches=1)
    idle = working()
    until(dsn, "INTERRUPTED")
    assert idle.submit("customers.csv").result(PATIENCE_S) == 2
    until(dsn, "COMPLETED", job=2)
    assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]


def test_a_file_that_comes_back_is_gone_on_with(dsn, file, folder, working, check, caplog):
    interrupted(file, dsn, "RUNNING")
    file.rename(folder / "aside.csv")
    idle = working()
    with caplog.at_level(logging.WARNING, "customer_panel.imports"):
        until(dsn, "INTERRUPTED")
        for _ in range(5):
            idle.wake()
            time.sleep(0.1)
    assert len([one for one in caplog.records if "waits for its file" in one.message]) == 1
    (folder / "aside.csv").rename(file)
    until(dsn, "COMPLETED")
    check()


def test_a_changed_file_fails_and_is_left_alone(dsn, file, pristine, working):
    interrupted(file, dsn)
    payload = bytearray(file.read_bytes())
    payload[500:510] = b"x" * 10
    file.unlink()
    file.write_bytes(payload)
    working()
    until(dsn, "FAILED")
    assert jobs(dsn) == ["FAILED"]


def test_one_behind_which_a_newer_one_of_its_feed_began_is_left_alone(dsn, file, folder, working):
    other = csv(folder / "newer.csv", 2000, seed=3)
    interrupted(file, dsn)
    idle = working()
    # Before the worker looks: it was asked for in the same moment.
    idle.submit(str(other)).exception(PATIENCE_S)
    waited_for(lambda: idle.running is None, PATIENCE_S)
    if len(jobs(dsn)) == 2:
        until(dsn, "COMPLETED", job=2)
        for _ in range(15):
            idle.wake()
            time.sleep(0.1)
        assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]
        assert idle.submit(str(file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")


def test_a_stream_that_was_killed_has_failed(dsn, file, working):
    interrupted(file, dsn, "RUNNING")
    ask(dsn, "UPDATE imports SET file_path = NULL")
    working()
    until(dsn, "FAILED")


@pytest.mark.parametrize("count", [2, 4])
def test_of_several_workers_one_runs_it(runner, dsn, file, folder, check, count, caplog):
    ended = runner.run(file, dsn, batches=4, tuning={"batch_rows": BATCH_ROWS})
    assert ended.exit == -9
    with contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING):
        for _ in range(count):
            stack.enter_context(at_work(dsn, folder))
        until(dsn, "COMPLETED")
    check()
    # The killed claim, and one more.
    assert ask(dsn, "SELECT epoch, status FROM imports") == [(2, "COMPLETED")]
    assert not caplog.records


def test_a_small_one_is_not_begun_anew_by_a_worker_that_comes_late(databases, template, folder):
    """The first is through before the second has the lock."""
    path = csv(folder / "small.csv", 3000, seed=5)
    for _ in range(5):
        with databases.copy(template) as dsn:
            interrupted(path, dsn, "RUNNING", batches=1)
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    stack.enter_context(at_work(dsn, folder))
                until(dsn, "COMPLETED")
            assert jobs(dsn) == ["COMPLETED"]


# -- what it is asked for --------------------------------------------------------------------------


def test_the_number_comes_as_soon_as_the_import_is_claimed(dsn, file, working, check):
    idle = working()
    with held(dsn):
        number = idle.submit(str(file), progress_every_ms=700).result(5)
        assert (status(dsn, number), idle.running) == ("RUNNING", number)
        assert ask(dsn, "SELECT progress_every_ms FROM imports") == [(700,)]
        with pytest.raises(AlreadyRunning):
            idle.submit(str(file))
    until(dsn, "COMPLETED")
    check()
    assert idle.progress is not None
    assert idle.progress.phase == "done"


def test_what_cannot_be_imported_is_told_and_makes_no_job(dsn, folder, tmp_path, working):
    idle = working()
    outside = csv(tmp_path / "outside.csv", 5)
    (folder / "empty.csv").touch()
    (folder / "header.csv").write_text("customer id,email\n")
    (folder / "apples.csv").write_text("apples,pears\n1,2\n")
    for path, kind in (
        (str(outside), OutsideRoots),
        ("/etc/passwd", OutsideRoots),
        ("gone.csv", SourceNotFound),
        ("empty.csv", SourceEmpty),
        ("header.csv", SourceEmpty),
        ("apples.csv", MappingError),
    ):
        with pytest.raises(kind):
            idle.submit(path).result(PATIENCE_S)
    assert jobs(dsn) == []
    assert idle.is_alive()


def test_what_fails_in_the_transaction_that_creates_leaves_no_job(dsn, file, working, check):
    idle = working()
    key = Key(b"k" * 32, b"b" * 32)
    number = idle.submit(str(file), created=lambda conn, job: take(conn, key, job)).result(5)
    until(dsn, "COMPLETED", number)
    waited_for(lambda: idle.running is None, PATIENCE_S)
    again = idle.submit(str(file), created=lambda conn, job: take(conn, key, job))
    with pytest.raises(Repeated) as earlier:
        again.result(PATIENCE_S)
    assert earlier.value.created_id == number
    assert jobs(dsn) == ["COMPLETED"]
    # Its place is free again.
    ask(dsn, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    waited_for(lambda: idle.running is None, PATIENCE_S)
    assert idle.submit(str(file), created=lambda conn, job: take(conn, key, job)).result(5) > number


def test_the_command_line_runs_one_and_the_worker_says_so(dsn, file, working):
    idle = working()
    with held(dsn) as let_go:
        other = threading.Thread(target=run, args=(file, dsn))
        other.start()
        until(dsn, "RUNNING")
        with pytest.raises(AlreadyRunning):
            idle.submit(str(file)).result(PATIENCE_S)
        let_go()
        other.join()
    assert jobs(dsn) == ["COMPLETED"]


def test_an_order_that_comes_while_another_import_is_taken_up_is_refused(
    dsn, file, folder, working, monkeypatch
):
    other = csv(folder / "other.csv", 100, seed=4)
    interrupted(file, dsn)
    inside, go_on = threading.Event(), threading.Event()
    opened = worker.open_beneath

    def slow(roots, path):
        inside.set()
        go_on.wait(PATIENCE_S)
        return opened(roots, path)

    monkeypatch.setattr(worker, "open_beneath", slow)
    idle = working()
    assert inside.wait(PATIENCE_S)
    order = idle.submit(str(other))
    go_on.set()
    with pytest.raises(AlreadyRunning):
        order.result(PATIENCE_S)
    until(dsn, "COMPLETED")
    assert jobs(dsn) == ["COMPLETED"]


def test_a_pause_that_its_runner_did_not_live_to_obey_is_not_meant_for_the_next(
    dsn, file, working, check
):
    interrupted(file, dsn, "PAUSED")
    ask(dsn, "INSERT INTO import_requests VALUES (1, 'PAUSED')")
    idle = working()
    assert idle.submit(str(file)).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check()


# -- pause, cancel, stop ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(RUNS or 3))
def test_paused_and_resumed_at_any_time_it_comes_to_the_same(dsn, file, working, check, number):
    draw = random.Random(4000 + number)
    idle = working()
    idle.submit(str(file)).result(PATIENCE_S)
    for _ in range(4):
        time.sleep(draw.random() * 0.3)
        requested(dsn, 1, "PAUSED")
        waited_for(lambda: idle.running is None, PATIENCE_S)
        if status(dsn) == "COMPLETED":
            break
        assert status(dsn) == "PAUSED"
        assert ask(dsn, "SELECT count(*) FROM import_requests") == [(0,)]
        assert idle.submit(str(file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check()
    assert jobs(dsn) == ["COMPLETED"]


@pytest.mark.parametrize("number", range(RUNS or 3))
def test_cancelled_at_any_time_it_keeps_its_rows_and_has_its_keys(dsn, file, working, number):
    draw = random.Random(5000 + number)
    idle = working()
    idle.submit(str(file)).result(PATIENCE_S)
    time.sleep(draw.random() * 0.5)
    requested(dsn, 1, "CANCELLED")
    waited_for(lambda: idle.running is None, PATIENCE_S)
    assert status(dsn) in ("CANCELLED", "COMPLETED")
    is_kept(dsn)


def is_kept(dsn: str) -> None:
    """What a cancelled import leaves: its rows, counted, with keys, and nothing that waits."""
    ((rows, inserted, total, parked, asked),) = ask(
        dsn,
        "SELECT (SELECT count(*) FROM customers), (SELECT sum(rows_inserted) FROM import_lanes),"
        " (SELECT coalesce(sum(delta), 0) FROM customer_totals),"
        " (SELECT count(*) FROM import_parked), (SELECT count(*) FROM import_requests)",
    )
    assert rows == inserted == total
    assert (parked, asked) == (0, 0)
    assert indexes(dsn) == 3


@pytest.mark.parametrize("left", ["PAUSED", "INTERRUPTED"])
def test_one_that_nobody_runs_is_given_up(dsn, file, folder, working, left):
    interrupted(file, dsn, left)
    assert indexes(dsn) == 1  # a first load: its keys are built at its end
    file.unlink()
    given_up(dsn, 1)
    working()
    until(dsn, "CANCELLED")
    is_kept(dsn)
    assert ask(dsn, "SELECT count(*) FROM customers")[0][0] > 0


def test_giving_up_can_be_killed_and_begun_again(dsn, file, working, monkeypatch):
    """Before the first key, and between the two."""
    interrupted(file, dsn, "PAUSED")
    given_up(dsn, 1)
    monkeypatch.setattr(rests, "FIRST_S", 0.05)
    monkeypatch.setattr(worker, "LOOK_S", 0.05)
    made = keys.BUILD
    broken = [dict.fromkeys(made, "SELECT 1 / 0"), {**made, keys.KEY: "SELECT 1 / 0"}]
    tried = []

    def build(*args, **more):
        tried.append(1)
        keys.BUILD = broken[len(tried) - 1] if len(tried) <= len(broken) else made
        return original(*args, **more)

    original = keys.build
    monkeypatch.setattr(keys, "build", build)
    monkeypatch.setattr(keys, "BUILD", made)
    working()
    until(dsn, "CANCELLED")
    assert len(tried) == 3
    is_kept(dsn)


def test_a_stop_while_giving_up_leaves_it_to_the_next(dsn, file, folder):
    interrupted(file, dsn, "PAUSED")
    given_up(dsn, 1)
    with psycopg.connect(dsn) as writer, at_work(dsn, folder) as first:
        # An index waits for who writes.
        writer.execute("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
        until(dsn, "RUNNING")
        first.ask_stop()
        assert first.join(5)
    assert status(dsn) in ("INTERRUPTED", "RUNNING")
    with at_work(dsn, folder):
        until(dsn, "CANCELLED")
    is_kept(dsn)


def test_a_stop_interrupts_and_the_next_worker_goes_on(dsn, file, folder, check):
    with at_work(dsn, folder) as first:
        with held_midway(dsn, lambda: first.submit(str(file)).result(PATIENCE_S)):
            began = time.monotonic()
            first.ask_stop()
            assert first.join(5)
            assert time.monotonic() - began < 5
        assert not first.is_alive()
        with pytest.raises(Stopped):
            first.submit(str(file))
    assert status(dsn) == "INTERRUPTED"
    with at_work(dsn, folder):
        until(dsn, "COMPLETED")
    check()


def test_a_stop_refuses_what_was_not_begun(dsn, file, folder, monkeypatch):
    inside = threading.Event()
    opened = worker.open_beneath

    def slow(roots, path):
        inside.set()
        time.sleep(0.3)
        return opened(roots, path)

    monkeypatch.setattr(worker, "open_beneath", slow)
    with at_work(dsn, folder) as idle:
        first = idle.submit(str(file))
        assert inside.wait(PATIENCE_S)
        second = idle.submit(str(file))
        idle.ask_stop()
        for order in (first, second):
            with pytest.raises(Stopped):
                order.result(PATIENCE_S)
    assert status(dsn) in (None, "INTERRUPTED")


# -- nothing ends it -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(RUNS or 2))
def test_lost_connections_are_made_anew(dsn, file, working, check, number):
    draw = random.Random(6000 + number)
    idle = working()
    idle.submit(str(file)).result(PATIENCE_S)
    for _ in range(3):
        time.sleep(draw.random() * 0.4)
        ask(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    until(dsn, "COMPLETED")
    check()
    assert jobs(dsn) == ["COMPLETED"]
    # Idle too.
    ask(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    waited_for(lambda: idle.running is None, PATIENCE_S)
    assert idle.submit(str(file)).result(PATIENCE_S) == 2
    until(dsn, "COMPLETED", job=2)


def test_a_bug_leaves_the_import_interrupted_and_is_tried_again(
    dsn, file, working, check, monkeypatch, caplog
):
    monkeypatch.setattr(rests, "FIRST_S", 0.2)
    monkeypatch.setattr(worker, "LOOK_S", 0.1)
    failures = [RuntimeError("ada@example.com"), KeyError("ada@example.com")]
    apply = Writer.apply

    def failing(self, batch):
        if failures and batch.span[0] > 200_000:
            raise failures.pop()
        return apply(self, batch)

    monkeypatch.setattr(Writer, "apply", failing)
    idle = working()
    with caplog.at_level(logging.ERROR, "customer_panel.imports"):
        idle.submit(str(file)).result(PATIENCE_S)
        until(dsn, "COMPLETED")
    check()
    assert not failures
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "RuntimeError" in told
    assert "failing" in told  # where it was
    assert "ada@example.com" not in told


def test_it_rests_longer_after_each_failure(dsn, file, working, monkeypatch):
    monkeypatch.setattr(rests, "FIRST_S", 0.1)
    monkeypatch.setattr(rests, "LONGEST_S", 2.0)
    monkeypatch.setattr(worker, "LOOK_S", 0.02)
    tried = []

    def failing(self, batch):
        if len(tried) < 5:
            tried.append(time.monotonic())
            raise RuntimeError
        return apply(self, batch)

    apply = Writer.apply
    monkeypatch.setattr(Writer, "apply", failing)
    idle = working()
    idle.submit(str(file)).result(PATIENCE_S)
    until(dsn, "COMPLETED")
    # Two lanes fail in one attempt, at nearly the same time.
    waited = [later - one for one, later in itertools.pairwise(tried) if later - one > 0.05]
    assert len(waited) >= 3
    assert all(later > one * 1.2 for one, later in itertools.pairwise(waited)), waited


def test_no_values_of_rows_in_what_is_logged_of_the_database(
    dsn, file, working, monkeypatch, caplog
):
    ask(
        dsn,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE check_violation USING MESSAGE = 'x', DETAIL = NEW.email; END $$",
    )
    ask(
        dsn,
        "CREATE TRIGGER no BEFORE INSERT ON customers FOR EACH ROW WHEN (NEW.customer_id > 'd')"
        " EXECUTE FUNCTION no()",
    )
    idle = working()
    with caplog.at_level(logging.DEBUG):
        idle.submit(str(file)).result(PATIENCE_S)
        waited_for(lambda: status(dsn) == "INTERRUPTED", PATIENCE_S)
        waited_for(lambda: "CheckViolation" in caplog.text, PATIENCE_S)
    assert "@" not in caplog.text
    ask(dsn, "DROP TRIGGER no ON customers")
    assert ask(dsn, "SELECT error FROM imports") == [("x",)]


def test_a_database_that_is_away_is_waited_for_and_brought_back(home, tmp_path, folder, file):
    """From the start on, without its schema, and again in the middle of an import."""
    server = embedded.ensure_running(home)
    embedded.release(server)
    held_servers = []

    def revive():
        held_servers.append(embedded.ensure_running(home))

    with at_work(server.dsn, folder, revive=revive) as idle:
        waited_for(lambda: idle.has_schema, PATIENCE_S)
        idle.submit(str(file)).result(PATIENCE_S)
        embedded.stop(home, force=True)
        until_back = time.monotonic()
        waited_for(lambda: embedded.status(home).pid is not None, PATIENCE_S)
        until(server.dsn, "COMPLETED")
        assert time.monotonic() - until_back < PATIENCE_S
        assert idle.is_alive()
    assert jobs(server.dsn) == ["COMPLETED"]
    for one in held_servers:
        os.close(one.users)


def test_what_is_asked_while_the_database_is_away_fails_at_once(dsn, folder, file):
    from customer_panel.errors import DatabaseUnreachable

    nowhere = "postgresql://127.0.0.1:1/nothing?connect_timeout=2"
    with at_work(nowhere, folder) as idle:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(DatabaseUnreachable):
                idle.submit(str(file)).result(PATIENCE_S)
            assert time.monotonic() - began < 2
        assert idle.is_alive()
        assert not idle.has_schema


def test_it_leaves_no_sessions_and_no_locks(dsn, file, folder):
    with at_work(dsn, folder) as idle:
        idle.submit(str(file)).result(PATIENCE_S)
        until(dsn, "COMPLETED")
        waited_for(lambda: idle.running is None, PATIENCE_S)
    left = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    waited_for(lambda: ask(dsn, left) == [(0,)], PATIENCE_S)
