"""Runs statements of `sql/` by their names, over a connection of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from psycopg.rows import dict_row

from customer_panel.db.connect import AsyncConnection, Connection, connect_async
from customer_panel.sql import statement

Row = dict[str, Any]
T = TypeVar("T")


def rows(conn: Connection, name: str, /, **parameters: Any) -> list[Row]:
    """All rows, by column name."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name), parameters).fetchall()


def first(conn: Connection, name: str, /, **parameters: Any) -> Any:
    """The first row as a tuple; None without one."""
    return conn.execute(statement(name), parameters).fetchone()


def only(conn: Connection, name: str, /, **parameters: Any) -> Any:
    """The row, as a tuple, of a statement that always returns one."""
    row = first(conn, name, **parameters)
    assert row is not None, name
    return row


def copy_in(conn: Connection, name: str, /, pieces: Iterable[bytes]) -> None:
    """Sends a binary stream to a COPY statement."""
    with conn.cursor() as cursor, cursor.copy(statement(name)) as copy:
        for piece in pieces:
            copy.write(piece)


async def rows_async(conn: AsyncConnection, name: str, /, **parameters: Any) -> list[Row]:
    """All rows, by column name."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement(name), parameters)
        return await cursor.fetchall()


async def first_async(conn: AsyncConnection, name: str, /, **parameters: Any) -> Any:
    """The first row as a tuple; None without one."""
    return await (await conn.execute(statement(name), parameters)).fetchone()


def run_async(dsn: str, work: Callable[[AsyncConnection], Awaitable[T]], *, part: str) -> T:
    """Runs `work` over a new connection in a new event loop: so the command line can call the async
    functions of the API.
    """

    async def run() -> T:
        async with await connect_async(dsn, part=part) as conn:
            return await work(conn)

    return asyncio.run(run())
