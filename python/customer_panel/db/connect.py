"""Connections for one caller at a time: the command line, the import's lanes, scripts.

The API has its own pool. Here nothing is shared and nothing outlives its `with`. What an error of
the driver means is decided here too, once for all callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from customer_panel.db.session import is_shared, pins, probe, probe_async
from customer_panel.errors import (
    DatabaseLost,
    DatabaseUnreachable,
    DiskFull,
    PoolerInTheWay,
    ServerTooOld,
)
from customer_panel.redaction import redacted

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

APPLICATION = "customer-panel"  # in pg_stat_activity, with the part that connects: ":import lane"
SERVER_VERSION = 180000  # RETURNING old.*, which the merge needs
CONNECT_TIMEOUT_S = 10  # libpq alone would wait for minutes if no packet is answered
ATTEMPTS = 3  # a time limit of a few milliseconds may run out before ours is set
# A network that was cut reports nothing: without these a query would wait for minutes.
KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}
# SQLSTATEs (PostgreSQL manual, appendix A). Classes: connection exceptions; a server that shuts down
# or is not ready yet.
LOST_CLASSES = ("08", "57P")
# The server is a standby; it ended the session for a time limit; it has too many connections.
AWAY = ("25006", "25P03", "25P04", "53300")


def connect(
    dsn: str,
    *,
    part: str = "",
    autocommit: bool = False,
    needed: int = SERVER_VERSION,
    settings: Mapping[str, str] | None = None,
    writes: bool = False,
    on_open: Callable[[Connection], None] = lambda _: None,
) -> Connection:
    """A session of a server that is new enough, with our settings (session.py) and `settings`.

    writes: a standby will not do. on_open: gets the session before its first statement.
    Raises DatabaseUnreachable, ServerTooOld with the server's version, PoolerInTheWay, TriggersOff.
    """
    for attempt in range(1, ATTEMPTS + 1):
        connection = _connect(dsn, part)
        try:
            on_open(connection)
            _check(connection, needed, writes=writes, another=lambda: _connect(dsn, part))
            connection.execute(pins(settings or {}, connection.info.options))
            connection.autocommit = autocommit
        except psycopg.OperationalError as error:
            connection.close()
            if attempt == ATTEMPTS:
                raise _unreachable(error) from None
        except BaseException:
            connection.close()
            raise
        else:
            break
    return connection


def _check(
    connection: Connection, needed: int, *, writes: bool, another: Callable[[], Connection]
) -> None:
    version = connection.info.server_version
    if version < needed:
        raise ServerTooOld(
            f"the server is PostgreSQL {version // 10000}.{version % 10000}; "
            f"PostgreSQL {needed // 10000} or newer is required"
        )
    server = probe(connection)
    if writes and server.is_standby:
        raise DatabaseUnreachable(
            "the server is a standby, which takes no changes",
            hint="Give the address of the primary server, or wait until this one is it.",
        )
    # A pooler has no process of its own to name, so it makes a number up.
    if server.process != connection.info.backend_pid:
        with another() as other:
            if is_shared(connection, other):
                raise PoolerInTheWay


def _connect(dsn: str, part: str) -> Connection:
    try:
        return psycopg.connect(dsn, autocommit=True, **parameters(part))
    except psycopg.OperationalError as error:
        raise _unreachable(error) from None
    except psycopg.ProgrammingError as error:
        raise DatabaseUnreachable(
            f"DATABASE_URL cannot be used: {redacted(first_line(error))}"
        ) from None


def _unreachable(error: psycopg.Error) -> DatabaseUnreachable:
    return DatabaseUnreachable(f"the database cannot be reached: {redacted(first_line(error))}")


async def connect_async(
    dsn: str,
    *,
    part: str,
    settings: Mapping[str, str] | None = None,
    connect_timeout: int = CONNECT_TIMEOUT_S,
) -> AsyncConnection:
    """As `connect`, an autocommit session. Raises psycopg.Error, TriggersOff."""
    limits = parameters(part) | {"connect_timeout": connect_timeout}
    for attempt in range(1, ATTEMPTS + 1):
        connection = await AsyncConnection.connect(dsn, autocommit=True, **limits)
        try:
            await probe_async(connection)
            await connection.execute(pins(settings or {}, connection.info.options))
        except BaseException as error:
            await connection.close()
            if attempt == ATTEMPTS or not isinstance(error, psycopg.OperationalError):
                raise
        else:
            break
    return connection


def parameters(part: str) -> dict[str, Any]:
    """The parameters of every connection of ours."""
    return {
        "application_name": f"{APPLICATION}:{part}" if part else APPLICATION,
        "connect_timeout": CONNECT_TIMEOUT_S,
        **KEEPALIVES,
    }


def is_loss(error: BaseException) -> bool:
    """Whether the server or the connection is away, so that a later attempt can succeed."""
    if isinstance(error, DatabaseUnreachable | DatabaseLost | psycopg.InterfaceError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate in AWAY:
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
