"""The API's connections: a pool that mends itself, and how one that is alive comes out of it."""

from __future__ import annotations

import contextlib
import select
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

from customer_panel.db.connect import APPLICATION, CONNECT_TIMEOUT_S, AsyncConnection
from customer_panel.sql import statement

if TYPE_CHECKING:
    # Part of the extra `api`; the command line, too, reads what this module names.
    from psycopg_pool import AsyncConnectionPool

Pool: TypeAlias = "AsyncConnectionPool[AsyncConnection]"

SIZE = 8  # a query takes a millisecond or two: this is thousands a second
WAIT_S = 2.0  # for a free connection, or a server that comes back; then 503
RECONNECT_S = 1.0  # the pool's own attempts; longer ones back off to minutes, a request asks anew

# A network that was cut says nothing: without these a request would wait for it for minutes.
KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}


def make_pool(dsn: str, *, size: int = SIZE) -> Pool:
    """A pool of autocommit connections, not opened yet: `await pool.open()`."""
    from psycopg_pool import AsyncConnectionPool

    return AsyncConnectionPool(
        dsn,
        connection_class=AsyncConnection,
        min_size=1,
        max_size=size,
        open=False,
        timeout=WAIT_S,
        reconnect_timeout=RECONNECT_S,
        configure=configure,
        kwargs=options(),
    )


def options() -> dict[str, Any]:
    """How the API connects; `configure` belongs to it."""
    return {
        "autocommit": True,
        "application_name": f"{APPLICATION}:api",
        "connect_timeout": CONNECT_TIMEOUT_S,
        **KEEPALIVES,
    }


async def configure(conn: AsyncConnection) -> None:
    """Time limits, UTC, and plans that stay right while a table grows."""
    await conn.execute(statement("configure_session"))


@contextlib.asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[AsyncConnection]:
    """A connection that was alive a moment ago.

    Those that the server closed meanwhile (a restart leaves a pool full of them) are thrown away
    without a request having failed on them. Raises PoolTimeout after WAIT_S.
    """
    while True:
        conn = await pool.getconn()
        if is_quiet(conn):
            break
        await conn.close()
        await pool.putconn(conn)
    try:
        async with conn:
            yield conn
    finally:
        await pool.putconn(conn)


def is_quiet(conn: AsyncConnection) -> bool:
    """Whether the server has nothing to say, which is most often that it ends the session.

    A look at the socket, no question to the server.
    """
    looking = select.poll()
    looking.register(conn.pgconn.socket, select.POLLIN)
    return not looking.poll(0)
