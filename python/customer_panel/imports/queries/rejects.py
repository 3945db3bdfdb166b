"""What an import set aside, read back: as records of a CSV file, or the first of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import psycopg

from customer_panel.customer import BY_NAME
from customer_panel.sql import statement

Connection = psycopg.Connection[Any]
PORTION = 500  # rejects are held with their raw bytes, up to 64 KiB each
REPLACED = "\N{REPLACEMENT CHARACTER}"
COLUMNS = (
    *("line", "byte_from", "byte_to", "severity", "code", "field", "message"),
    *("raw", "raw_base64"),
)


def records(conn: Connection, import_id: int) -> Iterator[tuple[Any, ...]]:
    """All rejects and warnings of an import as COLUMNS, in file order, read piece by piece.

    `raw` is the record as text, without its line end. Where it holds NUL or bytes that are not
    UTF-8, those are replaced there and `raw_base64` has the bytes as they were.
    """
    with conn.transaction(), conn.cursor("rejects") as cursor:
        cursor.itersize = PORTION
        cursor.execute(statement("rejects"), {"import_id": import_id, "limit": None})
        for row in cursor:
            yield record(row)


def first(conn: Connection, import_id: int, count: int) -> list[dict[str, Any]]:
    """The first `count` of them, as objects."""
    found = conn.execute(statement("rejects"), {"import_id": import_id, "limit": count})
    return [dict(zip(COLUMNS, record(row), strict=True)) for row in found]


def record(row: Any) -> tuple[Any, ...]:
    """A row of the statement `rejects` as COLUMNS."""
    *place, field, message, raw = row
    shown = BY_NAME[field].camel if field in BY_NAME else field
    return (*place, shown, message, *_readable(raw))


def _readable(raw: bytes) -> tuple[str, str]:
    line = raw.rstrip(b"\r\n")
    # Programs that read CSV stop at a NUL, or end the value there.
    text = line.decode(errors="replace").replace("\0", REPLACED)
    is_exact = text.encode() == line
    return text, "" if is_exact else base64.b64encode(raw).decode()
