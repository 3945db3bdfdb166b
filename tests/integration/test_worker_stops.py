"""Paused, cancelled, given up or stopped at any time: what is left is whole, and what went on comes to the same."""

from __future__ import annotations

import random
import threading
import time

import psycopg
import pytest

from customer_panel.errors import (
    Stopped,
)
from customer_panel.imports.engine import indexes
from customer_panel.imports.worker import backoff, worker
from support.kill_runner import RUNS
from support.waiting import held_midway, wait_until
from support.workers import (
    PATIENCE_S,
    ask,
    index_count,
    interrupt,
    jobs,
    request,
    request_cancel,
    running_worker,
    status,
    until,
    wait_idle,
)


@pytest.mark.parametrize("number", range(RUNS or 3))
def test_paused_and_resumed_at_any_time_it_comes_to_the_same(
    dsn, customers_file, start_worker, check_customers, number
):
    draw = random.Random(4000 + number)
    idle = start_worker()
    idle.submit(str(customers_file)).result(PATIENCE_S)
    for _ in range(4):
        time.sleep(draw.random() * 0.3)  # any moment of the import
        request(dsn, 1, "PAUSED")
        wait_idle(idle)
        if status(dsn) == "COMPLETED":
            break
        assert status(dsn) == "PAUSED"
        assert ask(dsn, "SELECT count(*) FROM import_requests") == [(0,)]
        assert idle.submit(str(customers_file), resumes=1).result(PATIENCE_S) == 1
    until(dsn, "COMPLETED")
    check_customers()
    assert jobs(dsn) == ["COMPLETED"]


@pytest.mark.parametrize("number", range(RUNS or 3))
def test_cancelled_at_any_time_it_keeps_its_rows_and_has_its_keys(
    dsn, customers_file, start_worker, number
):
    draw = random.Random(5000 + number)
    idle = start_worker()
    idle.submit(str(customers_file)).result(PATIENCE_S)
    time.sleep(draw.random() * 0.5)  # any moment of the import
    request(dsn, 1, "CANCELLED")
    wait_idle(idle)
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
    assert index_count(dsn) == 3


@pytest.mark.parametrize("left", ["PAUSED", "INTERRUPTED"])
def test_one_that_nobody_runs_is_given_up(
    dsn, customers_file, customers_folder, start_worker, left
):
    interrupt(customers_file, dsn, left)
    assert index_count(dsn) == 1  # a first load: its keys are built at its end
    customers_file.unlink()
    request_cancel(dsn, 1)
    start_worker()
    until(dsn, "CANCELLED")
    is_kept(dsn)
    assert ask(dsn, "SELECT count(*) FROM customers")[0][0] > 0


def test_giving_up_can_be_killed_and_begun_again(dsn, customers_file, start_worker, monkeypatch):
    """Before the first key, and between the two."""
    interrupt(customers_file, dsn, "PAUSED")
    request_cancel(dsn, 1)
    monkeypatch.setattr(backoff, "FIRST_S", 0.05)
    monkeypatch.setattr(worker, "LOOK_S", 0.05)
    made = indexes.BUILD
    broken = [dict.fromkeys(made, "SELECT 1 / 0"), {**made, indexes.KEY: "SELECT 1 / 0"}]
    tried = []

    def build(*args, **more):
        tried.append(1)
        indexes.BUILD = broken[len(tried) - 1] if len(tried) <= len(broken) else made
        return original(*args, **more)

    original = indexes.build
    monkeypatch.setattr(indexes, "build", build)
    monkeypatch.setattr(indexes, "BUILD", made)
    start_worker()
    until(dsn, "CANCELLED")
    # It has ended; the idle worker builds what is missing.
    wait_until("the keys are built", lambda: index_count(dsn) == 3, PATIENCE_S)
    assert len(tried) == 3
    is_kept(dsn)


def test_a_stop_while_giving_up_leaves_it_to_the_next(dsn, customers_file, customers_folder):
    interrupt(customers_file, dsn, "PAUSED")
    request_cancel(dsn, 1)
    with psycopg.connect(dsn) as writer, running_worker(dsn, customers_folder) as first:
        # An index waits for who writes.
        writer.execute("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
        until(dsn, "RUNNING")
        first.ask_stop()
        assert first.join(5)
    assert status(dsn) in ("INTERRUPTED", "RUNNING")
    with running_worker(dsn, customers_folder):
        until(dsn, "CANCELLED")
    is_kept(dsn)


def test_a_stop_interrupts_and_the_next_worker_goes_on(
    dsn, customers_file, customers_folder, check_customers
):
    with running_worker(dsn, customers_folder) as first:
        with held_midway(dsn, lambda: first.submit(str(customers_file)).result(PATIENCE_S)):
            began = time.monotonic()
            first.ask_stop()
            assert first.join(5)
            assert time.monotonic() - began < 5
        assert not first.is_alive()
        with pytest.raises(Stopped):
            first.submit(str(customers_file))
    assert status(dsn) == "INTERRUPTED"
    with running_worker(dsn, customers_folder):
        until(dsn, "COMPLETED")
    check_customers()


def test_a_stop_refuses_what_was_not_begun(dsn, customers_file, customers_folder, monkeypatch):
    inside, is_stopping = threading.Event(), threading.Event()
    opened = worker.open_beneath

    def slow(roots, path):
        inside.set()
        assert is_stopping.wait(PATIENCE_S)
        return opened(roots, path)

    monkeypatch.setattr(worker, "open_beneath", slow)
    with running_worker(dsn, customers_folder) as idle:
        first = idle.submit(str(customers_file))
        assert inside.wait(PATIENCE_S)
        second = idle.submit(str(customers_file))
        idle.ask_stop()
        is_stopping.set()
        for order in (first, second):
            with pytest.raises(Stopped):
                order.result(PATIENCE_S)
    assert status(dsn) in (None, "INTERRUPTED")
