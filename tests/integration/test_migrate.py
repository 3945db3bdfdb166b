"""Migrations: each once, whole or not at all, whoever else is at it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.db import embedded
from customer_panel.db.connect import connect
from customer_panel.db.database import database
from customer_panel.db.migrate import FOLDER, LOCK, Migration, applied, known, migrate, rollback
from customer_panel.errors import (
    DatabaseUnreachable,
    MigrationFailed,
    SchemaTooNew,
    ServerTooOld,
)
from customer_panel.settings import Settings
from support.databases import named

FIRST = """-- migrate:up
CREATE TABLE first (n int);
INSERT INTO first VALUES (1);
-- migrate:down
DROP TABLE first;
"""
INDEX = """-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY first_n ON first (n);
-- migrate:down transaction:false
DROP INDEX CONCURRENTLY first_n;
"""
BROKEN = """-- migrate:up
CREATE TABLE half (n int);
SELECT 1 / 0;
-- migrate:down
"""
PERCENT = """-- migrate:up
CREATE VIEW v AS SELECT 'a%sb' LIKE 'a%' AS yes;
-- migrate:down
DROP VIEW v;
"""
WAITERS = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = 'customer-panel:migrate'
   AND datname = current_database() AND query LIKE '%advisory%'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "20260101000000_first.sql").write_text(FIRST)
    (tmp_path / "20260102000000_index.sql").write_text(INDEX)
    (tmp_path / "schema.sql").write_text("this is not a migration")
    return tmp_path


def value(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def test_missing_ones_are_applied_in_order_and_once(empty_dsn: str, folder: Path) -> None:
    assert migrate(empty_dsn, folder) == ["20260101000000", "20260102000000"]
    assert migrate(empty_dsn, folder) == []
    assert value(empty_dsn, "SELECT count(*) FROM first") == 1
    assert value(empty_dsn, "SELECT to_regclass('first_n')::text") == "first_n"


def test_up_to_date_costs_milliseconds(dsn: str) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert migrate(dsn) == []
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05  # 5 ms on an idle machine


def test_two_at_once_do_it_once(empty_dsn: str, folder: Path) -> None:
    done: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: done.append(migrate(empty_dsn, folder))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [[], [], [], ["20260101000000", "20260102000000"]]
    assert value(empty_dsn, "SELECT count(*) FROM first") == 1


def test_waiting_for_the_lock_does_not_block_a_concurrent_index(
    empty_dsn: str, folder: Path
) -> None:
    """A blocking wait would deadlock with the holder's CREATE INDEX CONCURRENTLY."""
    with psycopg.connect(empty_dsn, autocommit=True) as holder:
        holder.execute("CREATE TABLE busy (n int)")
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        waiter = threading.Thread(target=migrate, args=(empty_dsn, folder))
        waiter.start()
        while not value(empty_dsn, WAITERS):
            pass
        holder.execute("SET statement_timeout = '20s'")
        holder.execute("CREATE INDEX CONCURRENTLY busy_n ON busy (n)")
        assert waiter.is_alive()
        holder.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        waiter.join()
    assert value(empty_dsn, "SELECT count(*) FROM first") == 1


def test_failing_one_leaves_no_trace_and_those_before_it_stay(empty_dsn: str, folder: Path) -> None:
    path = folder / "20260103000000_broken.sql"
    path.write_text(BROKEN)
    with pytest.raises(MigrationFailed, match=r"20260103000000_broken\.sql: division by zero"):
        migrate(empty_dsn, folder)
    assert value(empty_dsn, "SELECT to_regclass('half')") is None
    path.write_text(BROKEN.replace("/ 0", "/ 1"))
    assert migrate(empty_dsn, folder) == ["20260103000000"]


def test_database_of_a_newer_version_is_refused(empty_dsn: str, folder: Path) -> None:
    migrate(empty_dsn, folder)
    (folder / "20260102000000_index.sql").unlink()
    with pytest.raises(SchemaTooNew, match="20260102000000"):
        migrate(empty_dsn, folder)


def test_older_migration_that_came_later_is_still_applied(empty_dsn: str, folder: Path) -> None:
    migrate(empty_dsn, folder)
    (folder / "20260101120000_between.sql").write_text(FIRST.replace("first", "between_them"))
    assert migrate(empty_dsn, folder) == ["20260101120000"]


def test_file_without_an_up_half_is_named(empty_dsn: str, folder: Path) -> None:
    (folder / "20260104000000_empty.sql").write_text("CREATE TABLE x (n int);")
    with pytest.raises(MigrationFailed, match="20260104000000_empty"):
        migrate(empty_dsn, folder)


def test_percent_signs_are_left_alone(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_v.sql").write_text(PERCENT)
    migrate(empty_dsn, tmp_path)
    assert value(empty_dsn, "SELECT yes FROM v") is True


def test_own_migrations_can_be_undone_and_done_again(empty_dsn: str) -> None:
    versions = [migration.version for migration in known()]
    assert migrate(empty_dsn) == versions
    assert [rollback(empty_dsn) for _ in versions] == versions[::-1]
    assert rollback(empty_dsn) is None
    tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'"
    assert value(empty_dsn, tables) == "schema_migrations"
    assert migrate(empty_dsn) == versions


def test_own_migrations_are_in_the_package_and_well_formed() -> None:
    assert known(), FOLDER
    for migration in known():
        assert len(migration.version) == 14
        for direction in ("up", "down"):
            assert isinstance(migration, Migration)
            assert migration.half(direction).statements


def test_applied_is_empty_for_a_fresh_database(empty_dsn: str) -> None:
    with connect(empty_dsn, autocommit=True) as connection:
        assert applied(connection) == set()


def test_older_server_is_refused_with_its_version(empty_dsn: str) -> None:
    """No PostgreSQL 17 here: the demand is raised instead of the server lowered."""
    with pytest.raises(ServerTooOld, match=r"the server is PostgreSQL 18\.\d+; PostgreSQL 99"):
        connect(empty_dsn, needed=990000)


def test_unreachable_server_is_an_error_without_the_password() -> None:
    with pytest.raises(DatabaseUnreachable) as caught:
        connect("postgresql://me:secret@localhost:1/x")
    assert "secret" not in str(caught.value)
    with pytest.raises(DatabaseUnreachable) as caught:
        connect("postgresql://me:secret@localhost:1/x?nonsense=1")
    assert "secret" not in str(caught.value)


def test_database_prefers_the_direct_address(dsn: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://nobody@localhost:1/x", "CP_DIRECT_URL": dsn}
    with database(Settings.load(env, tmp_path / ".env")) as found:
        assert found == dsn


def test_database_without_url_is_the_embedded_one_and_is_given_back(home: Path) -> None:
    settings = Settings.load({"CP_HOME": str(home)}, home / ".env")
    with database(settings) as dsn:
        assert value(dsn, "SELECT count(*) FROM customers") == 0
        assert embedded.status(home).dsn == dsn
    assert embedded.status(home).dsn is None


def test_embedded_server_is_given_back_after_a_failure(home: Path) -> None:
    settings = Settings.load({"CP_HOME": str(home)}, home / ".env")
    with pytest.raises(RuntimeError), database(settings):
        raise RuntimeError
    assert embedded.status(home).dsn is None


def test_template_databases_do_not_share_rows(
    server: embedded.Server, dsn: str, template: str
) -> None:
    assert dsn != named(server.dsn, template)
    assert value(dsn, "SELECT count(*) FROM schema_migrations") == len(known())
