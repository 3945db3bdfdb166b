"""Idempotency-Key: a create that is repeated gives the first result again.

Stored for 24 hours: hashes of the key and of the body, and the id of what was created. The hash of
the key contains the caller's credentials, so callers never see each other's keys.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, NamedTuple

import psycopg
from litestar import Request
from litestar.params import HeaderParameter

from customer_panel.api.http.errors import ApiError, invalid
from customer_panel.api.http.parameters import words
from customer_panel.sql import statement

HEADER = "Idempotency-Key"
VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")

Header = Annotated[
    str | None,
    HeaderParameter(
        name=HEADER,
        pattern=f"^{VISIBLE.pattern}$",
        description="The same key and body within 24 hours give the first result again.",
        schema_extra=words(),
    ),
]


class Key(NamedTuple):
    """Two hashes: of the key, its caller and its operation; and of the body it was sent with."""

    key: bytes
    body: bytes


class Repeated(Exception):
    """An earlier request with the same key and body has created `created_id`."""

    def __init__(self, created_id: int) -> None:
        super().__init__(created_id)
        self.created_id = created_id


def key_of(request: Request[Any, Any, Any], operation: str, payload: bytes) -> Key | None:
    """The key of a request; None without one. Raises ApiError 400 for an invalid one."""
    given = request.headers.getall(HEADER, [])
    if not given:
        return None
    if len(given) > 1 or not VISIBLE.fullmatch(given[0]):
        raise invalid(HEADER, "must be 1 to 255 visible ASCII characters")
    caller = request.headers.get("authorization", "")
    # With the length in front, different requests never give the same text.
    text = f"{len(caller)}|{caller}|{operation}|{given[0]}"
    return Key(hashlib.sha256(text.encode()).digest(), hashlib.sha256(payload).digest())


async def first(conn: psycopg.AsyncConnection[Any], key: Key) -> int | None:
    """Takes the key in the open transaction, and returns None; or returns the id that was created
    with it before.

    Waits for a concurrent request with the same key. Raises ApiError 409 if that had another body.
    """
    taken = await conn.execute(statement("take_key"), key._asdict() | {"created_id": None})
    # After it, and without waiting for locks: two requests that drop each other's old key would
    # deadlock.
    await conn.execute(statement("drop_old_keys"))
    return None if taken.rowcount else await find(conn, key)


async def keep(conn: psycopg.AsyncConnection[Any], key: Key, created_id: int) -> None:
    """Stores what was created with a key that `first` has taken, in the same transaction."""
    await conn.execute(statement("keep_key"), {"key": key.key, "created_id": created_id})


async def find(conn: psycopg.AsyncConnection[Any], key: Key) -> int | None:
    """The id that was created with the key. Raises ApiError 409 if that had another body."""
    found = await conn.execute(statement("find_key"), {"key": key.key})
    return _created(await found.fetchone(), key)


def take(conn: psycopg.Connection[Any], key: Key, created_id: int) -> None:
    """Takes the key for `created_id` in the transaction that creates it.

    Raises Repeated if an earlier request has taken it; ApiError 409 if that had another body.
    """
    taken = conn.execute(statement("take_key"), key._asdict() | {"created_id": created_id})
    conn.execute(statement("drop_old_keys"))
    if taken.rowcount:
        return
    earlier = _created(conn.execute(statement("find_key"), {"key": key.key}).fetchone(), key)
    if earlier is not None:
        raise Repeated(earlier)
    conn.execute(statement("keep_key"), {"key": key.key, "created_id": created_id})


def _created(found: Any, key: Key) -> int | None:
    if found is None:
        return None
    body, created_id = found
    if bytes(body) != key.body:
        raise ApiError(409, f"This {HEADER} was used with another body")
    return created_id  # type: ignore[no-any-return]
