"""Which lanes a job has, which of them run at once, and how they come to the end of the file.

A lane is a range of the hash of identities. More lanes than run at once are more passes over the
file, each with the map of its own identities only: so memory is bounded, and the outcome the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from customer_panel._native import Batch, Known, OverBudget, Plan
from customer_panel.errors import SourceNotResumable
from customer_panel.imports.engine import identities as known
from customer_panel.imports.engine import passes as scan
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.engine.passes import Pass
from customer_panel.imports.job import ledger
from customer_panel.imports.job.progress import Tally
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, Counts, Lane, Tuning, total
from customer_panel.imports.sources import Source, StreamSource
from customer_panel.imports.stop import Stop, StopRequested

Connection = psycopg.Connection[Any]
ENTRY_BYTES = 25  # what the map of identities takes for one, at most
FEW_CORES = 4  # up to here two lanes keep the server busy; behind it four do


def lane_count(tuning: Tuning) -> int:
    """Lanes that run at once."""
    return tuning.lanes or (2 if (os.cpu_count() or 1) <= FEW_CORES else 4)


def passes(conn: Connection, source: Source, plan: Plan, tuning: Tuning) -> int:
    """In how many passes the identities are divided, for the map of each to fit into its memory."""
    if isinstance(source, StreamSource):
        return 1
    return max(1, -(-identities(conn, source, plan) * ENTRY_BYTES // tuning.memory_bytes))


def identities(conn: Connection, source: Source, plan: Plan) -> int:
    """How many there may be, judged by the table and by the file's size and first rows."""
    _, guessed, counted = ledger.one(conn, "customer_pages")
    rows = (source.size_now() or 0) // max(plan.average_record_bytes(source.head), 1)
    return int(max(guessed, counted, rows))


