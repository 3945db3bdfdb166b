"""Idempotency-Key: the first result again for a day, whoever comes at the same moment."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from litestar import Request
from litestar.testing import RequestFactory

from customer_panel.api.http.errors import ApiError
from customer_panel.api.http.idempotency import Key, Repeated, first, keep, key_of, take
from support.store import lock_waits
from support.waiting import wait_until

KEY = Key(b"k" * 32, b"b" * 32)
OTHER_BODY = Key(KEY.key, b"c" * 32)


def asked(*keys: str, **headers: str) -> Request:
    request = RequestFactory().post("/", headers=headers)
    request.scope["headers"] += [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    return Request(request.scope)


def test_without_the_header_there_is_none():
    assert key_of(asked(), "createCustomer", b"{}") is None


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\x7f", "a\t"])
def test_a_key_is_1_to_255_visible_ascii_characters(key):
    with pytest.raises(ApiError) as refused:
        key_of(asked(key), "createCustomer", b"{}")
    assert refused.value.status == 400
    assert key_of(asked("x" * 255), "createCustomer", b"{}") is not None


def test_two_keys_are_none():
    with pytest.raises(ApiError):
        key_of(asked("a", "b"), "createCustomer", b"{}")


def test_whose_and_for_what_it_is_is_part_of_it():
    keys = [
        key_of(asked("a"), "createCustomer", b"{}"),
        key_of(asked("b"), "createCustomer", b"{}"),
        key_of(asked("a"), "startImport", b"{}"),
        key_of(asked("a", authorization="Bearer one"), "createCustomer", b"{}"),
        key_of(asked("a", authorization="Bearer two"), "createCustomer", b"{}"),
        key_of(asked("a", authorization="Bearer one|createCustomer"), "x", b"{}"),
    ]
    assert len({key.key for key in keys if key}) == len(keys)
    assert len({key.body for key in keys if key}) == 1
    again = key_of(asked("a"), "createCustomer", b"{}")
    assert again == keys[0]


def within(dsn, *works):
    """Runs coroutines at once, each with a connection of its own."""

    async def all_of_them():
        async def run(work):
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
                return await work(conn)

        return await asyncio.gather(*map(run, works))

    return asyncio.run(all_of_them())


async def created(conn, key, number, meanwhile=None):
    async with conn.transaction():
        earlier = await first(conn, key)
        if earlier is not None:
            return earlier
        if meanwhile is not None:
            await meanwhile()
        await keep(conn, key, number)
        return number


def test_the_first_result_comes_again(dsn):
    assert within(dsn, lambda conn: created(conn, KEY, 7)) == [7]
    assert within(dsn, lambda conn: created(conn, KEY, 8)) == [7]


def test_another_body_is_a_conflict(dsn):
    within(dsn, lambda conn: created(conn, KEY, 7))
    with pytest.raises(ApiError) as refused:
        within(dsn, lambda conn: created(conn, OTHER_BODY, 8))
    assert refused.value.status == 409


def test_who_comes_at_the_same_moment_waits_for_the_first(dsn, database):
    async def others_wait():
        await asyncio.to_thread(
            wait_until, "the others wait", lambda: lock_waits(database) == 5, 10
        )

    works = [
        lambda conn, number=number: created(conn, KEY, number, others_wait) for number in range(6)
    ]
    assert len(set(within(dsn, *works))) == 1


def test_one_that_failed_was_none(dsn):
    async def failing(conn):
        async with conn.transaction():
            await first(conn, KEY)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        within(dsn, failing)
    assert within(dsn, lambda conn: created(conn, OTHER_BODY, 8)) == [8]


def test_after_a_day_a_key_is_new_and_old_ones_go(dsn, database):
    within(dsn, lambda conn: created(conn, KEY, 7))
    database.execute(
        "INSERT INTO idempotency_keys SELECT decode(lpad(to_hex(i), 64, '0'), 'hex'), 'x', i,"
        " now() - interval '25 hours' FROM generate_series(1, 150) AS i"
    )
    within(dsn, lambda conn: created(conn, Key(b"o" * 32, b"b" * 32), 9))
    assert database.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (52,)
    database.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 s'")
    assert within(dsn, lambda conn: created(conn, OTHER_BODY, 8)) == [8]
    assert database.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (1,)


def test_old_keys_are_dropped_by_many_at_once_without_a_deadlock(dsn, database):
    database.execute(
        "INSERT INTO idempotency_keys SELECT decode(lpad(to_hex(i), 64, '0'), 'hex'), 'x', i,"
        " now() - interval '25 hours' FROM generate_series(1, 900) AS i"
    )
    all_dropped = asyncio.Barrier(8)

    async def others_drop():
        async with asyncio.timeout(10):
            await all_dropped.wait()

    def work(number):
        key = Key(bytes([number]) * 32, b"b" * 32)
        return lambda conn: created(conn, key, number, others_drop)

    works = [work(number) for number in range(1, 9)]
    assert within(dsn, *works) == list(range(1, 9))


def test_a_job_and_its_key_are_made_together(database):
    with database.transaction():
        take(database, KEY, 7)
    with pytest.raises(Repeated) as repeated, database.transaction():
        take(database, KEY, 8)
    assert repeated.value.created_id == 7
    with pytest.raises(ApiError), database.transaction():
        take(database, OTHER_BODY, 8)
    assert database.execute("SELECT created_id FROM idempotency_keys").fetchall() == [(7,)]
