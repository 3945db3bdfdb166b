"""The API's connections: a pool that replaces lost ones, and gives out only those that are alive."""

from __future__ import annotations

import contextlib
import select
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg

from customer_panel.db.connect import AsyncConnection, parameters
from customer_panel.db.session import pins, probe_async

if TYPE_CHECKING:
    # Part of the extra `api`; the command line imports this module without it.
    from psycopg_pool import AsyncConnectionPool

Pool: TypeAlias = "AsyncConnectionPool[PoolConnection]"

SIZE = 8  # a query takes 1 or 2 ms: thousands a second
WAIT_S = 2.0  # for a free connection, or a server that restarts; then 503
# How long the pool tries to reconnect by itself; a request makes it try again. With a longer time
# the pauses between its attempts would grow to minutes.
RECONNECT_S = 1.0

# The settings of the API's sessions, besides those of all. Prepared plans are kept: one that was made
# while the table was empty is still used when it is large. Without sequential scans it is right for
# both. The time limits are shorter than those of most clients.
SETTINGS = {"enable_seqscan": "off", "lock_timeout": "5s", "statement_timeout": "15s"}


class PoolConnection(psycopg.AsyncConnection[Any]):
    """A connection of the pool. Behind a transaction pooler nothing of a session stays, and what a
    client sets would reach others: there `opening` begins each transaction, and it is None elsewhere.
    """

    opening: bytes | None = None


def make_pool(dsn: str, *, size: int = SIZE) -> Pool:
    """A pool of autocommit connections, not opened yet: `await pool.open()`."""
    from psycopg_pool import AsyncConnectionPool

    return AsyncConnectionPool(
        dsn,
        connection_class=PoolConnection,
        min_size=1,
        max_size=size,
        open=False,
        timeout=WAIT_S,
        reconnect_timeout=RECONNECT_S,
        configure=configure,
        kwargs={"autocommit": True, **parameters("api")},
    )


async def configure(conn: PoolConnection) -> None:
    """Pins the settings of a new connection. Raises TriggersOff."""
    server = await probe_async(conn)
    options = conn.info.options
    if server.process == conn.info.backend_pid:
        await conn.execute(pins(SETTINGS, options))
    else:
        conn.opening = pins(SETTINGS, options, is_local=True)
        # Those of a transaction are decided when it begins.
        await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        await conn.set_read_only(False)
        await conn.set_deferrable(False)
        # The next statement may go to another server process, which has not prepared it.
        conn.prepare_threshold = None


@contextlib.asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[AsyncConnection]:
    """A connection that was alive a moment ago. Behind a transaction pooler all is one transaction.

    Those that the server has closed (all of the pool, after a restart) are discarded before a
    request fails on them. Raises PoolTimeout after WAIT_S.
    """
    while True:
        conn = await pool.getconn()
        if is_quiet(conn):
            break
        await conn.close()
        await pool.putconn(conn)
    try:
        async with conn, _opened(conn):
            yield conn
    finally:
        await pool.putconn(conn)


@contextlib.asynccontextmanager
async def _opened(conn: PoolConnection) -> AsyncIterator[None]:
    if conn.opening is None:
        yield
        return
    async with conn.transaction():
        await conn.execute(conn.opening)
        yield


def is_quiet(conn: AsyncConnection) -> bool:
    """Whether the server has sent nothing. What it sends to an idle session is, most often, its end.

    Only checks the socket; sends nothing.
    """
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
