"""Connections for one caller at a time: the command line, the import's lanes, scripts.

The API has its own pool. Here nothing is shared and nothing outlives its `with`. What an error of
the driver means is decided here too, once for all callers.
"""

from __future__ import annotations

from typing import Any

import psycopg

from customer_panel.errors import DatabaseUnreachable, DiskFull, ServerTooOld
from customer_panel.redaction import redacted

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

APPLICATION = "customer-panel"  # in pg_stat_activity, with the part that connects: ":import lane"
SERVER_VERSION = 180000  # RETURNING old.*, which the merge needs
CONNECT_TIMEOUT_S = 10  # libpq alone would wait for minutes if no packet is answered
# SQLSTATE classes (PostgreSQL manual, appendix A): connection exceptions; a server that shuts down
# or is not ready yet.
LOST_CLASSES = ("08", "57P")


def connect(
    dsn: str,
    *,
    part: str = "",
    autocommit: bool = False,
    needed: int = SERVER_VERSION,
    **options: Any,
) -> Connection:
    """An open connection to a server that is new enough.

    Raises DatabaseUnreachable, or ServerTooOld with the server's version.
    """
    options.setdefault("application_name", f"{APPLICATION}:{part}" if part else APPLICATION)
    options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    try:
        connection = psycopg.connect(dsn, autocommit=autocommit, **options)
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(
            f"the database cannot be reached: {redacted(first_line(error))}"
        ) from None
    except psycopg.ProgrammingError as error:
        raise DatabaseUnreachable(
            f"DATABASE_URL cannot be used: {redacted(first_line(error))}"
        ) from None
    version = connection.info.server_version
    if version < needed:
        connection.close()
        raise ServerTooOld(
            f"the server is PostgreSQL {version // 10000}.{version % 10000}; "
            f"PostgreSQL {needed // 10000} or newer is required"
        )
    return connection


def is_loss(error: BaseException) -> bool:
    """Whether the server or the connection was lost, so that a later attempt can succeed."""
    if isinstance(error, DatabaseUnreachable | psycopg.InterfaceError):
        return True
    # No SQLSTATE: the connection broke before the server could answer.
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(LOST_CLASSES)
    )


def disk_full(error: BaseException) -> DiskFull | None:
    """The error to raise if the disk of the server is full; None for any other `error`."""
    if not isinstance(error, psycopg.errors.DiskFull):
        return None
    reason = error.diag.message_primary or first_line(error)
    return DiskFull(f"the disk of the database is full: {reason}")


def first_line(error: Exception) -> str:
    """The first line of the driver's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
