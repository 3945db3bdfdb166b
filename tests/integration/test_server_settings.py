"""Settings that an administrator has made for the role or the database: none of them ends or changes
what a session of ours does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from customer_panel.customers.lookup import Lookup
from customer_panel.db.connect import connect, is_loss
from customer_panel.db.pool import SETTINGS, Pool
from customer_panel.db.query import run_async
from customer_panel.db.session import PINNED
from customer_panel.errors import TriggersOff
from customer_panel.imports import import_customers
from customer_panel.imports.job.sessions import LANE, NOTICE, Sessions
from customer_panel.imports.queries import jobs
from support.compare import digest, run, settled
from support.customers import create_customer, csv
from support.envelope import ok
from support.roles import admin_of, reset, role, set_for
from support.store import create, delete, page, update, with_pool

# By name: a value that an import, or an edit, would not survive, or that would change what it does.
HOSTILE = {
    "statement_timeout": "1ms",
    "transaction_timeout": "50ms",
    "idle_in_transaction_session_timeout": "5ms",
    "idle_session_timeout": "50ms",
    "lock_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "search_path": "elsewhere, pg_catalog",
    "row_security": "on",
    "default_table_access_method": "columnar",
    "client_encoding": "LATIN1",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Tokyo",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "exit_on_error": "on",
    "client_min_messages": "debug5",
    "plan_cache_mode": "force_generic_plan",
    "jit": "on",
    "customer_panel.import": "on",
}
# Not pinned: these only cost time.
SLOW = {
    "work_mem": "64kB",
    "maintenance_work_mem": "1MB",
    "max_parallel_maintenance_workers": "0",
    "enable_hashjoin": "off",
    "enable_indexscan": "off",
    "constraint_exclusion": "on",
    "temp_buffers": "800kB",
}
MANY = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list:
    """A file and its next version, with changed and repeated rows and some to be set aside."""
    folder = tmp_path_factory.mktemp("files")
    how = {"seed": 7, "duplicates": 0.05, "dirty": 0.02}
    return [
        csv(folder / "one.csv", 600, **how),
        csv(folder / "two.csv", 700, changed=0.2, **how),
    ]


@pytest.fixture(scope="module")
def wanted(files, databases, template) -> list:
    """The table and the counts where nobody has set anything."""
    with databases.copy(template) as dsn:
        first = left(files[0], dsn)
        edit(dsn)
        return [first, left(files[1], dsn)]


def left(path, dsn: str) -> tuple:
    result = run(path, dsn, lanes=2, batch_rows=100)
    return digest(admin_of(dsn)), settled(admin_of(dsn), result.job_id)


@pytest.fixture
def own(dsn) -> Iterator[str]:
    with role(dsn) as own:
        yield own


def test_every_setting_that_is_pinned_is_tried():
    assert HOSTILE.keys() == PINNED.keys()


def test_the_page_lists_every_setting_that_is_pinned():
    text = (Path(__file__).parents[2] / "docs" / "database.md").read_text()
    assert [name for name in PINNED | SETTINGS | LANE if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", [*HOSTILE, "all that only costs time"])
def test_a_setting_of_the_server_changes_nothing(own, files, wanted, name):
    """A first load with the setting made for the role, a re-sync with that of the database."""
    settings = {name: HOSTILE[name]} if name in HOSTILE else SLOW
    set_for(own, "ROLE", **settings)
    assert import_customers(files[0], own, dry_run=True).rows_inserted > MANY
    assert left(files[0], own) == wanted[0]
    edit(own)
    reset(own, "ROLE")
    set_for(own, "DATABASE", **settings)
    assert left(files[1], own) == wanted[1]
    edit(own)

    async def listed(conn) -> list:
        return (await jobs.page(conn, 1, 10))[0]

    assert [job.status for job in run_async(own, listed, part="jobs")] == ["COMPLETED"] * 2


def edit(dsn: str) -> None:
    """As the API does: a customer is made, listed and deleted, another one is changed and read."""
    with psycopg.connect(admin_of(dsn)) as conn:
        # Ids are drawn by two lanes at once: the same one is another customer's each time.
        (known,) = conn.execute("SELECT id FROM customers ORDER BY customer_id LIMIT 1").fetchone()

    async def edited(pool: Pool) -> None:
        row = await create(pool, customer_id="made by hand", email="ada@example.com")
        assert (await page(pool, limit=10)).rows[0][2] == "Ada"
        await delete(pool, row[0])
        await update(pool, known, first_name="Grace")

    async def look_up():
        lookup = Lookup(dsn)
        try:
            return await lookup.get(known)
        finally:
            await lookup.close()

    with_pool(dsn, edited)
    assert asyncio.run(look_up())[2] == "Grace"


@pytest.mark.parametrize("scope", ["ROLE", "DATABASE"])
def test_all_of_them_at_once_for_server_and_command_line(own, files, run, serve, scope, tmp_path):
    set_for(own, scope, **HOSTILE)
    done = run("import", str(files[0]), "--json", "--rejects", "r.csv", DATABASE_URL=own)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["rowsInserted"] > MANY
    assert (tmp_path / "r.csv").read_text().count("\n") > 1
    for command in (["jobs", "list"], ["jobs", "show", "1"], ["db", "status"], ["doctor"]):
        assert run(*command, DATABASE_URL=own).returncode == 0, command
    (tmp_path / "two.csv").write_bytes(files[1].read_bytes())
    api = serve(DATABASE_URL=own, IMPORT_ROOTS=tmp_path)
    with api.stream() as stream:
        api.sync(tmp_path / "two.csv")
        api.until("COMPLETED", job="2")
        assert stream.status == 200
    made = create_customer(api)
    assert ok(api.get(f"/customers/{made['id']}"))["firstName"] == "Ada"
    assert ok(api.patch(f"/customers/{made['id']}", {"city": "Riga"}))["city"] == "Riga"
    assert api.get("/customers").status_code == 200


def shown(conn: psycopg.Connection, names) -> dict[str, str]:
    return {name: conn.execute(f"SHOW {name}".encode()).fetchone()[0] for name in names}


def test_every_session_of_an_import_has_them(own):
    set_for(own, "ROLE", **HOSTILE)
    sessions = Sessions(own)
    with sessions.job() as job, sessions.lane() as lane, sessions.listener() as listener:
        assert shown(job, PINNED) == shown(listener, PINNED) == PINNED
        assert shown(lane, PINNED | LANE) == PINNED | LANE
        assert job.execute("SELECT 1").fetchone() == (1,)
        # As the API's: the network may be cut without a word.
        assert b"tcp_keepalives" in NOTICE
        given = {option.keyword: option.val for option in lane.pgconn.info}
        assert (given[b"keepalives_idle"], given[b"tcp_user_timeout"]) == (b"5", b"10000")

    async def of_the_pool(pool: Pool) -> dict[str, str]:
        async with pool.connection() as conn:
            cursor = conn.cursor()
            found = {}
            for name in PINNED | SETTINGS:
                found[name] = (await (await cursor.execute(f"SHOW {name}".encode())).fetchone())[0]
            return found

    assert with_pool(own, of_the_pool) == PINNED | SETTINGS


def test_the_schema_of_an_address_is_kept(dsn):
    with connect(f"{dsn}&options=-csearch_path%3Dcrm%2Cpublic") as conn:
        assert shown(conn, ["search_path"]) == {"search_path": "crm, public"}


@pytest.mark.parametrize("scope", ["ROLE", "DATABASE"])
def test_triggers_that_are_off_are_refused_by_name(own, files, run, scope):
    with psycopg.connect(admin_of(own), autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {conninfo_to_dict(own)['user']} SUPERUSER".encode())
    set_for(own, scope, session_replication_role="replica")
    with pytest.raises(TriggersOff, match="session_replication_role is replica"):
        import_customers(files[0], own)
    for command in (["import", str(files[0])], ["jobs", "list"], ["serve"]):
        refused = run(*command, DATABASE_URL=own, PORT=0)
        assert refused.returncode == 1
        assert "session_replication_role is replica" in refused.stderr
    with_pool_refused(own)


def with_pool_refused(dsn: str) -> None:
    from psycopg_pool import PoolTimeout

    async def ask(pool: Pool) -> None:
        await page(pool, limit=1)

    with pytest.raises(PoolTimeout):
        with_pool(dsn, ask)


@pytest.mark.parametrize(
    ("sqlstate", "is_away"),
    [
        ("25006", True),  # a standby
        ("53300", True),  # too many connections
        ("57P03", True),  # it starts
        ("57P05", True),  # idle_session_timeout
        ("25P03", True),  # idle_in_transaction_session_timeout
        ("25P04", True),  # transaction_timeout
        ("53100", False),  # the disk is full
        ("53400", False),  # a limit of temporary files
        ("57014", False),  # cancelled
        ("40P01", False),
    ],
)
def test_what_counts_as_away(sqlstate, is_away):
    assert is_loss(psycopg.errors.lookup(sqlstate)("x")) is is_away
