"""Customers that a person makes while a first load runs, whose identity the file holds too."""

from __future__ import annotations

import threading

import psycopg
import pytest

from customer_panel._native import generate
from customer_panel.imports import import_customers
from customer_panel.imports.engine import finish
from customer_panel.imports.sources import opened
from support.waiting import wait_until


@pytest.fixture
def path(tmp_path):
    generate(str(tmp_path / "customers.csv"), 3000, seed=7, duplicates=0.01)
    return tmp_path / "customers.csv"


def ids_of(path):
    with opened(path) as source:
        lines = source.head.decode().splitlines()
    return [line.split(",")[1] for line in lines[1:]]


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "others write"])
def test_a_first_load_merges_hand_made_customers_and_keeps_what_the_person_wrote(
    dsn, path, monkeypatch, is_alone
):
    hand_made = ids_of(path)[100:110]
    build = finish.indexes.build

    def made_by_hand_before(connect, claim, settle):
        with psycopg.connect(dsn) as conn:
            for number, identity in enumerate(hand_made):
                city = "Handtown" if number % 2 else None
                conn.execute(
                    "INSERT INTO customers (customer_id, first_name, city) VALUES (%s, 'Hand', %s)",
                    (identity, city),
                )
        build(connect, claim, settle)

    monkeypatch.setattr(finish.indexes, "build", made_by_hand_before)
    if not is_alone:
        monkeypatch.setattr(finish.indexes, "_build_together", lambda *_: False)
    result = import_customers(path, dsn)
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "SELECT first_name, city, edited_fields, import_id FROM customers WHERE customer_id = ANY(%s)",
            (hand_made,),
        ).fetchall()
        total, distinct = conn.execute(
            "SELECT count(*), count(DISTINCT customer_id) FROM customers"
        ).fetchone()
        counted = conn.execute("SELECT sum(delta) FROM customer_totals").fetchone()[0]
        keys = conn.execute(
            "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid"
        ).fetchone()[0]
    assert len(rows) == len(hand_made)
    assert all(row[0] == "Hand" and row[2] & 2 and row[3] == result.job_id for row in rows)
    assert sum(row[1] == "Handtown" for row in rows) == 5
    assert all(row[1] for row in rows), "what the person left empty the file fills"
    assert total == distinct
    assert keys == 3
    # The ten made by hand are not an import's to count; who makes one does.
    assert counted == total - len(hand_made)
    assert result.rows_protected == len(hand_made)
    assert result.rows_inserted == total - len(hand_made)


def test_a_build_gives_way_to_a_writer(dsn, path, monkeypatch):
    """A plain CREATE INDEX makes writers wait, also for those it waits for itself."""
    build = finish.indexes.build
    written = threading.Event()

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND NOT granted"
                " AND relation = 'customers'::regclass"
            )
            wait_until(
                "the build waits for the lock", lambda: conn.execute(waiting).fetchone() != (0,), 10
            )
            conn.execute("INSERT INTO customers (customer_id) VALUES ('made by hand')")
        written.set()

    def beside_an_open_transaction(connect, claim, settle):
        with psycopg.connect(dsn) as holder:
            holder.execute("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
            writer = threading.Thread(target=write)
            builder = threading.Thread(target=build, args=(connect, claim, settle))
            builder.start()
            writer.start()
            assert written.wait(20), "the writer waits for the build, which waits for the holder"
            assert builder.is_alive()
            holder.commit()
            builder.join()
            writer.join()

    monkeypatch.setattr(finish.indexes, "build", beside_an_open_transaction)
    import_customers(path, dsn)
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid),"
            " (SELECT count(*) FROM customers WHERE import_id IS NULL)"
        ).fetchone()
    assert found == (3, 1)
