"""Rejects and warnings of an import as records of a CSV file: page by page, or all.

Async, for the API; the command line runs it in an event loop of its own.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from customer_panel.customer import BY_NAME
from customer_panel.db.connect import AsyncConnection
from customer_panel.db.query import first_async
from customer_panel.sql import statement

PORTION = 200  # rejects in memory at once, each with up to 64 KiB of raw bytes
START = -1  # before the first byte of the file
REPLACED = "\N{REPLACEMENT CHARACTER}"
COLUMNS = (
    *("line", "byte_from", "byte_to", "severity", "code", "field", "message"),
    *("raw", "raw_base64"),
)
Record = tuple[Any, ...]  # as COLUMNS


async def page(
    conn: AsyncConnection, import_id: int, limit: int, offset: int = 0
) -> tuple[list[Record], int]:
    """Rejects and warnings of an import in file order, and how many there are."""
    rows = await _rows(conn, import_id, START, limit, offset)
    total = await first_async(conn, "count_rejects", import_id=import_id)
    return [record(row) for row in rows], int(total[0])


async def every(
    connection: Callable[[], AbstractAsyncContextManager[AsyncConnection]], import_id: int
) -> AsyncIterator[list[Record]]:
    """All rejects and warnings of an import, in file order, portion by portion.

    Each portion is a query: a slow consumer holds neither a connection nor a snapshot.
    """
    after = START
    while True:
        async with connection() as conn:
            rows = await _rows(conn, import_id, after, PORTION)
        if rows:
            after = rows[-1][1]
            yield [record(row) for row in rows]
        if len(rows) < PORTION:
            return


async def _rows(
    conn: AsyncConnection, import_id: int, after: int, limit: int, offset: int = 0
) -> list[Any]:
    cursor = await conn.execute(
        statement("page_rejects"),
        {"import_id": import_id, "after": after, "limit": limit, "offset": offset},
    )
    return await cursor.fetchall()


def record(row: Any) -> Record:
    """A row of the statement `page_rejects` as COLUMNS.

    `raw` is the record as text, without its line end. NUL and bytes that are not UTF-8 are replaced
    there; `raw_base64` then has the original bytes.
    """
    *place, field, message, raw = row
    shown = BY_NAME[field].camel if field in BY_NAME else field
    return (*place, shown, message, *_readable(raw))


def _readable(raw: bytes) -> tuple[str, str]:
    line = raw.rstrip(b"\r\n")
    # Programs that read CSV stop at a NUL, or end the value there.
    text = line.decode(errors="replace").replace("\0", REPLACED)
    is_exact = text.encode() == line
    return text, "" if is_exact else base64.b64encode(raw).decode()