class Lanes:
    """The lanes of one run of a job."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        tuning: Tuning,
        sessions: Sessions,
        tally: Tally,
        stop: Stop,
        claim: Claim,
    ) -> None:
        self.source = source
        self.plan = plan
        self.tuning = tuning
        self.sessions = sessions
        self.tally = tally
        self.stop = stop
        self.claim = claim
        self.drawing = threading.Lock()

    def scan(self, conn: Connection, *, parks_changed: bool) -> None:
        """Brings every lane to the end of the file. Raises ClaimLost, StopRequested,
        SourceUnreadable.
        """
        while True:
            try:
                self._divide(conn, parks_changed)
                lanes = self._lanes(conn)
                tails, end = self._run_all(conn, lanes, parks_changed, until=None)
            except OverBudget:
                if isinstance(self.source, StreamSource):
                    raise SourceNotResumable(
                        "the stream has more identities than CP_MEMORY has room for,"
                        " and it cannot be read twice",
                        hint="Set CP_MEMORY higher, or save the stream as a file and import that.",
                    ) from None
                # More identities than the file's size told: each lane becomes two, and each pass
                # half as large.
                ledger.put_lanes(conn, self.claim, halved(self._lanes(conn)))
                continue
            # An open-ended last record that grew between two passes was not the same for both.
            is_one_pass = len(lanes) <= lane_count(self.tuning)
            if is_one_pass or not tails or self.source.size_now() == end:
                break
        self._close(tails, end)

    def _close(self, tails: list[Batch], end: int) -> None:
        """Commits an open-ended last record together with where the file ended.

        What comes behind would change it: from here on nothing that comes is read.
        """
        with self.sessions.lane() as conn:
            writer = self._writer(conn)
            with conn.transaction():
                ledger.set_phase(conn, self.claim, "indexing", scanned_to=end)
                counts = [writer.apply(tail) for tail in tails]
        for tail, counted in zip(tails, counts, strict=True):
            self.tally.committed(counted, tail.lane, tail.span[1])

    def _divide(self, conn: Connection, parks_changed: bool) -> None:
        """Divides the lanes anew where this run wants others than the last one had."""
        lanes = self._lanes(conn)
        count = lane_count(self.tuning)
        if len(lanes) % count == 0 and len(lanes) >= count * self._passes(conn):
            return
        furthest = max(lane.done_to for lane in lanes)
        if any(lane.done_to < furthest for lane in lanes):
            # Rows behind some lanes' checkpoints and before others': those are taken up with the
            # old lanes first.
            self._run_all(conn, lanes, parks_changed, until=furthest)
            lanes = self._lanes(conn)
        ledger.put_lanes(conn, self.claim, divided(lanes, count * self._passes(conn)))

    def _passes(self, conn: Connection) -> int:
        return passes(conn, self.source, self.plan, self.tuning)

    def _lanes(self, conn: Connection) -> list[Lane]:
        return ledger.lanes_of(conn, self.claim.import_id)

    def _run_all(
        self, conn: Connection, lanes: list[Lane], parks_changed: bool, until: int | None
    ) -> tuple[list[Batch], int]:
        """Runs all lanes up to `until` or the end of the file, as many at once as may be.

        The batches of an open-ended last record, and where the file ends.
        """
        count = lane_count(self.tuning)
        self.tally.begin(self.claim.import_id, lanes, self.plan.data_start)
        self.tally.bytes_total = self.source.size_now()
        tails: list[Batch] = []
        end = until
        for first in range(0, len(lanes), count):
            group = lanes[first : first + count]
            if end is not None and all(lane.done_to >= end for lane in group):
                continue
            asked = Pass(
                lanes=group,
                total=len(lanes),
                seed=ledger.one(conn, "database_seed")[0],
                import_id=self.claim.import_id,
                is_clearing=self.claim.clears != 0,
                parks_changed=parks_changed,
                until=end,
            )
            ended = scan.run(
                self.source,
                self.plan,
                known_of(
                    conn,
                    self.source,
                    self.plan,
                    self.tuning,
                    self.sessions,
                    asked,
                    self.claim.import_id,
                ),
                asked,
                self.tuning,
                self.tally,
                lambda _: self._lane_writer(),
                self.stop.is_asked,
            )
            if ended is None:
                raise StopRequested
            tails += [] if ended.tail is None else [ended.tail]
            # Later passes read no further than the first one did.
            end = ended.end if end is None else end
        assert end is not None
        return tails, end

    @contextlib.contextmanager
    def _lane_writer(self) -> Iterator[Callable[[Batch], Counts]]:
        with self.sessions.lane() as conn:
            yield self._writer(conn).apply

    def _writer(self, conn: Connection) -> Writer:
        return Writer(conn, self.claim, self.drawing, is_safe=self.tuning.is_safe)


def known_of(
    conn: Connection,
    source: Source,
    plan: Plan,
    tuning: Tuning,
    sessions: Sessions,
    asked: Pass,
    import_id: int | None,
) -> Known:
    """What the database holds of the identities of a pass, and what `import_id` has parked of them."""
    found = Known(
        asked.seed,
        expected=identities(conn, source, plan) * len(asked.lanes) // asked.total,
        memory=tuning.memory_bytes,
        lanes=asked.total,
        first_lane=asked.lanes[0].lane,
        lane_count=len(asked.lanes),
    )
    known.load(sessions.lane, found, import_id)
    return found


def halved(lanes: list[Lane]) -> list[Lane]:
    """Each lane as two of half its range, at its place; the lower half has its counters."""
    return [
        _like(lane, lane.lane * 2 + half, lane.counts if half == 0 else None)
        for lane in lanes
        for half in (0, 1)
    ]


def divided(lanes: list[Lane], count: int) -> list[Lane]:
    """`count` new lanes that go on where all `lanes` have come to; the first has the counters."""
    counts = total(lanes)
    last = max(lanes, key=lambda lane: lane.last_line)
    return [_like(last, number, counts if number == 0 else None) for number in range(count)]


def _like(lane: Lane, number: int, counts: Counts | None) -> Lane:
    """A lane at the same place; without `counts`, one that has done nothing itself."""
    is_heir = counts is not None
    return Lane(
        lane=number,
        done_to=lane.done_to,
        tail_hash=lane.tail_hash,
        counts=counts or Counts(),
        last_row_hash=lane.last_row_hash if is_heir else None,
        last_line=lane.last_line if is_heir else 0,
        recent_ids=lane.recent_ids if is_heir else [],
    )
