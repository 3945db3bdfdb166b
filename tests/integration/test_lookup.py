"""Look-ups by id, gathered: nobody gets another's answer, nobody is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from customer_panel.api.http.errors import as_api_error
from customer_panel.customers import lookup, store
from customer_panel.customers.lookup import Link, Lookup
from customer_panel.db import connect
from support.store import fill, lock_waits, terminate
from support.waiting import wait_until


def looked_up(dsn: str, question: Callable[[Lookup], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        lookup = Lookup(dsn)
        try:
            return await question(lookup)
        finally:
            await lookup.close()

    return asyncio.run(ask())


def link_of(lookup: Lookup) -> Link:
    assert lookup._link is not None
    return lookup._link


@pytest.fixture
def known(database) -> set[int]:
    ids = set(range(1, 3000, 3))
    fill(database, sorted(ids))
    return ids


def check(customer: int, row: store.Row | None, known: set[int]) -> None:
    assert (row is not None) is (customer in known)
    if row is not None:
        assert row[:2] == (customer, f"c{customer}")
        assert len(row) == store.SHOWN


@pytest.mark.parametrize("seed", range(3))
def test_everybody_gets_his_own_answer_whoever_gives_up(dsn, known, seed):
    chance = random.Random(seed)

    async def many(lookup: Lookup) -> None:
        async def client() -> None:
            for _ in range(60):
                customer = chance.randrange(0, 3000)
                task = asyncio.ensure_future(lookup.get(customer))
                if chance.random() < 0.3:
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)  # a turn of the loop
                    if chance.random() < 0.5:
                        await asyncio.sleep(0.001)  # about as long as a query
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    check(customer, await task, known)

        async with asyncio.timeout(30):
            await asyncio.gather(*(client() for _ in range(40)))

    looked_up(dsn, many)


def test_what_is_asked_in_one_turn_is_one_query(dsn, database, known):
    database.execute("SELECT pg_stat_reset()")

    async def many(lookup: Lookup) -> int:
        await lookup.get(1)
        queries = 0
        ask = lookup._link.ask  # type: ignore[union-attr]

        def counted(*args: Any) -> None:
            nonlocal queries
            queries += 1
            ask(*args)

        lookup._link.ask = counted  # type: ignore[union-attr,method-assign]
        rows = await asyncio.gather(*(lookup.get(i % 7) for i in range(200)))
        for i, row in enumerate(rows):
            check(i % 7, row, known)
        return queries

    assert looked_up(dsn, many) == 1


def test_a_lost_connection_is_replaced_without_anybody_noticing(dsn, database, known):
    async def many(lookup: Lookup) -> int:
        ended = 0
        stop = False

        async def client(number: int) -> None:
            while not stop:
                check(number, await lookup.get(number), known)

        clients = [asyncio.create_task(client(number)) for number in range(20)]
        for _ in range(10):
            # What is asked only now is answered by a connection that the last loss did not end.
            check(0, await lookup.get(0), known)
            ended += await asyncio.to_thread(terminate, database)
        stop = True
        await asyncio.gather(*clients)
        # Also one that was lost while nobody asked.
        ended += await asyncio.to_thread(terminate, database)
        await asyncio.to_thread(
            wait_until, "the loss is noticed", lambda: link_of(lookup).is_lost, 10
        )
        check(1, await lookup.get(1), known)
        return ended

    assert looked_up(dsn, many) > 10


def test_a_connection_that_is_lost_twice_is_an_error(dsn, database, known):
    async def ask(lookup: Lookup) -> None:
        await lookup.get(1)
        with psycopg.connect(dsn) as blocker:
            # The query waits for this lock; whoever runs it is ended, again and again.
            blocker.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(lookup.get(1))
            for _ in range(2):
                await asyncio.to_thread(
                    wait_until, "the query waits", lambda: lock_waits(database) == 1, 10
                )
                await asyncio.to_thread(terminate, database)
        with pytest.raises(psycopg.OperationalError):
            await asking
        check(1, await lookup.get(1), known)

    looked_up(dsn, ask)


def test_without_a_server_everybody_is_told_at_once(tmp_path):
    async def ask(lookup: Lookup) -> list[BaseException | Any]:
        async with asyncio.timeout(5):
            return await asyncio.gather(
                *(lookup.get(number) for number in range(20)), return_exceptions=True
            )

    got = looked_up(f"postgresql://postgres@/x?host={tmp_path}", ask)
    assert {type(outcome) for outcome in got} == {psycopg.OperationalError}
    assert as_api_error(got[0]).status == 503


@pytest.mark.parametrize("moment", ["connecting", "asked"])
def test_a_server_that_falls_silent_is_given_up(dsn, known, monkeypatch, moment):
    """Its socket stays open and nothing comes: a stopped process, a network that swallows packets."""
    monkeypatch.setattr(lookup, "CONNECT_S" if moment == "connecting" else "ANSWER_S", 0.2)

    async def ask(lookup: Lookup) -> None:
        blocked = "database_seed" if moment == "connecting" else "customers"
        with psycopg.connect(dsn) as blocker:
            blocker.execute(f"LOCK TABLE {blocked} IN ACCESS EXCLUSIVE MODE".encode())
            async with asyncio.timeout(5):
                with pytest.raises(pg.ConnectionTimeout):
                    await lookup.get(1)
                with pytest.raises(pg.ConnectionTimeout):
                    await lookup.get(1)
        monkeypatch.undo()
        check(1, await lookup.get(1), known)

    if moment == "connecting":
        slow = b"SELECT count(*) FROM database_seed"
        monkeypatch.setattr(connect, "pins", lambda *_: slow)
    looked_up(dsn, ask)


def test_what_cannot_be_read_is_an_error_for_those_who_asked(dsn, known, monkeypatch):
    async def ask(lookup: Lookup) -> None:
        await lookup.get(1)
        with monkeypatch.context() as broken:
            broken.setattr(Link, "rows", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                async with asyncio.timeout(5):
                    await lookup.get(1)
        check(1, await lookup.get(1), known)

    looked_up(dsn, ask)


def test_a_query_that_fails_fails_for_those_who_asked(dsn, database, known):
    async def ask(lookup: Lookup) -> None:
        await lookup.get(1)
        database.execute("ALTER TABLE customers RENAME COLUMN company TO gone")
        with pytest.raises(pg.UndefinedColumn):
            await lookup.get(1)
        database.execute("ALTER TABLE customers RENAME COLUMN gone TO company")
        check(1, await lookup.get(1), known)

    looked_up(dsn, ask)


def test_a_closed_look_up_leaves_nobody_waiting(dsn, database, known):
    async def ask(lookup: Lookup) -> None:
        await lookup.get(1)
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.create_task(lookup.get(number)) for number in range(5)]
            await asyncio.to_thread(
                wait_until, "the query waits", lambda: lock_waits(database) == 1, 10
            )
            waiting += [asyncio.create_task(lookup.get(number)) for number in range(5)]
            await asyncio.sleep(0)  # a turn of the loop: they ask
            await lookup.close()
            got = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in got} == {psycopg.OperationalError}

    looked_up(dsn, ask)


def test_many_ids_at_once_fill_the_socket_and_are_answered(dsn, known):
    """More than a socket takes at a time: what is left is sent when it has room."""

    async def ask(lookup: Lookup) -> None:
        ids = [*range(1, 100_000)]
        rows = await asyncio.gather(*map(lookup.get, ids))
        assert sum(row is not None for row in rows) == len(known)

    looked_up(dsn, ask)
