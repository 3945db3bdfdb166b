"""The imports so far and what they set aside, page by page, and what is asked of them.

Async, unlike its neighbours: the API reads here, runs write elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg.rows import dict_row

from customer_panel.errors import NoSuchImport
from customer_panel.imports.job.ledger import LOCK
from customer_panel.imports.model import Row
from customer_panel.imports.queries.rejects import record
from customer_panel.imports.queries.snapshot import Standing, standing_of
from customer_panel.sql import statement
from customer_panel.states import Status

Connection = psycopg.AsyncConnection[Any]
LARGEST = (1 << 63) - 1  # what a bigint holds
Requested = Literal["PAUSED", "CANCELLED"]
PORTION = 200  # rejects are held with their raw bytes, up to 64 KiB each


class Job(NamedTuple):
    """An import, and what was asked of it and is not done yet."""

    standing: Standing
    requested: Requested | None

    @property
    def status(self) -> Status:
        return self.standing.status

    @property
    def is_waiting(self) -> bool:
        """Whether it can be gone on with."""
        return self.status in ("PAUSED", "INTERRUPTED")


async def page(conn: Connection, number: int, limit: int) -> tuple[list[Job], int]:
    """A page of imports, newest first, and how many there are."""
    found = await _rows(conn, "list_jobs", import_id=None, **_window(number, limit))
    return [_job(row) for row in found], await _count(conn, "count_jobs")


async def one(conn: Connection, import_id: int) -> Job:
    """Raises NoSuchImport."""
    found = await _rows(conn, "list_jobs", import_id=import_id, **_window(1, 1))
    if not found:
        raise NoSuchImport(f"There is no import {import_id}")
    return _job(found[0])


async def is_running(conn: Connection) -> bool:
    """Whether any process runs an import."""
    return bool((await _first(conn, "is_import_running", key=LOCK))[0])


async def ask(conn: Connection, import_id: int, requested: Requested) -> bool:
    """Asks the runner of an import to pause or to give it up; False if nobody runs it."""
    return bool(await _first(conn, "ask_import", import_id=import_id, requested=requested))


async def cancel_waiting(conn: Connection, import_id: int) -> bool:
    """Gives up an import that nobody runs, or asks a worker to; False if it does not wait.

    Keys that it left away are built by that worker; when another import runs, by that.
    """
    name = "cancel_waiting_import" if await is_running(conn) else "ask_waiting_import"
    return bool(await _first(conn, name, import_id=import_id))


async def rejects(
    conn: Connection, import_id: int, number: int, limit: int
) -> tuple[list[tuple[Any, ...]], int]:
    """A page of what an import set aside, as `rejects.COLUMNS`, and how many there are."""
    found = await conn.execute(
        statement("page_rejects"),
        {"import_id": import_id, "after": -1, **_window(number, limit)},
    )
    records = [record(row) for row in await found.fetchall()]
    return records, await _count(conn, "count_rejects", import_id=import_id)


async def all_rejects(
    connection: Callable[[], AbstractAsyncContextManager[Connection]], import_id: int
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """All that an import set aside, portion by portion.

    A portion is a query: who takes them slowly keeps neither a connection nor a snapshot.
    """
    after = -1
    while True:
        async with connection() as conn:
            found = await conn.execute(
                statement("page_rejects"),
                {"import_id": import_id, "after": after, "limit": PORTION, "offset": 0},
            )
            rows = await found.fetchall()
        if rows:
            after = rows[-1][1]
            yield [record(row) for row in rows]
        if len(rows) < PORTION:
            return


def _window(number: int, limit: int) -> dict[str, int]:
    return {"limit": limit, "offset": min((number - 1) * limit, LARGEST)}


def _job(row: Row) -> Job:
    # A runner that died is seen by the workers within a second; until then it runs.
    return Job(standing_of(row, is_running=row["status"] == "RUNNING"), row["requested"])


async def _rows(conn: Connection, name: str, /, **parameters: Any) -> list[Row]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement(name), parameters)
        return await cursor.fetchall()


async def _first(conn: Connection, name: str, /, **parameters: Any) -> Any:
    return await (await conn.execute(statement(name), parameters)).fetchone()


async def _count(conn: Connection, name: str, /, **parameters: Any) -> int:
    return int((await _first(conn, name, **parameters))[0])
