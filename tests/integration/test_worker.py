"""The server's worker: what it takes up by itself, and what it is asked for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import pytest

from customer_panel.api.http.idempotency import Key, Repeated, take
from customer_panel.errors import (
    AlreadyRunning,
    MappingError,
    OutsideRoots,
    SourceEmpty,
    SourceNotFound,
)
from customer_panel.imports.worker import worker
from support.compare import run
from support.customers import csv
from support.waiting import held, wait_until
from support.workers import (
    BATCH_ROWS,
    PATIENCE_S,
    TAKEN_UP_S,
    ask,
    interrupt,
    jobs,
    running_worker,
    status,
    until,
    wait_for_looks,
    wait_idle,
    wait_schema,
)

# -- what it takes up by itself --------------------------------------------------------------------


def test_a_killed_import_goes_on_at_the_next_start(
    runner, dsn, customers_file, start_worker, check_customers
):
    ended = runner.run(customers_file, dsn, batches=4, tuning={"batch_rows": BATCH_ROWS})
    assert ended.exit == -9
    assert status(dsn) == "RUNNING"
    began = time.monotonic()
    start_worker()
    wait_until("claimed again", lambda: ask(dsn, "SELECT epoch FROM imports") == [(2,)], TAKEN_UP_S)
    assert time.monotonic() - began < TAKEN_UP_S
    until(dsn, "COMPLETED")
    check_customers()
    assert jobs(dsn) == ["COMPLETED"]


@pytest.mark.parametrize("left", ["INTERRUPTED", "RUNNING"])
def test_an_interrupted_one_goes_on_while_the_worker_is_idle(
    dsn, customers_file, start_worker, check_customers, left
):
    idle = start_worker()
    wait_schema(idle)
    interrupt(customers_file, dsn, left)
    until(dsn, "COMPLETED")
    check_customers()


def test_a_paused_one_stays_paused_until_it_is_asked_for(
    dsn, customers_file, start_worker, check_customers
):
    interrupt(customers_file, dsn, "PAUSED")
    idle = start_worker()
    wait_for_looks(idle)
    assert status(dsn) == "PAUSED"
    assert idle.submit(str(customers_file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check_customers()


def test_a_file_that_cannot_be_opened_blocks_nothing(
    dsn, customers_folder, tmp_path, customers_file, start_worker, check_customers
):
    outside = csv(tmp_path / "outside.csv", 5000, seed=99)
    interrupt(outside, dsn, "RUNNING", batches=1)
    idle = start_worker()
    until(dsn, "INTERRUPTED")
    assert idle.submit("customers.csv").result(PATIENCE_S) == 2
    until(dsn, "COMPLETED", job=2)
    assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]


def test_a_file_that_comes_back_is_gone_on_with(
    dsn, customers_file, customers_folder, start_worker, check_customers, caplog
):
    interrupt(customers_file, dsn, "RUNNING")
    customers_file.rename(customers_folder / "aside.csv")
    idle = start_worker()
    with caplog.at_level(logging.WARNING, "customer_panel.imports"):
        until(dsn, "INTERRUPTED")
        wait_for_looks(idle)
    assert len([record for record in caplog.records if "waits for its file" in record.message]) == 1
    (customers_folder / "aside.csv").rename(customers_file)
    until(dsn, "COMPLETED")
    check_customers()


def test_a_changed_file_fails_and_is_left_alone(dsn, customers_file, pristine, start_worker):
    interrupt(customers_file, dsn)
    payload = bytearray(customers_file.read_bytes())
    payload[500:510] = b"x" * 10
    customers_file.unlink()
    customers_file.write_bytes(payload)
    start_worker()
    until(dsn, "FAILED")
    assert jobs(dsn) == ["FAILED"]


def test_one_behind_which_a_newer_one_of_its_feed_began_is_left_alone(
    dsn, customers_file, customers_folder, start_worker
):
    other = csv(customers_folder / "newer.csv", 2000, seed=3)
    interrupt(customers_file, dsn)
    idle = start_worker()
    # Before the worker looks: it was asked for in the same moment.
    idle.submit(str(other)).exception(PATIENCE_S)
    wait_idle(idle)
    if len(jobs(dsn)) == 2:
        until(dsn, "COMPLETED", job=2)
        wait_for_looks(idle)
        assert jobs(dsn) == ["INTERRUPTED", "COMPLETED"]
        assert idle.submit(str(customers_file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")


def test_a_stream_that_was_killed_has_failed(dsn, customers_file, start_worker):
    interrupt(customers_file, dsn, "RUNNING")
    ask(dsn, "UPDATE imports SET file_path = NULL")
    start_worker()
    until(dsn, "FAILED")


@pytest.mark.parametrize("count", [2, 4])
def test_of_several_workers_one_runs_it(
    runner, dsn, customers_file, customers_folder, check_customers, count, caplog
):
    ended = runner.run(customers_file, dsn, batches=4, tuning={"batch_rows": BATCH_ROWS})
    assert ended.exit == -9
    with contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING):
        for _ in range(count):
            stack.enter_context(running_worker(dsn, customers_folder))
        until(dsn, "COMPLETED")
    check_customers()
    # The killed claim, and one more.
    assert ask(dsn, "SELECT epoch, status FROM imports") == [(2, "COMPLETED")]
    # Another test of this process may have set the level of our loggers.
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_small_one_is_not_begun_anew_by_a_worker_that_comes_late(
    databases, template, customers_folder
):
    """The first is through before the second has the lock."""
    path = csv(customers_folder / "small.csv", 3000, seed=5)
    for _ in range(5):
        with databases.copy(template) as dsn:
            interrupt(path, dsn, "RUNNING", batches=1)
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    stack.enter_context(running_worker(dsn, customers_folder))
                until(dsn, "COMPLETED")
            assert jobs(dsn) == ["COMPLETED"]


# -- what it is asked for --------------------------------------------------------------------------


def test_the_number_comes_as_soon_as_the_import_is_claimed(
    dsn, customers_file, start_worker, check_customers
):
    idle = start_worker()
    with held(dsn):
        number = idle.submit(str(customers_file), progress_every_ms=700).result(5)
        assert (status(dsn, number), idle.running) == ("RUNNING", number)
        assert ask(dsn, "SELECT progress_every_ms FROM imports") == [(700,)]
        with pytest.raises(AlreadyRunning):
            idle.submit(str(customers_file))
    until(dsn, "COMPLETED")
    check_customers()
    assert idle.progress is not None
    assert idle.progress.phase == "done"


def test_what_cannot_be_imported_is_told_and_makes_no_job(
    dsn, customers_folder, tmp_path, start_worker
):
    idle = start_worker()
    outside = csv(tmp_path / "outside.csv", 5)
    (customers_folder / "empty.csv").touch()
    (customers_folder / "header.csv").write_text("customer id,email\n")
    (customers_folder / "apples.csv").write_text("apples,pears\n1,2\n")
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


def test_what_fails_in_the_transaction_that_creates_leaves_no_job(
    dsn, customers_file, start_worker, check_customers
):
    idle = start_worker()
    key = Key(b"k" * 32, b"b" * 32)
    number = idle.submit(
        str(customers_file), on_created=lambda conn, job: take(conn, key, job)
    ).result(5)
    until(dsn, "COMPLETED", number)
    wait_idle(idle)
    again = idle.submit(str(customers_file), on_created=lambda conn, job: take(conn, key, job))
    with pytest.raises(Repeated) as earlier:
        again.result(PATIENCE_S)
    assert earlier.value.created_id == number
    assert jobs(dsn) == ["COMPLETED"]
    # Its place is free again.
    ask(dsn, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    wait_idle(idle)
    assert (
        idle.submit(str(customers_file), on_created=lambda conn, job: take(conn, key, job)).result(
            5
        )
        > number
    )


def test_the_command_line_runs_one_and_the_worker_says_so(dsn, customers_file, start_worker):
    idle = start_worker()
    with held(dsn) as let_go:
        other = threading.Thread(target=run, args=(customers_file, dsn))
        other.start()
        until(dsn, "RUNNING")
        with pytest.raises(AlreadyRunning):
            idle.submit(str(customers_file)).result(PATIENCE_S)
        let_go()
        other.join()
    assert jobs(dsn) == ["COMPLETED"]


def test_an_order_that_comes_while_another_import_is_taken_up_is_refused(
    dsn, customers_file, customers_folder, start_worker, monkeypatch
):
    other = csv(customers_folder / "other.csv", 100, seed=4)
    interrupt(customers_file, dsn)
    inside, go_on = threading.Event(), threading.Event()
    opened = worker.open_beneath

    def slow(roots, path):
        inside.set()
        go_on.wait(PATIENCE_S)
        return opened(roots, path)

    monkeypatch.setattr(worker, "open_beneath", slow)
    idle = start_worker()
    assert inside.wait(PATIENCE_S)
    order = idle.submit(str(other))
    go_on.set()
    with pytest.raises(AlreadyRunning):
        order.result(PATIENCE_S)
    until(dsn, "COMPLETED")
    assert jobs(dsn) == ["COMPLETED"]


def test_a_pause_that_its_runner_did_not_live_to_obey_is_not_meant_for_the_next(
    dsn, customers_file, start_worker, check_customers
):
    interrupt(customers_file, dsn, "PAUSED")
    ask(dsn, "INSERT INTO import_requests VALUES (1, 'PAUSED')")
    idle = start_worker()
    assert idle.submit(str(customers_file)).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check_customers()
