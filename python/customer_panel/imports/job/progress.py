"""Counts what the lanes have committed, reports the progress of the import, and makes its result."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from customer_panel._native import Plan
from customer_panel.imports.model import Counts, ImportResult, Lane, Phase, Progress, total

EVERY_S = 0.2


class Tally:
    """Sums the commits of all lanes, from any thread. Its clock starts when it is created."""

    def __init__(
        self, bytes_total: int | None, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._lock = threading.Lock()
        self._on_progress = on_progress
        self._began = self._reported_at = time.monotonic()
        self._counts = Counts()
        self._rows_before: int | None = None
        self._done_to: dict[int, int] = {}
        self._start = 0
        self._has_moved = False
        self._batches, self._batch_sec = 0, 0.0
        self.job_id: int | None = None
        self.phase: Phase = "scanning"
        self.bytes_total = bytes_total

    def begin(self, job_id: int | None, lanes: list[Lane], start: int) -> None:
        """Starts from what earlier runs have committed."""
        with self._lock:
            self.job_id = job_id
            self._start = start
            self._counts = total(lanes)
            self._done_to = {lane.lane: lane.done_to for lane in lanes}
            if self._rows_before is None:
                self._rows_before = self._counts.processed

    def committed(
        self, counts: Counts, lane: int | None = None, done_to: int = 0, seconds: float = 0.0
    ) -> None:
        """Adds `counts`. For a batch of a lane also its end in the file, and the `seconds` it took."""
        with self._lock:
            self._counts.add(counts)
            self._has_moved = True
            if lane is not None:
                self._done_to[lane] = done_to
                self._batches += 1
                self._batch_sec += seconds
        self.report()

    def has_moved(self) -> bool:
        """Whether anything was committed since the last call."""
        with self._lock:
            has_moved, self._has_moved = self._has_moved, False
            return has_moved

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.report(is_urgent=True)

    def report(self, *, is_urgent: bool = False) -> None:
        """Calls `on_progress`, not more often than every 0.2 s unless `is_urgent`."""
        if self._on_progress is None:
            return
        with self._lock:
            now = time.monotonic()
            if not is_urgent and now - self._reported_at < EVERY_S:
                return
            self._reported_at = now
        self._on_progress(self.snapshot())

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def counts(self) -> Counts:
        with self._lock:
            return msgspec.structs.replace(self._counts)

    def written(self) -> int:
        """How many rows were inserted or updated."""
        counts = self.counts()
        return counts.inserted + counts.updated

    def snapshot(self) -> Progress:
        with self._lock:
            counts = msgspec.structs.replace(self._counts)
            # Each lane writes the same share of the rows, so the mean is how much is done.
            done = sum(self._done_to.values()) // max(len(self._done_to), 1)
            batches, batch_sec = self._batches, self._batch_sec
        elapsed = self.elapsed_s
        left = None
        if self.bytes_total and done > self._start and self.phase == "scanning":
            left = max(self.bytes_total - done, 0) * elapsed / (done - self._start)
        return Progress(
            job_id=self.job_id,
            phase=self.phase,
            counts=counts,
            bytes_read=done,
            bytes_total=self.bytes_total,
            elapsed_sec=elapsed,
            rate_rows_per_sec=(counts.processed - (self._rows_before or 0)) / elapsed
            if elapsed > 0
            else 0.0,
            eta_sec=left,
            batches=batches,
            batch_sec=batch_sec,
        )


def result_of(counts: Counts, plan: Plan, *, elapsed_sec: float, **others: Any) -> ImportResult:
    """`others`: the fields of ImportResult that come neither from counts and plan nor from this
    process.
    """
    return ImportResult(
        rows_processed=counts.processed,
        rows_inserted=counts.inserted,
        rows_updated=counts.updated,
        rows_unchanged=counts.unchanged,
        rows_protected=counts.protected,
        rows_duplicate=counts.duplicate,
        rows_skipped=counts.skipped,
        warnings=counts.warnings,
        elapsed_sec=elapsed_sec,
        rate_rows_per_sec=counts.processed / elapsed_sec if elapsed_sec else 0.0,
        peak_rss_bytes=peak_rss_bytes(),
        mapping=tuple(plan.mapping),
        unmapped=tuple(plan.unmapped),
        **others,
    )


def peak_rss_bytes() -> int:
    """The peak memory of this process. Linux counts in KiB, macOS in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Unlike getrusage, this leaves out the memory of the parent process, which counts as the
        # child's until the child calls exec.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
