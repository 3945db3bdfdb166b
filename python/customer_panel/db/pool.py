"""The API's connections: a pool that replaces lost ones, and gives out only those that are alive."""

from __future__ import annotations

import contextlib
import select
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

from customer_panel.db.connect import APPLICATION, CONNECT_TIMEOUT_S, AsyncConnection
from customer_panel.sql import statement

if TYPE_CHECKING:
    # Part of the extra `api`; the command line imports this module without it.
    from psycopg_pool import AsyncConnectionPool

Pool: TypeAlias = "AsyncConnectionPool[AsyncConnection]"

SIZE = 8  # a query takes 1 or 2 ms: thousands a second
WAIT_S = 2.0  # for a free connection, or a server that restarts; then 503
# How long the pool tries to reconnect by itself; a request makes it try again. With a longer time
# the pauses between its attempts would grow to minutes.
RECONNECT_S = 1.0

# A network that was cut reports nothing: without these a request would wait for minutes.
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
    """The parameters of the API's connections; run `configure` on each new one."""
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
        async with conn:
            yield conn
    finally:
        await pool.putconn(conn)


def is_quiet(conn: AsyncConnection) -> bool:
    """Whether the server has sent nothing. What it sends to an idle session is, most often, its end.

    Only checks the socket; sends nothing.
    """
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
