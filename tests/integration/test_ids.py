"""Ids of customers: none is drawn in vain, whoever else draws some."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest

from customer_panel.imports.engine import apply
from customer_panel.imports.engine.apply import newest, split
from customer_panel.imports.engine.merge import ID_RANGE_BITS, Run
from support.compare import digest, run
from support.customers import create_customer, csv
from support.waiting import wait_until

ROWS = 20_000


def drawn(database) -> int:
    """The highest id that was drawn."""
    last, is_called = database.execute(
        "SELECT last_value, is_called FROM customers_id_seq"
    ).fetchone()
    return last if is_called else last - 1


def rows(database) -> int:
    return database.execute("SELECT count(*) FROM customers").fetchone()[0]


def check_totals(database) -> None:
    """The totals of the ranges of ids are those of the table."""
    differing = database.execute(
        f"""SELECT * FROM (SELECT id_range, sum(delta) FROM customer_totals GROUP BY 1) AS t (r, n)
        FULL JOIN (SELECT id >> {ID_RANGE_BITS}, count(*) FROM customers WHERE deleted_at IS NULL GROUP BY 1)
            AS c (r, n) USING (r) WHERE t.n IS DISTINCT FROM c.n""".encode()
    ).fetchall()
    assert not differing


@pytest.fixture
def versions(tmp_path) -> list:
    """Two versions of a file with duplicates and damaged rows; of the same customers."""
    how = {"seed": 7, "duplicates": 0.05, "dirty": 0.02}
    return [
        csv(tmp_path / "one.csv", 3000, **how),
        csv(tmp_path / "two.csv", 3000, changed=0.3, **how),
    ]


def test_gaps_in_ids(dsn, database, versions, serve):
    """Scenario 17: a first load, six re-syncs of two versions, then a create over the API."""
    run(versions[0], dsn, batch_rows=200)
    known = rows(database)
    assert drawn(database) == known
    for turn in range(6):
        run(versions[(turn + 1) % 2], dsn, batch_rows=200)
    highest = drawn(database)
    assert highest <= rows(database) * 1.01
    assert rows(database) - known < known * 0.05
    made = create_customer(serve(DATABASE_URL=dsn))
    assert made["id"] == highest + 1


@contextlib.contextmanager
def inserting(dsn: str, per_statement: int) -> Iterator[list[int]]:
    """Somebody inserts customers of his own all the time, in one long transaction."""
    is_over, begun, inserted = threading.Event(), threading.Event(), [0]

    def work() -> None:
        with psycopg.connect(dsn) as conn:
            while not is_over.is_set():
                conn.execute(
                    "INSERT INTO customers (customer_id, source_hash)"
                    " SELECT 'his ' || %s || ' ' || n, 0 FROM generate_series(1, %s) AS n",
                    [inserted[0], per_statement],
                )
                inserted[0] += per_statement
                begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(20)
        yield inserted
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("per_statement", [1, 500])
@pytest.mark.parametrize("is_first_load", [True, False], ids=["first load", "beside others"])
def test_no_id_is_left_unused_beside_a_bulk_insert(
    dsn, database, tmp_path, monkeypatch, per_statement, is_first_load
):
    calls = []
    draw = apply.Writer._draw

    def counted(self, count):
        runs = draw(self, count)
        calls.append(len(runs))
        return runs

    monkeypatch.setattr(apply.Writer, "_draw", counted)
    path = csv(tmp_path / "customers.csv", ROWS, seed=9)
    if not is_first_load:
        database.execute("INSERT INTO customers (customer_id) VALUES ('known')")
    # The indexes of a first load are built when the last row is in, and would wait for him.
    with inserting(dsn, per_statement) as inserted:
        stopped = threading.Thread(target=run, args=(path, dsn), kwargs={"batch_rows": 1000})
        stopped.start()
        if not is_first_load:
            stopped.join()
        else:
            wait_for_rows(dsn, ROWS)
    stopped.join()
    assert rows(database) == ROWS + inserted[0] + (not is_first_load)
    # Once for each batch, whoever mixes in.
    assert len(calls) <= ROWS // 1000 + 4
    # One that finds a customer of his in the way, or is repeated, draws none anew.
    assert drawn(database) == database.execute("SELECT max(id) FROM customers").fetchone()[0]
    assert drawn(database) == rows(database)


def wait_for_rows(dsn: str, number: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        asked = "SELECT sum(rows_processed)::int FROM import_lanes"
        wait_until("all rows are in", lambda: conn.execute(asked).fetchone()[0] == number, 60)


def test_a_batch_that_is_repeated_uses_the_same_ids(dsn, database, tmp_path, monkeypatch):
    """After a deadlock its transaction rolls back, and the sequence keeps what was drawn."""
    path = csv(tmp_path / "customers.csv", 3000, seed=9)
    checkpoint, calls = apply.Writer._checkpoint, [0]

    def failing(self, *args):
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise psycopg.errors.DeadlockDetected
        checkpoint(self, *args)

    monkeypatch.setattr(apply.Writer, "_checkpoint", failing)
    run(path, dsn, batch_rows=200)
    assert drawn(database) == rows(database) == 3000
    check_totals(database)


def test_ids_that_somebody_has_given_away_are_not_tried_again(dsn, database, tmp_path):
    """He inserts with ids of his own, ahead of the sequence."""
    database.execute(
        "INSERT INTO customers (id, customer_id) SELECT n, 'his ' || n FROM generate_series(1, 500) AS n"
    )
    path = csv(tmp_path / "customers.csv", 1000, seed=9)
    assert run(path, dsn, batch_rows=200, lanes=1).rows_inserted == 1000
    assert rows(database) == 1500


def test_an_increment_of_the_users_is_kept(dsn, database, tmp_path):
    """Two servers that replicate to each other draw odd and even ids."""
    database.execute("ALTER SEQUENCE customers_id_seq INCREMENT BY 2")
    path = csv(tmp_path / "customers.csv", 1000, seed=9)
    run(path, dsn, batch_rows=200)
    assert database.execute("SELECT count(*) FROM customers WHERE id % 2 = 1").fetchone() == (1000,)
    asked = "SELECT increment_by FROM pg_sequences WHERE sequencename = 'customers_id_seq'"
    assert database.execute(asked).fetchone() == (2,)
    check_totals(database)
    with_gaps = digest(dsn)
    assert run(path, dsn).rows_unchanged == 1000
    assert digest(dsn) == with_gaps


@pytest.mark.parametrize(
    ("runs", "count", "taken", "rest"),
    [
        ([], 0, [], []),
        ([(5, 3)], 0, [], [(5, 3)]),
        ([(5, 3)], 3, [(5, 3)], []),
        ([(5, 3)], 2, [(5, 2)], [(7, 1)]),
        ([(5, 3), (9, 4)], 3, [(5, 3)], [(9, 4)]),
        ([(5, 3), (9, 4)], 5, [(5, 3), (9, 2)], [(11, 2)]),
    ],
)
def test_runs_are_split(runs: list[Run], count: int, taken: list[Run], rest: list[Run]):
    assert split(runs, count) == (taken, rest)


def test_the_newest_ids_are_the_highest():
    assert newest([(5, 3), (9, 2)]) == [10, 9, 7, 6, 5]
    assert newest([(5, 3), (100, 1000)]) == list(range(1099, 899, -1))
    assert newest([(5, 50), (100, 190)]) == [*range(289, 99, -1), *range(54, 44, -1)]
