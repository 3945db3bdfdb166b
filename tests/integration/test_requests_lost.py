"""A request to pause or cancel reaches a runner whose listening session was lost."""

from __future__ import annotations

import threading

import psycopg
import pytest

from customer_panel.errors import Stopped
from customer_panel.imports.job.requests import listening
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.stop import Stop
from support.compare import run
from support.customers import csv
from support.waiting import held, wait_until
from support.workers import request, status

PATIENCE_S = 20.0
LISTENERS = (
    "FROM pg_stat_activity WHERE application_name = 'customer-panel:import requests'"
    " AND datname = current_database()"
)


def count(database) -> int:
    return database.execute(f"SELECT count(*) {LISTENERS}".encode()).fetchone()[0]


def end_listener(database) -> int:
    """Ends the session that listens; the number of its process."""
    wait_until("somebody listens", lambda: count(database) == 1, PATIENCE_S)
    (pid,) = database.execute(f"SELECT pid {LISTENERS}".encode()).fetchone()
    database.execute("SELECT pg_terminate_backend(%s)", [pid])
    return pid


@pytest.mark.parametrize("wanted", ["PAUSED", "CANCELLED"])
@pytest.mark.parametrize("when", ["while it is away", "when it is back"])
def test_a_request_is_obeyed_after_the_listening_session_was_lost(
    dsn, database, tmp_path, wanted, when
):
    path = csv(tmp_path / "customers.csv", 3000, seed=7)
    failures = []

    def work() -> None:
        with pytest.raises(Stopped):
            run(path, dsn, batch_rows=100)
        failures.append(None)

    with held(dsn) as let_go:
        thread = threading.Thread(target=work)
        thread.start()
        pid = end_listener(database)
        if when == "when it is back":
            back = f"SELECT count(*) {LISTENERS} AND pid <> {pid}"
            wait_until(
                "it listens again",
                lambda: database.execute(back.encode()).fetchone() == (1,),
                PATIENCE_S,
            )
        request(dsn, 1, wanted)
        # The batch that waits for the gate is cancelled by the stop.
        thread.join(PATIENCE_S)
        let_go()
    thread.join(PATIENCE_S)
    assert failures == [None]
    assert status(dsn, 1) == wanted


def test_a_request_is_read_and_not_only_heard(dsn, database):
    """A notification may be lost with the server, or sent before anybody listens."""
    database.execute("INSERT INTO sources (name) VALUES ('main')")
    database.execute(
        "INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,"
        " header_lines, rules_version, options)"
        " VALUES (1, 'RUNNING', 'scanning', ',', '{}', '[]', 0, 1, 1, '{}')"
    )
    database.execute("INSERT INTO import_requests VALUES (1, 'PAUSED')")
    stop = Stop()
    with (
        psycopg.connect(dsn, autocommit=True) as conn,
        listening(Sessions(dsn), conn, 1, stop),
    ):
        assert stop.wait(PATIENCE_S)
    assert stop.status == "PAUSED"


def test_nobody_listens_when_the_import_is_over(dsn, database):
    with psycopg.connect(dsn, autocommit=True) as conn, listening(Sessions(dsn), conn, 1, Stop()):
        end_listener(database)
    wait_until("nobody listens", lambda: count(database) == 0, PATIENCE_S)
    assert "cp-requests" not in {thread.name for thread in threading.enumerate()}
