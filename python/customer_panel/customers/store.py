"""Customers one by one and page by page. Deleted ones are never returned.

Writes are part of the caller's transaction. All take their locks in one order, values before rows,
so there are no deadlocks between them. The table's trigger writes the history and marks the fields
that were edited by hand.
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

from customer_panel._native import email_identity
from customer_panel.customer import BY_NAME, COLUMNS
from customer_panel.customers import values
from customer_panel.db.connect import AsyncConnection
from customer_panel.errors import CustomerMoved, IdentityStays, NoSuchCustomer, ValueTaken
from customer_panel.sql import statement

Row = tuple[Any, ...]
NAMES = tuple(column.name for column in COLUMNS[1:])
SHOWN = len(COLUMNS) + 3  # the columns, the id, two times
FOLD_EVERY = 256  # writes: each adds a row to customer_totals, and every list sums these rows
FARTHEST = 1 << 62  # rows: PostgreSQL accepts this offset, and no table has as many
NO_CUSTOMER = -1  # an id that no customer has

# Whether a customer is still as the client has read it.
Matches = Callable[[Row], bool]


class Page(NamedTuple):
    """Customers, newest first; how many match in all; whether there are some before and after."""

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
    """The page `number`, or what follows the id `after`, of all customers or of those that match."""
    offset = 0 if after is not None else min((number - 1) * limit, FARTHEST)
    parameters: dict[str, Any] = {"limit": limit, "offset": offset, "after": after}
    name = "list_customers" if after is None else "list_customers_after"
    if customer_id is not None or email is not None:
        name = "list_by_email" if customer_id is None else "list_by_customer_id"
        # A blank matches no customer: it must not become None, which means no filter.
        parameters["email"] = None if email is None else values.email(email) or ""
        # An import stores an e-mail as identity in other letters than somebody may look for.
        parameters["customer_id"] = values.identity(customer_id or "") or ""
        parameters["email_identity"] = email_identity(customer_id or "")
    if after is not None:
        parameters["limit"] += 1  # shows whether there is one more
    cursor = conn.cursor(binary=True)
    await cursor.execute(statement(name), parameters)
    found = await cursor.fetchall()
    total, has_newer = found[0][:2]
    # An empty page is one row with the total and no customer.
    rows = [row[2:] for row in found if row[2] is not None]
    if after is None:
        return Page(rows, total, number > 1, offset + limit < total)
    return Page(rows[:limit], total, has_newer, len(rows) > limit)


async def create(conn: AsyncConnection, fields: Mapping[str, str | None]) -> Row:
    """A new customer, in the caller's transaction.

    If a deleted customer has the same identity, its row becomes the new customer. Raises ValueTaken
    for an e-mail address or an identity that another customer has.
    """
    row: dict[str, Any] = dict.fromkeys(NAMES) | stored(fields)
    given = row.pop("customer_id", None)
    await _lock(conn, email=row["email"], customerId=given)
    found = await conn.execute(
        statement("find_taken"), {"email": row["email"], "customer_id": given, "but": NO_CUSTOMER}
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
    except errors.UniqueViolation as error:
        # An import has inserted it since the check.
        if error.diag.constraint_name != "customers_pkey":
            raise
        raise ValueTaken("customerId") from None
    return await _only(cursor)


async def update(
    conn: AsyncConnection, customer: int, fields: Mapping[str, str | None], matches: Matches | None
) -> Row:
    """Changes the fields given, in the caller's transaction; None clears a field.

    Writes nothing if no value changes. Raises NoSuchCustomer, CustomerMoved if the customer does
    not match, IdentityStays and ValueTaken.
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
    """Deletes a customer, in the caller's transaction. Raises NoSuchCustomer and CustomerMoved."""
    await _hold(conn, customer, matches)
    await conn.execute(statement("delete_customer"), {"id": customer})


async def fold_sometimes(conn: AsyncConnection, customer: int) -> None:
    """After some creates and deletes, folds the rows of customer_totals. Not in their transaction."""
    if customer % FOLD_EVERY == 0:
        # A failure must not fail the request: the customer is written already. Behind a pooler it is
        # not committed yet, and only this must be rolled back.
        with contextlib.suppress(psycopg.OperationalError):
            async with conn.transaction():
                await conn.execute(statement("fold_some_totals"))


def stored(fields: Mapping[str, str | None]) -> dict[str, str | date | None]:
    """Fields as the database holds them. The caller has checked their limits."""
    convert: dict[str, Callable[[str], str | date | None]] = {
        **values.STORED,
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
    """A customer as the API shows it, and its values; locked until the transaction ends."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(statement("hold_customer"), {"id": customer})
    found = await cursor.fetchone()
    if found is None:
        raise NoSuchCustomer
    if matches is not None and not matches(found[:SHOWN]):
        raise CustomerMoved
    return found[:SHOWN], dict(zip(NAMES, found[SHOWN:], strict=True))


async def _lock(conn: AsyncConnection, **wanted: str | date | None) -> None:
    """No other API session writes these values until this transaction ends."""
    # Hashed here, so that the keys are the same in every process and version.
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
