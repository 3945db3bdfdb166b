"""Customers one by one and page by page. A deleted one is nowhere in sight.

Writes are part of the caller's transaction and take their locks in one order, values before rows,
so that they never wait for each other in a circle. History and what a person edited are kept by the
table's trigger.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from customer_panel.customer import BY_NAME, COLUMNS
from customer_panel.customers import values
from customer_panel.db.connect import AsyncConnection
from customer_panel.errors import CustomerMoved, IdentityStays, NoSuchCustomer, ValueTaken
from customer_panel.sql import statement

Row = tuple[Any, ...]
NAMES = tuple(column.name for column in COLUMNS[1:])
SHOWN = len(COLUMNS) + 3  # the columns, the id, two times
FOLD_EVERY = 256  # writes: each leaves a row in customer_totals that every list has to sum up
FARTHEST = 1 << 62  # rows: an offset that PostgreSQL takes and no table reaches
NOBODY = -1  # no customer has it

# Whether a customer as it is shown is the one that the writer has seen.
Matches = Callable[[Row], bool]


class Page(NamedTuple):
    """Customers newest first, how many there are in all, and whether any come before and behind."""

    rows: list[Row]
    total: int
    has_newer: bool
    has_older: bool


async def page(
    conn: AsyncConnection,
    *,
    limit: int,
    number: int = 1,
    after: int | None = None,
    email: str | None = None,
    customer_id: str | None = None,
) -> Page:
    """The page `number`, or what follows the customer `after`, of all or of those that match."""
    offset = 0 if after is not None else min((number - 1) * limit, FARTHEST)
    asked: dict[str, Any] = {"limit": limit, "offset": offset, "after": after}
    name = "list_customers" if after is None else "list_customers_after"
    if customer_id is not None or email is not None:
        name = "list_by_email" if customer_id is None else "list_by_customer_id"
        # A blank is nobody's; it is not the same as no filter.
        asked["email"] = None if email is None else values.email(email) or ""
        asked["customer_id"] = None if customer_id is None else values.identity(customer_id) or ""
    if after is not None:
        asked["limit"] += 1  # whether one more is there
    cursor = conn.cursor(binary=True)
    await cursor.execute(statement(name), asked)
    found = await cursor.fetchall()
    total, has_newer = found[0][:2]
    # A page with nobody on it still has its total.
    rows = [row[2:] for row in found if row[2] is not None]
    if after is None:
        return Page(rows, total, number > 1, offset + limit < total)
    return Page(rows[:limit], total, has_newer, len(rows) > limit)


async def create(conn: AsyncConnection, fields: Mapping[str, str | None]) -> Row:
    """A new customer, in the transaction that is open.

    One that was deleted and has the same identity comes back, as a new customer. Raises ValueTaken
    for an e-mail address or an identity that another customer has.
    """
    row: dict[str, Any] = dict.fromkeys(NAMES) | stored(fields)
    given = row.pop("customer_id", None)
    await _lock(conn, email=row["email"], customerId=given)
    found = await conn.execute(
        statement("find_taken"), {"email": row["email"], "customer_id": given, "but": NOBODY}
    )
    deleted = None
    for field, holder, is_deleted in await found.fetchall():
        if not is_deleted:
            raise ValueTaken(field)
        deleted = holder
    if deleted is not None:
        name, row["id"] = "revive_customer", deleted
    else:
        name, row["customer_id"] = "insert_customer", given or str(uuid.uuid4())
    cursor = conn.cursor(binary=True)
    try:
        await cursor.execute(statement(name), row)
    except errors.UniqueViolation as wrong:
        # An import brought it since we looked.
        if wrong.diag.constraint_name != "customers_pkey":
            raise
        raise ValueTaken("customerId") from None
    return await _only(cursor)


async def update(
    conn: AsyncConnection, customer: int, fields: Mapping[str, str | None], matches: Matches | None
) -> Row:
    """Changes the fields given, in the transaction that is open; None clears one.

    A customer that would stay as it is, is not written. Raises NoSuchCustomer, CustomerMoved when
    it does not match any more, IdentityStays and ValueTaken.
    """
    changes = stored(fields)
    await _lock(conn, email=changes.get("email"))
    shown, row = await _hold(conn, customer, matches)
    identity = changes.pop("customer_id", None)
    if "customer_id" in fields and identity != shown[1]:
        raise IdentityStays
    email = changes.get("email")
    if email is not None and email != row["email"]:
        found = await conn.execute(
            statement("find_taken"), {"email": email, "customer_id": None, "but": customer}
        )
        if await found.fetchone():
            raise ValueTaken("email")
    changed = row | changes
    if changed == row:
        return shown
    cursor = conn.cursor(binary=True)
    await cursor.execute(statement("update_customer"), changed | {"id": customer})
    return await _only(cursor)


async def delete(conn: AsyncConnection, customer: int, matches: Matches | None) -> None:
    """Deletes, in the transaction that is open. Raises NoSuchCustomer and CustomerMoved."""
    await _hold(conn, customer, matches)
    await conn.execute(statement("delete_customer"), {"id": customer})


async def fold_sometimes(conn: AsyncConnection, customer: int) -> None:
    """After a create or delete, and outside its transaction: now and then, folds what they count."""
    if customer % FOLD_EVERY == 0:
        # The customer is written, whatever becomes of this.
        with contextlib.suppress(psycopg.OperationalError):
            await conn.execute(statement("fold_some_totals"))


def stored(fields: Mapping[str, str | None]) -> dict[str, str | date | None]:
    """Fields as the database holds them. They are known to be within their limits."""
    convert: dict[str, Callable[[str], str | date | None]] = {
        "identity": values.identity,
        "email": values.email,
        "date": values.day,
        "text": values.text,
    }
    return {
        name: None if value is None else convert[BY_NAME[name].kind](value)
        for name, value in fields.items()
    }


async def _hold(
    conn: AsyncConnection, customer: int, matches: Matches | None
) -> tuple[Row, dict[str, Any]]:
    """A customer as it is shown, and its values; nobody else changes it now."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(statement("hold_customer"), {"id": customer})
    found = await cursor.fetchone()
    if found is None:
        raise NoSuchCustomer
    if matches is not None and not matches(found[:SHOWN]):
        raise CustomerMoved
    return found[:SHOWN], dict(zip(NAMES, found[SHOWN:], strict=True))


async def _lock(conn: AsyncConnection, **wanted: str | date | None) -> None:
    """Nobody else writes these values before this transaction ends."""
    # Hashed here, so that every process of every version comes to the same.
    keys = sorted(
        int.from_bytes(
            hashlib.blake2b(f"{field}:{value}".encode(), digest_size=8).digest(), signed=True
        )
        for field, value in wanted.items()
        if value is not None
    )
    if keys:
        await conn.execute(statement("lock_values"), {"keys": keys})


async def _only(cursor: psycopg.AsyncCursor[Row]) -> Row:
    row = await cursor.fetchone()
    assert row is not None
    return row
