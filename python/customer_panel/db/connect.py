"""Connections for one caller at a time: the command line, the import's lanes, scripts.

The API has its own pool. Here nothing is shared and nothing outlives its `with`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from customer_panel.db.migrate import migrate
from customer_panel.errors import DatabaseUnreachable, ServerTooOld
from customer_panel.settings import Settings, redacted

APPLICATION = "customer-panel"  # what pg_stat_activity shows; parts of it append ":lane 1" and such
SERVER_VERSION = 180000  # RETURNING old.*, which the merge is built on
CONNECT_TIMEOUT_S = 10  # libpq alone would wait for minutes on an address that swallows packets


def connect(
    dsn: str,
    *,
    part: str = "",
    autocommit: bool = False,
    needed: int = SERVER_VERSION,
    **options: Any,
) -> psycopg.Connection[tuple[Any, ...]]:
    """An open connection to a server that is new enough.

    Raises DatabaseUnreachable, or ServerTooOld with the server's version.
    """
    options.setdefault("application_name", f"{APPLICATION}:{part}" if part else APPLICATION)
    options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    try:
        connection = psycopg.connect(dsn, autocommit=autocommit, **options)
    except psycopg.OperationalError as wrong:
        raise DatabaseUnreachable(
            f"the database cannot be reached: {redacted(_first_line(wrong))}"
        ) from None
    except psycopg.ProgrammingError as wrong:
        raise DatabaseUnreachable(
            f"DATABASE_URL cannot be used: {redacted(_first_line(wrong))}"
        ) from None
    version = connection.info.server_version
    if version < needed:
        connection.close()
        raise ServerTooOld(
            f"the server is PostgreSQL {version // 10000}.{version % 10000}; "
            f"PostgreSQL {needed // 10000} or newer is required"
        )
    return connection


@contextlib.contextmanager
def database(settings: Settings, *, with_schema: bool = True) -> Iterator[str]:
    """The connection string of the database to work on, its schema up to date.

    CP_DIRECT_URL, else DATABASE_URL, else the embedded server, which is given back at the end:
    close your connections before. Raises DatabaseError; which subclass says what to do.
    """
    dsn = settings.direct_url or settings.database_url
    if dsn is not None:
        if with_schema:
            migrate(dsn)
        yield dsn
        return
    # Not needed, nor its platform, by those who have a server of their own.
    from customer_panel.db import embedded

    server = embedded.ensure_running(settings.home, settings.pg_bin)
    try:
        if with_schema:
            migrate(server.dsn)
        yield server.dsn
    finally:
        embedded.release(server)


def _first_line(wrong: Exception) -> str:
    return (str(wrong).strip().splitlines() or [type(wrong).__name__])[0]
