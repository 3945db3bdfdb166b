"""Lists of customers: exact totals, pages anywhere at one cost, cursors, filters, their plans."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from customer_panel.customers import store
from customer_panel.db.pool import SETTINGS, Pool, connection
from customer_panel.db.session import pins
from customer_panel.sql import statement
from support.store import (
    BY_RANGE,
    LIVE,
    RANGE,
    TOTAL,
    create,
    delete,
    fetch_one,
    fill,
    ids_of_all_pages,
    page,
    update,
    with_pool,
)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_written_totals_and_pages_are_those_of_the_live_rows(dsn, database, seed):
    chance = random.Random(seed)
    start = chance.choice([1, RANGE - 20, 5 * RANGE - 3])
    fill(database, sorted(chance.sample(range(start, start + 3 * RANGE), 40)))
    live = {row[0] for row in database.execute("SELECT id FROM customers").fetchall()}

    async def play(pool: Pool) -> None:
        gone: list[str] = []
        for _ in range(120):
            match chance.choice(["create", "create", "delete", "update", "revive", "fold"]):
                case "create":
                    live.add((await create(pool))[0])
                case "delete" if live:
                    who = chance.choice(sorted(live))
                    gone.append(
                        fetch_one(database, "SELECT customer_id FROM customers WHERE id = %s", who)
                    )
                    await delete(pool, who)
                    live.discard(who)
                case "update" if live:
                    await update(pool, chance.choice(sorted(live)), city=chance.choice("abc"))
                case "revive" if gone:
                    live.add((await create(pool, customer_id=gone.pop()))[0])
                case "fold":
                    async with connection(pool) as conn:
                        await store.fold_sometimes(conn, store.FOLD_EVERY)
        for limit in (1, 7, 100):
            assert await ids_of_all_pages(pool, limit) == sorted(live, reverse=True)

    with_pool(dsn, play)
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == len(live)
    assert fetch_one(database, BY_RANGE) == 0


def test_every_offset_of_dense_and_of_sparse_ranges_is_the_right_row(dsn, database):
    """Full ranges are counted, others walked from either end; ids without a customer, too."""
    dense = list(range(2 * RANGE, 4 * RANGE))
    sparse = [*range(1, 60, 7), *range(RANGE - 9, RANGE + 5), *range(RANGE + 900, 2 * RANGE, 131)]
    behind = [*range(4 * RANGE, 4 * RANGE + 33), 9 * RANGE + 17, 40 * RANGE]
    everybody = sorted([*sparse, *dense, *behind], reverse=True)
    fill(database, everybody)
    # Deleted ones are walked over and never counted.
    fill(database, tombs := list(range(4 * RANGE + 40, 4 * RANGE + 90)))
    database.execute("UPDATE customers SET deleted_at = now() WHERE id = ANY(%s)", [tombs])
    database.execute("INSERT INTO customer_totals VALUES (4, -50)")

    async def look(pool: Pool) -> None:
        edges = {0, 1, 34, 35, 36, 37, RANGE, len(behind) + len(dense) - 1}
        edges |= {*range(len(everybody) - 200, len(everybody) + 2)}
        edges |= {*random.Random(1).sample(range(len(everybody)), 150)}
        for number in sorted(edges):
            got = await page(pool, limit=1, number=number + 1)
            assert [row[0] for row in got.rows] == everybody[number : number + 1], number
            assert got.total == len(everybody)
        for limit in (100, 99):
            assert await ids_of_all_pages(pool, limit) == everybody
        # The cursor comes by the same way.
        found: list[int] = []
        after = None
        while True:
            got = await page(pool, limit=97, after=1 << 60 if after is None else after)
            found += [row[0] for row in got.rows]
            assert got.has_newer is (after is not None)
            if not got.has_older:
                break
            after = found[-1]
        assert found == everybody

    with_pool(dsn, look)


@pytest.mark.parametrize(
    ("number", "limit"), [(1, 10), (5, 10), ((1 << 63) - 1, 100), (1 << 53, 100), (1, 1)]
)
def test_an_empty_table_has_empty_pages(dsn, number, limit):
    got = with_pool(dsn, lambda pool: page(pool, limit=limit, number=number))
    assert got == store.Page([], 0, number > 1, False)
    assert with_pool(dsn, lambda pool: page(pool, limit=limit, after=number)).rows == []


def test_total_and_page_are_of_one_moment(dsn, database):
    """Rows that come and go between two statements would make a page that its total contradicts."""
    fill(database, list(range(1, 51)))

    async def race(pool: Pool) -> None:
        async def write() -> None:
            for _ in range(60):
                await delete(pool, (await create(pool))[0])

        async def read() -> None:
            for _ in range(120):
                got = await page(pool, limit=100)
                assert got.total == len(got.rows)

        await asyncio.gather(write(), read(), read())

    with_pool(dsn, race)


def test_folding_beside_writers_loses_nothing(dsn, database):
    async def race(pool: Pool) -> None:
        async def write() -> None:
            for _ in range(25):
                row = await create(pool)
                await delete(pool, row[0])
                await create(pool)

        async def fold() -> None:
            for _ in range(40):
                async with connection(pool) as conn:
                    await store.fold_sometimes(conn, 0)

        await asyncio.gather(*(write() for _ in range(3)), *(fold() for _ in range(3)))

    with_pool(dsn, race)
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 75
    with_pool(dsn, lambda pool: _folded(pool))
    assert fetch_one(database, "SELECT count(*) FROM customer_totals") == 1


async def _folded(pool: Pool) -> None:
    async with connection(pool) as conn:
        await store.fold_sometimes(conn, 0)


def test_filters_are_exact_and_take_any_letter_case_of_an_address(dsn):
    async def look(pool: Pool) -> None:
        ada = await create(pool, email="Ada@Example.com ", customer_id="A1")
        await create(pool, email="ada@example.com.org", customer_id="A11")

        async def found(**asked_for: Any) -> list[int]:
            return [row[0] for row in (await page(pool, limit=10, **asked_for)).rows]

        for filters in (
            {"email": "ADA@EXAMPLE.COM"},
            {"email": " ada@example.com"},
            {"customer_id": "A1"},
            {"customer_id": "A1", "email": "ada@EXAMPLE.com"},
        ):
            assert await found(**filters) == [ada[0]], filters
            assert await found(number=2, **filters) == []
            assert await found(after=ada[0], **filters) == []
            assert await found(after=ada[0] + 1, **filters) == [ada[0]]
        for nobody in (
            {"email": "ada@example.co"},
            {"customer_id": "a1"},
            {"customer_id": "A1", "email": "x@example.com"},
            {"customer_id": "A1", "email": ""},
            {"email": ""},
            {"customer_id": " "},
        ):
            assert await found(**nobody) == [], nobody
        await delete(pool, ada[0])
        assert await found(customer_id="A1") == await found(email="ada@example.com") == []

    with_pool(dsn, look)


# -- plans -----------------------------------------------------------------------------------------

NEEDED = {
    "list_customers": "customers_id_key",
    "list_customers_after": "customers_id_key",
    "list_by_email": "customers_email_idx",
    "list_by_customer_id": "customers_pkey",
    "find_taken": "customers_email_idx",
    "hold_customer": "customers_id_key",
    "look_up_customers": "customers_id_key",
}


@pytest.mark.parametrize("name", NEEDED)
def test_reads_use_their_index_also_with_a_plan_made_for_an_empty_table(database, name):
    """A generic plan of an empty table would read the whole of it for ever after."""
    arguments = {"limit": "10", "offset": "100", "after": "500", "but": "-1", "id": "7"}
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text_of(name))))
    query = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", text_of(name))
    execute = "EXPLAIN EXECUTE kept"
    if name == "look_up_customers":
        execute += "('{1,2}')"
    elif names:
        execute += f"({', '.join(arguments.get(name, repr('x')) for name in names)})"
    database.execute(pins(SETTINGS))
    database.execute("SET plan_cache_mode = force_generic_plan")
    database.execute(b"PREPARE kept AS " + query.encode())
    database.execute(execute.encode())  # planned now, kept from here on
    fill(database, list(range(1, 30_001)))
    plan = "\n".join(row[0] for row in database.execute(execute.encode()).fetchall())
    assert NEEDED[name] in plan, plan
    assert "Seq Scan on customers" not in plan, plan


def text_of(name: str) -> str:
    return statement(name).decode()


def test_a_deep_page_reads_few_rows(database):
    fill(database, list(range(1, 100_001)))
    database.execute("ANALYZE customers")
    database.execute(pins(SETTINGS))
    for offset in (0, 40_000, 99_950):
        query = text_of("list_customers").replace("%(offset)s", str(offset))
        explained = database.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {query.replace('%(limit)s', '50')}".encode()
        ).fetchone()
        assert explained is not None
        read = [
            node["Actual Rows"]
            for node in nodes(explained[0][0]["Plan"])
            if node.get("Relation Name") == "customers" and node["Actual Loops"]
        ]
        assert read
        assert sum(read) <= RANGE // 2 + 50, (offset, read)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for below in plan.get("Plans", []) for found in nodes(below))]
