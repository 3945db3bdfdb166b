"""Counts what the lanes have committed and says how far the import is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from customer_panel.imports.model import Counts, Lane, Phase, Progress, total

EVERY_S = 0.2


class Tally:
    """Sums up commits of all lanes; safe for any thread. Time begins with it."""

    def __init__(self, bytes_total: int | None, told: Callable[[Progress], None] | None) -> None:
        self._lock = threading.Lock()
        self._told = told
        self._began = self._last_told = time.monotonic()
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
        """Takes over what earlier runs have committed."""
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
        """`seconds`: how long it took, where it was a batch of a lane."""
        with self._lock:
            self._counts.add(counts)
            self._has_moved = True
            if lane is not None:
                self._done_to[lane] = done_to
                self._batches += 1
                self._batch_sec += seconds
        self.tell()

    def has_moved(self) -> bool:
        """Whether anything was committed since this was last asked."""
        with self._lock:
            has_moved, self._has_moved = self._has_moved, False
            return has_moved

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.tell(is_due=True)

    def tell(self, *, is_due: bool = False) -> None:
        """Tells the caller, not more often than every 0.2 s unless `is_due`."""
        if self._told is None:
            return
        with self._lock:
            now = time.monotonic()
            if not is_due and now - self._last_told < EVERY_S:
                return
            self._last_told = now
        self._told(self.snapshot())

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def counts(self) -> Counts:
        with self._lock:
            return msgspec.structs.replace(self._counts)

    def snapshot(self) -> Progress:
        with self._lock:
            counts = msgspec.structs.replace(self._counts)
            # Each lane is a part of the rows, so of the bytes too.
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
