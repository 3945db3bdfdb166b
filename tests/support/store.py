"""The store of customers through a pool, without HTTP, and questions to its tables."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg

from customer_panel.api.customers.shapes import Customer
from customer_panel.customers import store
from customer_panel.db.pool import Pool, connection, make_pool
from customer_panel.errors import ValueTaken

RANGE = 8192  # ids; customer_totals has a row for each range


@contextlib.asynccontextmanager
async def open_pool(dsn: str) -> AsyncIterator[Pool]:
    pool = make_pool(dsn)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


def with_pool(dsn: str, question: Callable[[Pool], Awaitable[Any]]) -> Any:
    """The result of `question`, which gets a pool of its own."""

    async def ask() -> Any:
        async with open_pool(dsn) as pool:
            return await question(pool)

    return asyncio.run(ask())


async def create(pool: Pool, **fields: str | None) -> store.Row:
    given_fields: dict[str, str | None] = {"first_name": "Ada", "email": None} | fields
    async with connection(pool) as conn, conn.transaction():
        return await store.create(conn, given_fields)


async def update(pool: Pool, customer: int, **fields: str | None) -> store.Row:
    async with connection(pool) as conn, conn.transaction():
        return await store.update(conn, customer, fields, None)


async def delete(pool: Pool, customer: int) -> None:
    async with connection(pool) as conn, conn.transaction():
        await store.delete(conn, customer, None)


async def page(pool: Pool, **asked_for: Any) -> store.Page:
    async with connection(pool) as conn:
        return await store.page(conn, **asked_for)


async def ids_of_all_pages(pool: Pool, limit: int) -> list[int]:
    found: list[int] = []
    number = 1
    while True:
        got = await page(pool, limit=limit, number=number)
        found += [row[0] for row in got.rows]
        if not got.has_older:
            return found
        number += 1


def shown(row: store.Row) -> Customer:
    return Customer(*row)


def fetch_one(conn: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


LIVE = "SELECT count(*) FROM customers WHERE deleted_at IS NULL"
TOTAL = "SELECT coalesce(sum(delta), 0)::bigint FROM customer_totals"
BY_RANGE = """
    SELECT count(*)
      FROM (SELECT id >> 13, count(*) FROM customers WHERE deleted_at IS NULL GROUP BY 1) AS c (id_range, n)
      FULL JOIN (SELECT id_range, sum(delta) FROM customer_totals GROUP BY 1) AS t (id_range, n) USING (id_range)
     WHERE coalesce(c.n, 0) <> coalesce(t.n, 0)
"""


def fill(conn: psycopg.Connection[Any], ids: list[int]) -> None:
    """Customers with these ids, counted."""
    conn.execute(
        "INSERT INTO customers (id, customer_id) SELECT id, 'c' || id FROM unnest(%s::bigint[]) AS id",
        [ids],
    )
    conn.execute(
        "INSERT INTO customer_totals SELECT id >> 13, count(*) FROM unnest(%s::bigint[]) AS id GROUP BY 1",
        [ids],
    )
    conn.execute("SELECT setval('customers_id_seq', %s)", [max(ids)])


async def outcomes(attempts: list[Awaitable[Any]]) -> list[Any]:
    done = await asyncio.gather(*attempts, return_exceptions=True)
    return [result.field if isinstance(result, ValueTaken) else result for result in done]


def lock_waits(conn: psycopg.Connection[Any]) -> int:
    """How many sessions of the database wait for a lock."""
    return int(
        fetch_one(
            conn,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )


def terminate(conn: psycopg.Connection[Any]) -> int:
    """Ends every session of the API; how many. Returns when they are gone."""
    ours = (
        "FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'customer-panel:api'"
    )
    count = fetch_one(conn, f"SELECT count(pg_terminate_backend(pid, 5000)) {ours}")
    return int(count)
