"""The state of imports, to be shown: read from the database, so it is the same in every process and
after every restart.

Async, for the API.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from customer_panel.db.pool import Pool, connection
from customer_panel.db.query import Row, rows_async
from customer_panel.imports.model import COUNTERS, RUNNER_LOCK, Counts, Phase
from customer_panel.states import Status

DYING_S = 5.0  # a runner that lost its connection holds the lock again within two
# Per cent, at most, of a job that is not completed: there is work after the last byte.
NOT_DONE = 99.9
MOST_ENDED = 100  # ended imports in one reading
NEVER = (1 << 63) - 1  # no import ends after this one


class ImportSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one import: counts committed rows only."""

    job_id: int
    status: Status
    phase: Phase
    source: str
    file_path: str | None
    counts: Counts
    bytes_read: int
    bytes_total: int | None
    rate_rows_per_sec: float
    elapsed_sec: float
    maintenance_sec: float
    eta_sec: float | None
    started_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    last_row_hash: int | None
    error: str | None
    every_ms: int | None
    end_number: int | None
    recent: list[list[Any]]

    def percent(self, total_rows: int | None) -> float:
        """Per cent of the size that the file had when the job was created; for a stream, of
        `total_rows`.

        It never goes back: both are constant, and what is done only grows.
        """
        if self.status == "COMPLETED":
            return 100.0
        done, whole = self.bytes_read, self.bytes_total
        if whole is None:
            done, whole = self.counts.processed, total_rows
        return min(round(100 * done / whole, 2), NOT_DONE) if whole else 0.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one query."""

    shown: ImportSnapshot | None  # the running import, else the one that changed last
    ended: list[ImportSnapshot]  # in the order in which they ended
    highest_end: int


class Watch:
    """Reads the state of imports, and remembers since when a runner has been missing."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._missing: tuple[int, float] | None = None  # the job, and since when

    async def read(
        self,
        *,
        recent: int,
        since: int = NEVER,
    ) -> Reading:
        """The import to show with its `recent` latest customers, and the imports whose end number is
        above `since`, the newest 100 of them. All is of one moment.

        Raises psycopg.Error, PoolTimeout included.
        """
        parameters = {"since": since, "most": MOST_ENDED, "recent": recent, "key": RUNNER_LOCK}
        async with connection(self._pool) as conn:
            rows = await rows_async(conn, "snapshot", **parameters)
        shown: ImportSnapshot | None = None
        ended: list[ImportSnapshot] = []
        for row in rows:
            snapshot = snapshot_of(row, self._is_running(row))
            if row["is_chosen"]:
                shown = snapshot
            if (snapshot.end_number or 0) > since:
                ended.append(snapshot)
        highest = rows[0]["highest_end"] if rows else None
        return Reading(shown=shown, ended=ended, highest_end=highest or 0)

    def _is_running(self, row: Row) -> bool:
        """Whether a RUNNING job is shown as such: its runner is alive, or was until just now."""
        if not row["is_chosen"] or row["status"] != "RUNNING":
            return False
        if row["is_alive"]:
            self._missing = None
            return True
        if self._missing is None or self._missing[0] != row["id"]:
            self._missing = (row["id"], self._clock())
        return self._clock() - self._missing[1] < DYING_S


def snapshot_of(row: Row, is_running: bool) -> ImportSnapshot:
    """The figures of a row with the columns of the fragment `import_figures`."""
    status: Status = row["status"]
    if status == "RUNNING" and not is_running:
        status = "INTERRUPTED"  # killed
    elapsed = row["elapsed_ms"] / 1000
    counts = Counts(**{name: row[name] for name in COUNTERS})
    return ImportSnapshot(
        job_id=row["id"],
        status=status,
        phase=row["phase"],
        source=row["source"],
        file_path=row["file_path"],
        counts=counts,
        bytes_read=row["bytes_read"] or 0,
        bytes_total=row["file_size"],
        rate_rows_per_sec=round(counts.processed / elapsed, 1) if elapsed else 0.0,
        elapsed_sec=elapsed,
        maintenance_sec=row["maintenance_ms"] / 1000,
        eta_sec=eta_sec(row, status, elapsed),
        started_at=row["started_at"],
        updated_at=row["updated_at"],
        completed_at=row["completed_at"],
        last_row_hash=row["last_row_hash"],
        error=error_text(row, status, counts),
        every_ms=row["progress_every_ms"],
        end_number=row["end_number"],
        recent=row["recent"],
    )


def eta_sec(row: Row, status: Status, elapsed: float) -> float | None:
    """Seconds until the last byte is read, at the mean speed so far; None while it is unknown."""
    if status == "COMPLETED":
        return 0.0
    done = (row["bytes_read"] or 0) - row["data_start"]
    if status != "RUNNING" or row["phase"] != "scanning" or not row["file_size"] or done <= 0:
        return None
    left: int = max(row["file_size"] - row["bytes_read"], 0)
    return float(round(left * elapsed / done, 1))


def error_text(row: Row, status: Status, counts: Counts) -> str | None:
    """The error to show; not None for an import that failed or was cancelled."""
    if status == "CANCELLED":
        written = counts.inserted + counts.updated
        reason = "" if row["error"] is None else f": {row['error']}"
        return f"The import was cancelled{reason}; the {written} rows it wrote stay"
    if row["error"] is not None:
        return str(row["error"])
    return "The import failed" if status == "FAILED" else None
