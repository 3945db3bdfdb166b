"""The list of imports, page by page, and requests to pause or cancel them.

Async, for the API; the command line runs it in an event loop of its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from customer_panel.db.connect import AsyncConnection
from customer_panel.db.query import Row, first_async, rows_async
from customer_panel.errors import NoSuchImport
from customer_panel.imports.model import RUNNER_LOCK
from customer_panel.imports.queries.snapshot import ImportSnapshot, snapshot_of
from customer_panel.states import WAITING, Status

LARGEST = (1 << 63) - 1  # what a bigint holds
Requested = Literal["PAUSED", "CANCELLED"]


class Job(NamedTuple):
    """An import, and the request to it that is not done yet."""

    snapshot: ImportSnapshot
    requested: Requested | None

    @property
    def status(self) -> Status:
        return self.snapshot.status

    @property
    def is_waiting(self) -> bool:
        """Whether it has no runner and can be resumed."""
        return self.status in WAITING


async def page(conn: AsyncConnection, number: int, limit: int) -> tuple[list[Job], int]:
    """A page of imports, newest first, and how many there are."""
    found = await rows_async(
        conn, "list_jobs", import_id=None, key=RUNNER_LOCK, **window(number, limit)
    )
    total = await first_async(conn, "count_jobs")
    return [_job(row) for row in found], int(total[0])


async def one(conn: AsyncConnection, import_id: int) -> Job:
    """Raises NoSuchImport."""
    found = await rows_async(
        conn, "list_jobs", import_id=import_id, key=RUNNER_LOCK, **window(1, 1)
    )
    if not found:
        raise NoSuchImport(f"There is no import {import_id}")
    return _job(found[0])


async def is_running(conn: AsyncConnection) -> bool:
    """Whether any process runs an import."""
    return bool((await first_async(conn, "is_import_running", key=RUNNER_LOCK))[0])


async def ask(conn: AsyncConnection, import_id: int, requested: Requested) -> bool:
    """Asks the runner of an import to pause or to cancel it; False if it is not RUNNING."""
    parameters = {"import_id": import_id, "requested": requested}
    return bool(await first_async(conn, "ask_import", **parameters))


async def cancel_waiting(conn: AsyncConnection, import_id: int) -> bool:
    """Cancels an import that has no runner, or asks a worker to; False if it does not wait.

    Its missing indexes are built by that worker, or by another import that runs now.
    """
    if await is_running(conn):
        return await cancel_beside(conn, import_id)
    return bool(await first_async(conn, "ask_waiting_import", import_id=import_id))


async def cancel_beside(conn: AsyncConnection, import_id: int) -> bool:
    """Cancels an import that has no runner while another one runs; False if it does not wait."""
    parameters = {"import_id": import_id, "status": "CANCELLED", "error": None}
    return bool(await first_async(conn, "cancel_waiting_import", **parameters))


def window(number: int, limit: int) -> dict[str, int]:
    """The parameters of a page."""
    return {"limit": limit, "offset": min((number - 1) * limit, LARGEST)}


def _job(row: Row) -> Job:
    return Job(snapshot_of(row, is_running=row["is_alive"]), row["requested"])
