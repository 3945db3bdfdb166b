"""A first load beside what the user has made on the table himself: keys, publications, rules."""

from __future__ import annotations

import re
import threading

import psycopg
import pytest

from customer_panel.errors import NotAllowed, RowRefused
from customer_panel.imports import import_customers
from customer_panel.imports.engine import indexes
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim
from support.compare import run
from support.customers import csv
from support.roles import role
from support.workers import index_count

NEEDS_A_KEY = {
    "a foreign key": 'CREATE TABLE orders (customer_id text COLLATE "C" REFERENCES customers)',
    "a publication": "CREATE PUBLICATION p FOR TABLE customers",
    "a publication of all": "CREATE PUBLICATION p FOR ALL TABLES",
    "a publication of a schema": "CREATE PUBLICATION p FOR TABLES IN SCHEMA public",
    "a view": "CREATE VIEW v AS SELECT customer_id, city FROM customers GROUP BY customer_id",
    "the replica identity": "ALTER TABLE customers REPLICA IDENTITY USING INDEX customers_pkey",
    "CLUSTER": "ALTER TABLE customers CLUSTER ON customers_email_idx",
    "a comment": "COMMENT ON INDEX customers_email_idx IS 'for the shop'",
    "storage": "ALTER INDEX customers_email_idx SET (fillfactor = 70)",
    "an event trigger": """CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no DDL here'; END $$;
        CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION no()""",
}


@pytest.fixture
def path(tmp_path):
    return csv(tmp_path / "customers.csv", 1000, seed=7, duplicates=0.05)


def indexes_of(database) -> list[tuple]:
    return database.execute(
        "SELECT indexrelid, indisvalid, indisprimary, indisreplident, indisclustered FROM pg_index"
        " WHERE indrelid = 'customers'::regclass ORDER BY 1"
    ).fetchall()


@pytest.mark.parametrize("what", NEEDS_A_KEY)
def test_keys_stay_where_something_needs_them(dsn, database, path, what):
    database.execute(NEEDS_A_KEY[what])
    before = indexes_of(database)
    result = run(path, dsn, batch_rows=100)
    assert result.status == "COMPLETED"
    assert result.rows_inserted > 900
    assert indexes_of(database) == before
    assert database.execute("SELECT keys_deferred FROM imports").fetchone() == (False,)
    database.execute("DROP EVENT TRIGGER IF EXISTS no")


def test_without_such_things_they_are_built_afterwards(dsn, database, path):
    before = indexes_of(database)
    run(path, dsn)
    assert database.execute("SELECT keys_deferred FROM imports").fetchone() == (True,)
    assert len(indexes_of(database)) == len(before)
    assert indexes_of(database) != before


def test_a_publishing_user_can_update_while_it_runs(dsn, database, path, monkeypatch):
    database.execute("CREATE PUBLICATION p FOR TABLE customers")
    database.execute("INSERT INTO customers (customer_id) VALUES ('mine'), ('deleted')")
    database.execute("DELETE FROM customers WHERE customer_id = 'deleted'")
    updated = []

    def on_progress(_) -> None:
        with psycopg.connect(dsn, autocommit=True) as user:
            updated.append(user.execute("UPDATE customers SET city = 'Riga'").rowcount)

    run(path, dsn, batch_rows=100, on_progress=on_progress)
    assert updated


def test_who_does_not_own_the_table_imports_with_live_keys(dsn, database, path):
    before = indexes_of(database)
    with role(dsn, owns=False) as own:
        user = re.search("//(.*?)@", own)[1]
        database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}")
        database.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {user}")
        assert run(path, own).rows_inserted > 900
        assert indexes_of(database) == before
        # Keys that somebody has dropped it cannot build, and says so.
        database.execute("ALTER TABLE customers DROP CONSTRAINT customers_pkey")
        other = csv(path.with_name("other.csv"), 100, seed=8)
        with pytest.raises(NotAllowed, match="must be owner of table customers"):
            run(other, own)
    assert run(other, dsn).status == "COMPLETED"
    assert index_count(dsn) == 3


