"""Nothing that happens to an import or to the database ends the server's worker."""

from __future__ import annotations

import itertools
import logging
import os
import random
import time

import pytest

from customer_panel.db import embedded
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.worker import backoff, worker
from support.kill_runner import RUNS
from support.waiting import wait_until
from support.workers import (
    PATIENCE_S,
    ask,
    jobs,
    running_worker,
    until,
    wait_idle,
    wait_schema,
)


@pytest.mark.parametrize("number", range(RUNS or 2))
def test_lost_connections_are_made_anew(dsn, customers_file, start_worker, check_customers, number):
    draw = random.Random(6000 + number)
    idle = start_worker()
    idle.submit(str(customers_file)).result(PATIENCE_S)
    for _ in range(3):
        time.sleep(draw.random() * 0.4)  # any moment of the import
        ask(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    until(dsn, "COMPLETED")
    check_customers()
    assert jobs(dsn) == ["COMPLETED"]
    # Idle too.
    ask(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    wait_idle(idle)
    assert idle.submit(str(customers_file)).result(PATIENCE_S) == 2
    until(dsn, "COMPLETED", job=2)


def test_a_bug_leaves_the_import_interrupted_and_is_tried_again(
    dsn, customers_file, start_worker, check_customers, monkeypatch, caplog
):
    monkeypatch.setattr(backoff, "FIRST_S", 0.2)
    monkeypatch.setattr(worker, "LOOK_S", 0.1)
    failures = [RuntimeError("ada@example.com"), KeyError("ada@example.com")]
    apply = Writer.apply

    def failing(self, batch):
        if failures and batch.span[0] > 200_000:
            raise failures.pop()
        return apply(self, batch)

    monkeypatch.setattr(Writer, "apply", failing)
    idle = start_worker()
    with caplog.at_level(logging.ERROR, "customer_panel.imports"):
        idle.submit(str(customers_file)).result(PATIENCE_S)
        until(dsn, "COMPLETED")
    check_customers()
    assert not failures
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "RuntimeError" in logged
    assert "failing" in logged  # where it was
    assert "ada@example.com" not in logged


def test_it_waits_longer_after_each_failure(dsn, customers_file, start_worker, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_S", 0.1)
    monkeypatch.setattr(backoff, "LONGEST_S", 2.0)
    monkeypatch.setattr(worker, "LOOK_S", 0.02)
    tried = []

    def failing(self, batch):
        if len(tried) < 5:
            tried.append(time.monotonic())
            raise RuntimeError
        return apply(self, batch)

    apply = Writer.apply
    monkeypatch.setattr(Writer, "apply", failing)
    idle = start_worker()
    idle.submit(str(customers_file)).result(PATIENCE_S)
    until(dsn, "COMPLETED")
    # Two lanes fail in one attempt, at nearly the same time.
    waited = [
        later - earlier for earlier, later in itertools.pairwise(tried) if later - earlier > 0.05
    ]
    assert len(waited) >= 3
    assert all(later > earlier * 1.2 for earlier, later in itertools.pairwise(waited)), waited


def test_no_values_of_rows_in_what_is_logged_of_the_database(
    dsn, customers_file, start_worker, monkeypatch, caplog
):
    ask(
        dsn,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE check_violation USING MESSAGE = NEW.email, DETAIL = NEW.email; END $$",
    )
    ask(
        dsn,
        "CREATE TRIGGER no BEFORE INSERT ON customers FOR EACH ROW WHEN (NEW.customer_id > 'd')"
        " EXECUTE FUNCTION no()",
    )
    idle = start_worker()
    with caplog.at_level(logging.DEBUG):
        idle.submit(str(customers_file)).result(PATIENCE_S)
        until(dsn, "INTERRUPTED")
        wait_until("it is logged", lambda: "row_refused" in caplog.text, PATIENCE_S)
    assert "@" not in caplog.text
    ask(dsn, "DROP TRIGGER no ON customers")
    assert ask(dsn, "SELECT error FROM imports") == [
        ("a row of the file was refused by a trigger or the type of a column (SQLSTATE 23514)",)
    ]


def test_a_database_that_is_away_is_waited_for_and_brought_back(
    home, tmp_path, customers_folder, customers_file
):
    """From the start on, without its schema, and again in the middle of an import."""
    server = embedded.ensure_running(home)
    embedded.release(server)
    held_servers = []

    def revive():
        held_servers.append(embedded.ensure_running(home))

    with running_worker(server.dsn, customers_folder, revive=revive) as idle:
        wait_schema(idle)
        idle.submit(str(customers_file)).result(PATIENCE_S)
        embedded.stop(home, force=True)
        until_back = time.monotonic()
        wait_until("PostgreSQL is back", lambda: embedded.status(home).pid is not None, PATIENCE_S)
        until(server.dsn, "COMPLETED")
        assert time.monotonic() - until_back < PATIENCE_S
        assert idle.is_alive()
    assert jobs(server.dsn) == ["COMPLETED"]
    for server in held_servers:
        os.close(server.users)


def test_what_is_asked_while_the_database_is_away_fails_at_once(
    dsn, customers_folder, customers_file
):
    from customer_panel.errors import DatabaseUnreachable

    nowhere = "postgresql://127.0.0.1:1/nothing?connect_timeout=2"
    with running_worker(nowhere, customers_folder) as idle:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(DatabaseUnreachable):
                idle.submit(str(customers_file)).result(PATIENCE_S)
            assert time.monotonic() - began < 2
        assert idle.is_alive()
        assert not idle.has_schema


def test_it_leaves_no_sessions_and_no_locks(dsn, customers_file, customers_folder):
    with running_worker(dsn, customers_folder) as idle:
        idle.submit(str(customers_file)).result(PATIENCE_S)
        until(dsn, "COMPLETED")
        wait_idle(idle)
    left = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    wait_until("no session is left", lambda: ask(dsn, left) == [(0,)], PATIENCE_S)
