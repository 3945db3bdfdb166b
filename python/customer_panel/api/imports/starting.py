"""How an import starts: exactly once for requests with one key, and not beside another one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg

from customer_panel.api.http import idempotency
from customer_panel.api.http.errors import unavailable
from customer_panel.api.imports.shapes import StartImport
from customer_panel.api.state import AppState
from customer_panel.db.pool import connection
from customer_panel.errors import AlreadyRunning, Stopped
from customer_panel.imports.queries import jobs

LOOK_S = 0.05  # between two looks at what an answer waits for
CLAIM_S = 30.0  # for the worker to claim an import; another session may have locked the whole table
BUSY_S = 5.0  # for a worker that is just ending an import, or starting one
SAME_KEY_S = 0.5  # for a running import to turn out to be that of a simultaneous request


async def start(
    state: AppState, path: str, wanted: StartImport, key: idempotency.Key | None
) -> int:
    """The number of the import, as soon as it has begun. For a request that was made before, or is
    made at the same moment, with the same key: the number of that one's import.

    Raises AlreadyRunning, ApiError 409 and 503, and what the file is refused for.
    """
    is_stored = False

    def on_created(conn: psycopg.Connection[Any], import_id: int) -> None:
        nonlocal is_stored
        if key is not None:
            idempotency.take(conn, key, import_id)
            is_stored = True

    try:
        import_id = await claim(
            state,
            path,
            key,
            is_strict=wanted.strict,
            is_forced=wanted.force,
            batch_rows=wanted.batch_size,
            progress_every_ms=wanted.progress_update_every_ms,
            on_created=on_created,
        )
    except idempotency.Repeated as earlier:
        return earlier.created_id
    if key is not None and not is_stored:
        # An interrupted import was continued: it was created earlier, with another key or none.
        async with connection(state.pool) as conn, conn.transaction():
            if await idempotency.first(conn, key) is None:
                await idempotency.keep(conn, key, import_id)
    return import_id


async def claim(
    state: AppState, path: str, key: idempotency.Key | None = None, **wanted: Any
) -> int:
    """The number of the import, as soon as the worker has begun it; with a key that was used before,
    the number of that import.

    Raises AlreadyRunning, Interrupted, Overtaken, ApiError 409 and 503, and what the file is refused for.
    """
    began = time.monotonic()
    while True:
        # Read before the database: if no import runs there, this one has just ended, and the worker
        # will be free in a moment.
        busy_with = state.worker.running
        async with connection(state.pool) as conn:
            is_running = await jobs.is_running(conn)
            # Read after it: an import and its key are committed together.
            earlier = await idempotency.find(conn, key) if key else None
        if earlier is not None:
            return earlier
        patience_s = BUSY_S
        if is_running:
            patience_s = SAME_KEY_S if key else 0
        elif busy_with is None:
            try:
                async with asyncio.timeout(CLAIM_S):
                    return await asyncio.wrap_future(state.worker.submit(path, **wanted))
            except AlreadyRunning:
                patience_s = BUSY_S if key else 0
            except Stopped:
                raise unavailable("The server is shutting down; try again") from None
            except TimeoutError:
                if (running := state.worker.running) is not None:
                    return running  # it still compares its file with what earlier runs read
                raise unavailable("The import waits for the database; see the list") from None
        if time.monotonic() - began >= patience_s:
            raise AlreadyRunning
        await asyncio.sleep(LOOK_S)
