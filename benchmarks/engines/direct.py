"""Our server, but with one query from a pool for each look-up: the yardstick for look-ups that share a query."""

from __future__ import annotations

from typing import Any

import psycopg

from customer_panel.cli.main import main
from customer_panel.customers.lookup import Lookup
from customer_panel.db.pool import Pool, connection, make_pool
from customer_panel.sql import statement


class Direct(Lookup):
    """Look-ups one by one."""

    _pool: Pool | None = None

    async def get(self, customer: int) -> Any:
        if self._pool is None:
            self._pool = make_pool(self._dsn)
            await self._pool.open()
        async with connection(self._pool) as conn:
            # The statement's parameter is $1.
            cursor = psycopg.AsyncRawCursor(conn)
            await cursor.execute(statement("look_up_customers"), [[customer]], prepare=True)
            return await cursor.fetchone()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        await super().close()


if __name__ == "__main__":
    Lookup.__new__ = lambda *_: object.__new__(Direct)  # type: ignore[method-assign, assignment]
    main()
