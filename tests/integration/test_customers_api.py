"""Customers written by many at once: duplicates, tombstones, changes, locks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from customer_panel.api.customers.routes import matching, tag
from customer_panel.api.http.envelope import encode
from customer_panel.api.http.errors import as_api_error
from customer_panel.customer import COLUMNS
from customer_panel.customers import store
from customer_panel.db.pool import SIZE, Pool, connection
from customer_panel.errors import (
    CustomerMoved,
    IdentityStays,
    NoSuchCustomer,
    ValueTaken,
)
from customer_panel.redaction import described
from customer_panel.sql import statement
from support.compare import run as run_import
from support.store import (
    BY_RANGE,
    LIVE,
    TOTAL,
    create,
    delete,
    fetch_one,
    fill,
    lock_waits,
    outcomes,
    page,
    shown,
    terminate,
    update,
    with_pool,
)
from support.waiting import wait_until


@pytest.fixture(params=["keys", "first load"])
def any_dsn(request, dsn, database) -> str:
    """With the two keys, and without them, as while a first load runs."""
    if request.param == "first load":
        database.execute(statement("drop_keys"))
    return dsn


def test_of_many_with_one_address_one_is_created(any_dsn, database):
    letters = ["ada@example.com", "ADA@example.com", " Ada@Example.Com", "aDA@EXAMPLE.COM\u200b"]

    async def race(pool: Pool) -> list[Any]:
        return await outcomes([create(pool, email=letters[i % 4]) for i in range(24)])

    got = with_pool(any_dsn, race)
    assert got.count("email") == 23
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 1


def test_of_many_with_one_identity_one_is_created(any_dsn, database):
    async def race(pool: Pool) -> list[Any]:
        return await outcomes([create(pool, customer_id="One") for _ in range(24)])

    got = with_pool(any_dsn, race)
    assert got.count("customerId") == 23
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 1


def test_of_many_that_change_to_one_address_one_succeeds(any_dsn):
    async def race(pool: Pool) -> list[Any]:
        made = [await create(pool, email=f"{i}@example.com") for i in range(12)]
        return await outcomes([update(pool, row[0], email="Wanted@example.com") for row in made])

    assert with_pool(any_dsn, race).count("email") == 11


def test_creates_and_changes_crosswise_do_not_wait_in_a_circle(dsn):
    """Two that swap addresses and identities: each is refused or done, nobody is killed."""

    async def race(pool: Pool) -> list[Any]:
        a = await create(pool, email="a@example.com")
        b = await create(pool, email="b@example.com")
        attempts: list[Awaitable[Any]] = []
        for i in range(20):
            attempts += [
                update(pool, a[0], email="b@example.com", city=str(i)),
                update(pool, b[0], email="a@example.com", city=str(i)),
                create(pool, email="a@example.com", customer_id="b@example.com"),
                create(pool, email="b@example.com", customer_id="a@example.com"),
            ]
        return await outcomes(attempts)

    assert set(with_pool(dsn, race)) == {"email"}


def test_an_import_that_commits_the_identity_first_makes_it_a_conflict(dsn, database):
    """The row is not visible when it is looked for; the key says so in the end."""

    async def race(pool: Pool) -> Any:
        with psycopg.connect(dsn) as importing:
            importing.execute("INSERT INTO customers (customer_id) VALUES ('One')")
            made = asyncio.create_task(create(pool, customer_id="One", email="x@example.com"))
            await asyncio.to_thread(
                wait_until, "the create waits", lambda: lock_waits(database) == 1, 10
            )
            importing.commit()
        with pytest.raises(ValueTaken) as taken:
            await made
        return taken.value.field

    assert with_pool(dsn, race) == "customerId"


def test_what_is_deleted_can_be_created_again(any_dsn, database):
    async def again(pool: Pool) -> tuple[store.Row, store.Row]:
        first = await create(pool, customer_id="One", email="one@example.com", city="Rome")
        await delete(pool, first[0])
        with pytest.raises(NoSuchCustomer):
            await delete(pool, first[0])
        second = await create(pool, customer_id="One", email="one@example.com", phone1="1")
        return first, second

    first, second = with_pool(any_dsn, again)
    assert second[0] > first[0]
    assert (shown(second).city, shown(second).phone1) == (None, "1")
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 1
    assert fetch_one(database, BY_RANGE) == 0
    assert fetch_one(database, "SELECT count(*) FROM customers") == 1


def test_of_many_that_revive_one_does(any_dsn, database):
    async def race(pool: Pool) -> list[Any]:
        await delete(pool, (await create(pool, customer_id="One"))[0])
        return await outcomes([create(pool, customer_id="One") for _ in range(12)])

    assert with_pool(any_dsn, race).count("customerId") == 11
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 1


def test_an_import_keeps_what_was_filled_when_a_deleted_customer_came_back(dsn, database, tmp_path):
    file = tmp_path / "customers.csv"
    file.write_text("Customer Id,First Name,City,Country\nOne,Ada,Rome,Italy\n")
    run_import(file, dsn)

    async def again(pool: Pool) -> None:
        await delete(pool, fetch_one(database, "SELECT id FROM customers"))
        await create(
            pool, customer_id="One", first_name="Grace", email="g@example.com", city="Oslo"
        )

    with_pool(dsn, again)
    file.write_text("Customer Id,First Name,City,Country\nOne,Adele,Bern,Italy\n")
    run_import(file, dsn)
    assert fetch_one(
        database, "SELECT first_name, city, email, deleted_at IS NULL FROM customers"
    ) == (
        "Grace",
        "Oslo",
        "g@example.com",
        True,
    )
    assert fetch_one(database, LIVE) == fetch_one(database, TOTAL) == 1


def test_a_create_leaves_nothing_when_it_is_refused(dsn, database):
    async def refused(pool: Pool) -> None:
        await create(pool, email="a@example.com")
        with pytest.raises(ValueTaken):
            await create(pool, email="A@example.com", customer_id="Two")

    with_pool(dsn, refused)
    assert fetch_one(database, "SELECT count(*) FROM customers") == fetch_one(database, TOTAL) == 1


# -- changing --------------------------------------------------------------------------------------


def test_a_change_is_an_edit_with_its_history(dsn, database):
    async def change(pool: Pool) -> tuple[store.Row, store.Row]:
        made = await create(
            pool, city="Rome", email="a@example.com", subscription_date="2021-01-16"
        )
        changed = await update(pool, made[0], city="Oslo", first_name=None, email=None)
        return made, changed

    made, changed = with_pool(dsn, change)
    assert (shown(changed).city, shown(changed).first_name, shown(changed).email) == (
        *("Oslo", None),
        None,
    )
    assert shown(changed).subscription_date == "2021-01-16T00:00:00.000Z"
    assert shown(changed).updated_at > shown(made).updated_at
    assert shown(changed).created_at == shown(made).created_at
    bits = sum(1 << i for i, c in enumerate(COLUMNS) if c.name in ("city", "first_name", "email"))
    assert fetch_one(database, "SELECT edited_fields FROM customers") == bits
    assert fetch_one(database, "SELECT fields, old_values[5] FROM customer_history") == (
        bits,
        "Rome",
    )


def test_the_time_moves_with_every_change(dsn):
    async def change(pool: Pool) -> list[str]:
        row = await create(pool)
        times = []
        for number in range(30):
            row = await update(pool, row[0], city=str(number))
            times.append(shown(row).updated_at)
        return times

    times = with_pool(dsn, change)
    assert times == sorted(set(times))


def test_what_changes_nothing_is_not_written(dsn, database):
    fields = {"city": "Rome", "email": "a@example.com", "subscription_date": "2021-01-16"}

    async def change(pool: Pool) -> None:
        made = await create(pool, customer_id="One", **fields)
        version = fetch_one(database, "SELECT xmin::text FROM customers")
        for same in (
            {},
            fields,
            {"customer_id": "One"},
            {"city": " Rome\u00a0", "email": "A@example.com"},
            {"subscription_date": "2021-01-15T23:00:00-05:00"},
        ):
            assert await update(pool, made[0], **same) == made
        assert fetch_one(database, "SELECT xmin::text FROM customers") == version

    with_pool(dsn, change)


def test_the_identity_stays(dsn):
    async def change(pool: Pool) -> None:
        made = await create(pool, customer_id="One")
        for other in ("Two", "one"):
            with pytest.raises(IdentityStays):
                await update(pool, made[0], customer_id=other, city="x")
        assert shown(await update(pool, made[0], customer_id="One", city="x")).city == "x"

    with_pool(dsn, change)


def test_an_address_that_two_imported_customers_share_does_not_stand_in_the_way(dsn, database):
    fill(database, [1, 2])
    database.execute("UPDATE customers SET email = 'both@example.com'")

    async def change(pool: Pool) -> None:
        await update(pool, 1, email="BOTH@example.com", city="x")
        await update(pool, 1, email="other@example.com")
        with pytest.raises(ValueTaken):
            await update(pool, 1, email="both@example.com")

    with_pool(dsn, change)


def test_a_tag_matches_what_was_read_and_nothing_newer(dsn):
    async def change(pool: Pool) -> None:
        made = await create(pool)
        mark = tag(encode(shown(made)))
        await update(pool, made[0], city="Rome")
        async with connection(pool) as conn:
            for header in (mark, f'"x", {mark}', "x", ""):
                with pytest.raises(CustomerMoved):
                    async with conn.transaction():
                        await store.update(conn, made[0], {"city": "Bern"}, matching(header))
                with pytest.raises(CustomerMoved):
                    async with conn.transaction():
                        await store.delete(conn, made[0], matching(header))
        assert [shown(row).city for row in (await page(pool, limit=1)).rows] == ["Rome"]

    with_pool(dsn, change)


@pytest.mark.parametrize(
    ("header", "does"),
    [
        *[(None, True), ("*", True), (" * ", True), ("TAG", True), ('"a", TAG', True)],
        *[("TAG,TAG", True), ("W/TAG", False), ('"a"', False), ("TAG TAG", False), ("TAGx", False)],
        *[("", False), (",", False), ('"', False), ("xTAG", False), ('W/"a", TAG', True)],
    ],
)
def test_if_match(header, does):
    row = (
        1,
        "One",
        *[None] * len(COLUMNS[1:]),
        "2021-01-16T00:00:00.000Z",
        "2021-01-16T00:00:00.000Z",
    )
    mark = tag(encode(shown(row)))
    asked_for = matching(None if header is None else header.replace("TAG", mark))
    assert (asked_for is None or asked_for(row)) is does


# -- waiting ---------------------------------------------------------------------------------------


def test_who_waits_for_a_lock_is_told_so(dsn, database):
    async def wait(pool: Pool) -> None:
        made = await create(pool)
        with psycopg.connect(dsn) as other:
            other.execute("SELECT FROM customers FOR UPDATE")
            async with connection(pool) as conn:
                await conn.execute("SET lock_timeout = '100ms'")
                with pytest.raises(pg.LockNotAvailable) as refused:
                    async with conn.transaction():
                        await store.update(conn, made[0], {"city": "x"}, None)
        answer = as_api_error(refused.value)
        assert (answer.status, answer.headers) == (503, {"Retry-After": "1"})

    with_pool(dsn, wait)


def test_reads_and_creates_do_not_wait_for_an_index_build(dsn, database):
    """CREATE INDEX CONCURRENTLY, waiting for a transaction that is open beside it."""
    database.execute(statement("drop_keys"))

    async def work(pool: Pool) -> None:
        with psycopg.connect(dsn) as open_one:
            open_one.execute("INSERT INTO customers (customer_id) VALUES ('x')")
            build = asyncio.create_task(
                asyncio.to_thread(
                    database.execute,
                    "CREATE INDEX CONCURRENTLY customers_email_idx ON customers (email)",
                )
            )
            with psycopg.connect(dsn, autocommit=True) as watch:
                building = "SELECT count(*) FROM pg_stat_progress_create_index"
                await asyncio.to_thread(
                    wait_until,
                    "the index is being built",
                    lambda: fetch_one(watch, building) == 1,
                    10,
                )
            async with asyncio.timeout(5):
                made = await create(pool, email="a@example.com")
                await update(pool, made[0], city="x")
                assert (await page(pool, limit=10)).total == 1
                await delete(pool, made[0])
            open_one.rollback()
            await build

    with_pool(dsn, work)


def test_a_pool_full_of_dead_connections_does_not_show(dsn, database):
    async def work(pool: Pool) -> None:
        is_full = asyncio.Barrier(SIZE)

        async def hold() -> None:
            async with connection(pool):
                await is_full.wait()

        async with asyncio.timeout(10):
            await asyncio.gather(*(hold() for _ in range(SIZE)))
        for _ in range(3):
            terminate(database)
            await asyncio.gather(*(page(pool, limit=10) for _ in range(30)))

    with_pool(dsn, work)


def test_what_the_database_says_of_a_row_stays_inside(dsn, database):
    fill(database, [1])
    with pytest.raises(pg.UniqueViolation) as error:
        database.execute("INSERT INTO customers (customer_id) SELECT customer_id FROM customers")
    assert "c1" in str(error.value)
    assert "c1" not in described(error.value) + as_api_error(error.value).message
    assert "23505" in described(error.value)


def test_a_session_of_the_api_has_its_limits(dsn):
    async def look(pool: Pool) -> list[str]:
        async with connection(pool) as conn:
            found = []
            for name in ("lock_timeout", "statement_timeout", "timezone", "synchronous_commit"):
                row = await (await conn.execute(f"SHOW {name}".encode())).fetchone()
                assert row is not None
                found.append(row[0])
            return found

    assert with_pool(dsn, look) == ["5s", "15s", "UTC", "on"]
