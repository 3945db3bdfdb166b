"""Which lanes a job has, which of them run at once, and how they reach the end of the file.

A lane is a range of the hashes of identities. If a job has more lanes than run at once, it reads the
file in several passes, each with the map of its own identities only: so memory is bounded, and the
result is the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from customer_panel._native import Batch, OverBudget
from customer_panel.db.connect import Connection
from customer_panel.errors import SourceNotResumable
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.engine.identities import database_seed, load_known, pass_count
from customer_panel.imports.engine.passes import Ended, Pass, Scan, run_pass
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim, Counts, Lane, Tuning, total
from customer_panel.imports.sources import StreamSource
from customer_panel.imports.stop import StopRequested

FEW_CORES = 4  # with at most this many, two lanes keep the server busy; with more, four do


def lanes_at_once(tuning: Tuning) -> int:
    """How many lanes run at once."""
    return tuning.lanes or (2 if (os.cpu_count() or 1) <= FEW_CORES else 4)


def lanes_needed(conn: Connection, scan: Scan) -> int:
    """How many lanes a job begins with, over all passes."""
    return lanes_at_once(scan.tuning) * pass_count(conn, scan)


class Lanes:
    """Runs the lanes of a job."""

    def __init__(self, scan: Scan, claim: Claim) -> None:
        self.scan = scan
        self.claim = claim
        self._at_once = lanes_at_once(scan.tuning)
        self._drawing = threading.Lock()

    def run(self, conn: Connection, *, parks_changed: bool) -> None:
        """Runs every lane to the end of the file.

        `parks_changed`: changed rows wait for the end too, because there is no key to merge by.
        Raises ClaimLost, StopRequested, SourceUnreadable, SourceNotResumable.
        """
        source = self.scan.source
        while True:
            try:
                self._divide(conn, parks_changed)
                lanes = self._lanes(conn)
                passes = self._run_all(conn, lanes, parks_changed, until=None)
            except OverBudget:
                if isinstance(source, StreamSource):
                    raise SourceNotResumable(
                        "the stream has more identities than CP_MEMORY has room for,"
                        " and it cannot be read twice",
                        hint="Set CP_MEMORY higher, or save the stream as a file and import that.",
                    ) from None
                # More identities than estimated: each lane becomes two, so each pass has half as
                # many.
                ledger.put_lanes(conn, self.claim, halved(self._lanes(conn)))
                continue
            # The tail may have grown between two passes: then they have read different records,
            # and the passes are repeated.
            end = passes[0].end
            has_tail = any(ended.decided < end for ended in passes)
            if len(passes) == 1 or not has_tail or source.size_now() == end:
                break
        self._close([tail for ended in passes for tail in ended.tails], end)

    def _close(self, tails: list[Batch], end: int) -> None:
        """Commits the tail together with the end of the file.

        Bytes that are appended later would change the tail, so they are not read.
        """
        with self.scan.sessions.lane() as conn:
            writer = self._writer(conn)
            with conn.transaction():
                ledger.set_phase(conn, self.claim, "indexing", scanned_to=end)
                counts = [writer.apply(tail) for tail in tails]
        for tail, count in zip(tails, counts, strict=True):
            self.scan.tally.committed(count, tail.lane, tail.span[1])

    def _divide(self, conn: Connection, parks_changed: bool) -> None:
        """Divides the lanes anew if this run needs other ones than the last run had."""
        lanes = self._lanes(conn)
        needed = lanes_needed(conn, self.scan)
        if len(lanes) % self._at_once == 0 and len(lanes) >= needed:
            return
        furthest = max(lane.done_to for lane in lanes)
        if any(lane.done_to < furthest for lane in lanes):
            # Some lanes have passed rows that others have not: first the old lanes all go on to
            # the furthest checkpoint.
            self._run_all(conn, lanes, parks_changed, until=furthest)
            lanes = self._lanes(conn)
        ledger.put_lanes(conn, self.claim, divided(lanes, lanes_needed(conn, self.scan)))

    def _lanes(self, conn: Connection) -> list[Lane]:
        return ledger.lanes_of(conn, self.claim.import_id)

    def _run_all(
        self, conn: Connection, lanes: list[Lane], parks_changed: bool, until: int | None
    ) -> list[Ended]:
        """Runs all lanes up to `until` or the end of the file, `_at_once` in each pass; their ends."""
        scan = self.scan
        scan.tally.begin(self.claim.import_id, lanes, scan.plan.data_start)
        scan.tally.bytes_total = scan.source.size_now()
        seed = database_seed(conn)
        passes: list[Ended] = []
        end = until
        for first in range(0, len(lanes), self._at_once):
            group = lanes[first : first + self._at_once]
            if end is not None and all(lane.done_to >= end for lane in group):
                continue
            this = Pass(
                lanes=group,
                total=len(lanes),
                seed=seed,
                import_id=self.claim.import_id,
                clears_blanks=self.claim.clears != 0,
                parks_changed=parks_changed,
                until=end,
            )
            known = load_known(conn, scan, this)
            ended = run_pass(scan, this, known, lambda _: self._lane_writer())
            if ended is None:
                raise StopRequested
            passes.append(ended)
            # Later passes end where the first one ended.
            end = ended.end if end is None else end
        return passes

    @contextlib.contextmanager
    def _lane_writer(self) -> Iterator[Callable[[Batch], Counts]]:
        with self.scan.sessions.lane() as conn:
            yield self._writer(conn).apply

    def _writer(self, conn: Connection) -> Writer:
        return Writer(conn, self.claim, self._drawing, is_safe=self.scan.tuning.is_safe)


def halved(lanes: list[Lane]) -> list[Lane]:
    """Two lanes for each, with half its range, at its checkpoint; the lower one has its counters."""
    return [
        _like(lane, lane.lane * 2 + half, lane.counts if half == 0 else None)
        for lane in lanes
        for half in (0, 1)
    ]


def divided(lanes: list[Lane], count: int) -> list[Lane]:
    """`count` new lanes at the checkpoint that all `lanes` have reached; the first has the counters."""
    counts = total(lanes)
    last = max(lanes, key=lambda lane: lane.last_line)
    return [_like(last, number, counts if number == 0 else None) for number in range(count)]


def _like(lane: Lane, number: int, counts: Counts | None) -> Lane:
    """A lane at the same checkpoint; without `counts`, one that has written nothing yet."""
    has_written = counts is not None
    return Lane(
        lane=number,
        done_to=lane.done_to,
        tail_hash=lane.tail_hash,
        counts=counts or Counts(),
        last_row_hash=lane.last_row_hash if has_written else None,
        last_line=lane.last_line if has_written else 0,
        recent_ids=lane.recent_ids if has_written else [],
    )
