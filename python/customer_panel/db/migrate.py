"""Brings the schema up to date: the files of `migrations/`, in dbmate's format, each once.

A file is named `yyyymmddhhmmss_name.sql`; `-- migrate:up` and `-- migrate:down` begin its two
halves. Each runs in one transaction with its line in `schema_migrations`, unless the mark says
`transaction:false`: such a half must be one statement (CREATE INDEX CONCURRENTLY, say).
dbmate itself can therefore be used on the same database.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg

from customer_panel.db.connect import Connection, connect, disk_full, first_line, is_loss
from customer_panel.errors import DatabaseError, DatabaseUnreachable, MigrationFailed, SchemaTooNew

FOLDER = Path(__file__).parent.parent / "migrations"
LOCK = 0x63705F6D69677261  # "cp_migra"; any number that no other program locks
POLL_S = 0.05
PATIENCE_S = 600.0  # another process may be building an index

logger = logging.getLogger("customer_panel.db")


class Half(NamedTuple):
    """The up or the down part of a file."""

    statements: str
    in_transaction: bool


class Migration(NamedTuple):
    version: str
    path: Path

    def half(self, direction: str) -> Half:
        """Raises MigrationFailed when the file has no such half."""
        text = self.path.read_text(encoding="utf-8")
        marks = re.split(r"^--\s*migrate:(up|down)\b([^\n]*)$", text, flags=re.M)
        for name, options, body in zip(marks[1::3], marks[2::3], marks[3::3], strict=True):
            if name == direction:
                return Half(body.strip(), not re.search(r"\btransaction\s*:\s*false\b", options))
        raise MigrationFailed(f"{self.path.name} has no `-- migrate:{direction}`")


def known(folder: Path = FOLDER) -> list[Migration]:
    """Every migration of `folder`, oldest first."""
    return [
        Migration(path.name.partition("_")[0], path) for path in sorted(folder.glob("[0-9]*_*.sql"))
    ]


def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Applies what is missing and returns its versions; of two callers at once, one applies it.

    Raises SchemaTooNew before it changes anything, MigrationFailed for a statement that fails
    (nothing of its file remains), ServerTooOld and DatabaseUnreachable as `connect` does.
    """
    migrations = known(folder)
    with connect(dsn, part="migrate", autocommit=True) as connection:
        if not pending(connection, migrations):
            return []
        connection.add_notice_handler(_report)
        _lock(connection)
        try:
            # Another process may have applied it while we waited for the lock.
            missing = pending(connection, migrations)
            for migration in missing:
                _apply(connection, migration)
        finally:
            if not connection.closed:
                connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    return [migration.version for migration in missing]


def rollback(dsn: str, folder: Path = FOLDER) -> str | None:
    """Undoes the newest applied migration and returns its version; None if there is none."""
    with connect(dsn, part="migrate", autocommit=True) as connection:
        _lock(connection)
        done = applied(connection)
        newest = next((m for m in reversed(known(folder)) if m.version in done), None)
        if newest is not None:
            _run(connection, newest, "down", "DELETE FROM schema_migrations WHERE version = %s")
    return newest.version if newest else None


def pending(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """The migrations that the database lacks. Raises SchemaTooNew if it has a newer one."""
    done = applied(connection)
    newest = migrations[-1].version if migrations else ""
    unknown = sorted(version for version in done if version > newest)
    if unknown:
        raise SchemaTooNew(
            f"the database has migration {unknown[-1]}; "
            f"this version of Customer Panel knows them up to {newest}"
        )
    return [migration for migration in migrations if migration.version not in done]


def applied(connection: Connection) -> set[str]:
    try:
        rows = connection.execute("SELECT version FROM schema_migrations").fetchall()
    except psycopg.errors.UndefinedTable:
        return set()
    return {row[0] for row in rows}


def _apply(connection: Connection, migration: Migration) -> None:
    # As dbmate creates it.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar(128) PRIMARY KEY)"
    )
    _run(connection, migration, "up", "INSERT INTO schema_migrations (version) VALUES (%s)")


def _run(connection: Connection, migration: Migration, direction: str, record: str) -> None:
    half = migration.half(direction)
    statements = half.statements.encode()  # run without parameters, so a % stays a %
    try:
        if half.in_transaction:
            with connection.transaction():
                connection.execute(statements)
                connection.execute(record.encode(), (migration.version,))
        else:
            connection.execute(statements)
            connection.execute(record.encode(), (migration.version,))
    except psycopg.Error as error:
        if full := disk_full(error):
            raise full from None
        if is_loss(error):
            raise DatabaseUnreachable(
                f"the database was lost during a migration: {first_line(error)}"
            ) from error
        raise MigrationFailed(f"{migration.path.name}: {error}") from error


def _report(said: psycopg.errors.Diagnostic) -> None:
    """Logs what a migration warns of: rows that it had to leave as they were."""
    if said.severity_nonlocalized == "WARNING":
        logger.warning("%s (%s)", said.message_primary, said.message_hint)


def _lock(connection: Connection) -> None:
    """Polls for the lock. A session that waits for it would hold a snapshot, and CREATE INDEX
    CONCURRENTLY in the session that has the lock would wait for that snapshot: a deadlock."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"another process has been migrating this database for {PATIENCE_S:.0f} s",
                hint="Look at pg_stat_activity for what it does; then run the command again.",
            )
        time.sleep(POLL_S)
