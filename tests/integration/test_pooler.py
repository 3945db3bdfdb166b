"""Behind a transaction pooler: imports need another address, the API works, and nothing of ours stays
on a session that other clients get next.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from customer_panel.db.connect import connect
from customer_panel.db.session import PINNED
from customer_panel.errors import PoolerInTheWay
from customer_panel.imports import import_customers
from customer_panel.imports.job.sessions import Sessions
from customer_panel.settings import Settings, parse_dsn, without_mark
from support.compare import run as import_file
from support.customers import create_customer, csv
from support.envelope import ok
from support.pooler import needs_pgbouncer, pooled

SESSIONS = 6  # more than the pooler has


@pytest.fixture
def path(tmp_path):
    return csv(tmp_path / "customers.csv", 500, seed=7, duplicates=0.05)


def leftovers(address: str) -> list[dict[str, str]]:
    """What each server process of a pooler has of the settings that we pin, as its next client."""
    names = [name for name in PINNED if name != "client_encoding"]
    found = []
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS // 2):  # each in a transaction, so each has one of its own
            conn = stack.enter_context(psycopg.connect(address))
            asked = [f"current_setting('{name}', true)" for name in names]
            row = conn.execute(f"SELECT {', '.join(asked)}".encode()).fetchone()
            # One of our own is unknown before it is set, and empty after the transaction that set it.
            found.append(dict(zip(names, (value or "" for value in row), strict=True)))
    return found


@needs_pgbouncer
@pytest.mark.parametrize("turns", [0, 1], ids=["the last one", "in turns"])
def test_an_import_through_it_is_refused_with_the_way_out(dsn, path, tmp_path, run, turns):
    with pooled(dsn, tmp_path / "pooler", server_round_robin=turns) as address:
        before = leftovers(address)
        with pytest.raises(PoolerInTheWay):
            import_customers(path, address)
        for command in (["import", str(path)], ["serve"], ["jobs", "list"]):
            refused = run(*command, DATABASE_URL=address, PORT=0)
            assert refused.returncode == 1
            assert "CP_DIRECT_URL" in refused.stderr
        refused = run("import", str(path), DATABASE_URL=dsn, CP_DIRECT_URL=address)
        assert "CP_DIRECT_URL" in refused.stderr
        assert leftovers(address) == before
        assert run("import", str(path), DATABASE_URL=address, CP_DIRECT_URL=dsn).returncode == 0


@needs_pgbouncer
def test_one_that_pools_sessions_will_do(dsn, path, tmp_path):
    with pooled(dsn, tmp_path / "pooler", pool_mode="session", default_pool_size=20) as address:
        assert import_customers(path, address).rows_inserted > 0


@needs_pgbouncer
def test_the_api_works_through_it_and_leaves_nothing_there(dsn, path, tmp_path, serve):
    with pooled(dsn, tmp_path / "pooler") as address:
        before = leftovers(address)
        api = serve(
            DATABASE_URL=f"{address}?pgbouncer=true&connection_limit=5",
            CP_DIRECT_URL=dsn,
            IMPORT_ROOTS=tmp_path,
        )
        with api.stream() as stream:
            assert stream.status == 200
            api.sync(path)
            api.until("COMPLETED")
        made = [create_customer(api) for _ in range(20)]

        def work(number: int) -> None:
            # Often enough that a driver would prepare the statements.
            for turn in range(8):
                customer = made[(number + turn) % len(made)]
                address = f"/customers/{customer['id']}"
                assert (
                    ok(api.patch(address, {"city": f"City {number}"}))["city"] == f"City {number}"
                )
                assert api.get("/customers", limit="5").status_code == 200
                assert api.get("/customers", email=customer["email"]).status_code == 200

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(work, range(6)))
        twice = {"firstName": "Ada", "email": "twice@example.com"}
        first, again = (api.post("/customers", twice, Idempotency_Key="k" * 20) for _ in range(2))
        assert ok(first, 201)["id"] == ok(again, 201)["id"]
        assert api.delete(f"/customers/{made[0]['id']}").status_code == 200
        assert (
            api.post("/customers", {"firstName": "X", "email": made[1]["email"]}).status_code == 409
        )
        assert api.get("/imports").status_code == 200
        assert leftovers(address) == before
        # Another client of the pooler changes a customer: that is an edit.
        with psycopg.connect(address, autocommit=True) as other:
            number = made[2]["id"]
            other.execute("UPDATE customers SET company = 'Acme' WHERE id = %s", [number])
            asked = "SELECT edited_fields & 8 FROM customers WHERE id = %s"
            assert other.execute(asked, [number]).fetchone() == (8,)


def test_no_session_of_an_import_says_that_it_is_one(dsn, tmp_path, monkeypatch):
    """Only its transactions do: a pooler would give the session to somebody else."""
    kept = []
    original = Sessions._open

    def opened(self, *args):
        conn = original(self, *args)
        close = conn.close

        def closing() -> None:
            if not conn.closed and conn.info.transaction_status == 0:
                kept.append(conn.execute("SHOW customer_panel.import").fetchone()[0])
            close()

        conn.close = closing
        return conn

    monkeypatch.setattr(Sessions, "_open", opened)
    how = {"seed": 7, "duplicates": 0.05}
    import_file(csv(tmp_path / "one.csv", 500, **how), dsn, batch_rows=100)
    result = import_file(csv(tmp_path / "two.csv", 500, changed=0.3, **how), dsn, batch_rows=100)
    assert result.rows_updated > 50
    assert len(kept) > 5
    assert set(kept) == {"off"}
    with psycopg.connect(dsn) as conn:
        asked = "SELECT count(*) FROM customers WHERE edited_fields <> 0 OR edit_base IS NOT NULL"
        assert conn.execute(asked).fetchone() == (0,)


# -- an address that says so ---------------------------------------------------------------------


def test_an_address_with_prismas_mark_is_refused_for_imports(dsn, path, run):
    marked = f"{dsn}&pgbouncer=true&connection_limit=5&pool_timeout=3&schema=public"
    with pytest.raises(PoolerInTheWay):
        import_customers(path, marked)
    refused = run("import", str(path), DATABASE_URL=marked)
    assert refused.returncode == 1
    assert "CP_DIRECT_URL" in refused.stderr
    assert run("import", str(path), DATABASE_URL=marked, CP_DIRECT_URL=dsn).returncode == 0
    assert "pgbouncer" not in run("db", "url", DATABASE_URL=marked, CP_DIRECT_URL=dsn).stdout


def test_a_mark_that_says_no_is_none(dsn, path):
    assert import_customers(path, f"{dsn}&pgbouncer=false&connection_limit=5").rows_inserted > 0


@pytest.mark.parametrize(
    ("given", "address", "is_pooler"),
    [
        ("postgresql://h/d?pgbouncer=true", "postgresql://h/d", True),
        ("postgresql://h/d?pgbouncer=true&sslmode=require", "postgresql://h/d?sslmode=require", True),
        ("postgresql://h/d?pgbouncer=false", "postgresql://h/d", False),
        ("postgresql://h/d?schema=crm&pgbouncer=true", "postgresql://h/d?options=-csearch_path%3Dcrm", True),
        ("host=h dbname=d", "host=h dbname=d", False),
    ],
)  # fmt: skip
def test_the_mark_is_read_and_taken_off(given, address, is_pooler):
    assert without_mark(parse_dsn(given)) == (address, is_pooler)
    assert without_mark(Settings.load({"DATABASE_URL": given}, "/nonexistent").database_url) == (
        address,
        is_pooler,
    )


def test_a_direct_connection_is_never_taken_for_a_poolers(dsn):
    with connect(dsn) as one, connect(dsn) as other:
        assert one.info.backend_pid != other.info.backend_pid
