"""Of an import and a session of the user that wait for each other, the import is the one that repeats."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import errors

from customer_panel.errors import RowRefused
from customer_panel.imports.engine import merge
from customer_panel.imports.engine.merge import repeated
from customer_panel.imports.job.sessions import Sessions
from support.roles import role
from support.waiting import wait_until

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"


def test_the_import_finds_the_deadlock(dsn, database):
    database.execute("INSERT INTO customers (customer_id) VALUES ('a'), ('b')")
    update = "UPDATE customers SET city = %s WHERE customer_id = %s"
    with Sessions(dsn).lane() as lane, psycopg.connect(dsn) as user:
        lane.execute(update, ["lane", "a"])
        user.execute(update, ["user", "b"])
        thread = threading.Thread(target=lambda: user.execute(update, ["user", "a"]))
        thread.start()
        wait_until(
            "the user waits",
            lambda: database.execute(WAITS, [user.info.backend_pid]).fetchone() == (1,),
            10,
        )
        with pytest.raises(errors.DeadlockDetected):
            lane.execute(update, ["lane", "b"])
        lane.rollback()
        thread.join()
        user.commit()
    assert database.execute("SELECT DISTINCT city FROM customers").fetchall() == [("user",)]


@pytest.mark.parametrize("may", [True, False])
def test_its_timeout_is_lowered_where_the_role_may(dsn, database, may):
    with role(dsn, owns=False) as own:
        user = psycopg.conninfo.conninfo_to_dict(own)["user"]
        if may:
            database.execute(f"GRANT SET ON PARAMETER deadlock_timeout TO {user}")
        for session in (Sessions(own).lane, Sessions(own).job):
            with session() as conn:
                assert conn.execute("SHOW deadlock_timeout").fetchone() == (
                    "50ms" if may else "1s",
                )
        if may:
            database.execute(f"REVOKE SET ON PARAMETER deadlock_timeout FROM {user}")


@pytest.mark.parametrize("error", [errors.DeadlockDetected, errors.SerializationFailure])
def test_a_transaction_is_repeated_with_pauses_but_not_for_ever(monkeypatch, error):
    pauses = []
    monkeypatch.setattr(merge.time, "sleep", pauses.append)
    calls = iter([error, error, error])

    def third_time_lucky() -> str:
        for failure in calls:
            raise failure
        return "done"

    assert repeated(third_time_lucky) == "done"
    assert pauses == sorted(pauses)
    assert len(pauses) == 3

    def never() -> None:
        raise error

    with pytest.raises(error):
        repeated(never)


def test_what_is_no_matter_of_chance_is_not_repeated(database):
    calls = []

    def refused() -> None:
        calls.append(1)
        database.execute("INSERT INTO customers (customer_id) VALUES (NULL)")

    with pytest.raises(RowRefused, match='"customer_id" of relation "customers"'):
        repeated(refused)
    assert calls == [1]