def test_who_may_not_write_is_told_so(dsn, database, path):
    with role(dsn, owns=False) as own:
        user = re.search("//(.*?)@", own)[1]
        database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        with pytest.raises(NotAllowed, match="permission denied"):
            run(path, own)


RULES = {
    "unique": ("ALTER TABLE customers ADD CONSTRAINT one_city UNIQUE (city)", "one_city"),
    "check": ("ALTER TABLE customers ADD CONSTRAINT short CHECK (length(city) < 3)", "short"),
    "not null": ("ALTER TABLE customers ALTER website SET NOT NULL", "website"),
    "trigger": (
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not %', NEW.customer_id; END $$;
        CREATE TRIGGER no BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION no()""",
        "trigger",
    ),
    "type": ("ALTER TABLE customers ALTER city TYPE varchar(2)", "type of a column"),
}


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_of_the_user_refuses_rows_by_name_and_shows_none(dsn, database, tmp_path, kind):
    rule, name = RULES[kind]
    database.execute(rule)
    path = tmp_path / "customers.csv"
    path.write_text(
        "Customer Id,City,Website\n" + "".join(f"secret-{n},Springfield,\n" for n in range(50))
    )
    with pytest.raises(RowRefused, match=name) as refused:
        import_customers(path, dsn)
    assert refused.value.__cause__ is None
    (error,) = database.execute("SELECT error FROM imports").fetchone()
    for text in (refused.value.message, error):
        assert "secret" not in text
        assert "Springfield" not in text


ACTIVE = """SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'customer-panel:import lane' AND state = 'active' AND datname = current_database()"""

# -- building --------------------------------------------------------------------------------------


@pytest.fixture
def deferred(dsn, database) -> Claim:
    """A claimed first load whose indexes are still to be built."""
    database.execute("ALTER TABLE customers DROP CONSTRAINT customers_pkey")
    database.execute("DROP INDEX customers_email_idx")
    database.execute("INSERT INTO sources (name) VALUES ('main')")
    database.execute(
        "INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,"
        " header_lines, rules_version, options, epoch)"
        " VALUES (1, 'RUNNING', 'indexing', ',', '{}', '[]', 0, 1, 1, '{}', 1)"
    )
    return Claim(1, 1, 1, 0)


def test_builders_are_joined_when_their_watch_is_lost(dsn, database, deferred, monkeypatch):
    begun = threading.enumerate()

    def lost(*_):
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(indexes, "_watch", lost)
    # A reader's lock: the builds wait for it, and would wait on.
    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
        with pytest.raises(psycopg.OperationalError):
            indexes.build(Sessions(dsn).lane, deferred, lambda *_: None)
        assert threading.enumerate() == begun
        assert database.execute(ACTIVE).fetchone() == (0,)


def test_an_index_is_dropped_by_the_owner_of_the_claim_only(dsn, database, deferred):
    """One that is not valid may be the build of the runner that has the claim now."""
    database.execute("INSERT INTO customers (customer_id, import_id) VALUES ('a', 1), ('a', 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY customers_pkey ON customers (customer_id)"
        )
    database.execute("UPDATE imports SET epoch = 2")
    with pytest.raises(indexes.ledger.ClaimLost):
        indexes.build(Sessions(dsn).lane, deferred, lambda *_: None)
    assert database.execute("SELECT to_regclass('customers_pkey') IS NOT NULL").fetchone() == (
        True,
    )


def test_a_build_that_lost_the_claim_cleans_nothing_up(dsn, database, deferred, monkeypatch):
    database.execute("INSERT INTO customers (customer_id, import_id) VALUES ('a', 1), ('a', 1)")
    monkeypatch.setattr(indexes, "_build_together", lambda *_: False)
    beside = indexes._build_beside_others

    def taken_over(connect, claim, name):
        try:
            beside(connect, claim, name)
        finally:
            if name == indexes.KEY:
                database.execute("UPDATE imports SET epoch = 2")

    monkeypatch.setattr(indexes, "_build_beside_others", taken_over)
    with pytest.raises(indexes.ledger.ClaimLost):
        indexes.build(Sessions(dsn).lane, deferred, lambda *_: None)
    assert database.execute("SELECT to_regclass('customers_pkey') IS NOT NULL").fetchone() == (
        True,
    )
