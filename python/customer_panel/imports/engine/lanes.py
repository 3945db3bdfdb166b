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

import msgspec

from customer_panel._native import Batch, Known, OverBudget
from customer_panel.db.connect import Connection
from customer_panel.errors import SourceNotResumable
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.engine.finish import settle
from customer_panel.imports.engine.identities import database_seed, load_known, pass_count
from customer_panel.imports.engine.passes import Ended, Pass, Scan, Write, run_pass
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim, Counts, Lane, Tuning, total
from customer_panel.imports.sources import StreamSource
from customer_panel.imports.stop import StopRequested
from customer_panel.imports.unchanged import MOST_GROWTHS

FEW_CORES = 4  # with at most this many, two lanes keep the server busy; with more, four do


def lanes_at_once(tuning: Tuning) -> int:
    """How many lanes run at once."""
    return tuning.lanes or (2 if (os.cpu_count() or 1) <= FEW_CORES else 4)


def lanes_needed(conn: Connection, scan: Scan) -> int:
    """How many lanes a job begins with, over all passes."""
    return lanes_at_once(scan.tuning) * pass_count(conn, scan)


class Found(msgspec.Struct):
    """What all passes leave for the end: the batches of the tail; the byte where the file ends; how
    many customers with several rows have the same ones as before.
    """

    end: int | None
    tails: list[Batch] = []
    parked_tails: list[Batch] = []
    unchanged: int = 0


class Lanes:
    """Runs the lanes of a job."""

    def __init__(self, scan: Scan, claim: Claim) -> None:
        self.scan = scan
        self.claim = claim
        self._at_once = lanes_at_once(scan.tuning)
        self._drawing = threading.Lock()

    def run(self, conn: Connection, *, parks_changed: bool) -> int | None:
        """Runs every lane to the end of the file.

        `parks_changed`: changed rows wait for the end too, because there is no key to merge by.
        Returns the byte behind which a file is not read that grew again and again meanwhile.
        Raises ClaimLost, StopRequested, SourceChanged, SourceUnreadable, SourceNotResumable.
        """
        growths = 0
        while True:
            try:
                self._expect(conn)
                self._divide(conn, parks_changed)
                found = self._run_all(conn, self._lanes(conn), parks_changed, until=None)
                assert found.end is not None
                size = self.scan.unchanged.check()
                if size is None or size <= found.end:
                    self._close(found)
                    return None
                # What was appended is read by the next round. It may go on with a last record
                # without a line end, so that one is not committed as it was.
                growths += 1
                if growths > MOST_GROWTHS:
                    lanes = self._level(conn, parks_changed)
                    end = max(lane.done_to for lane in lanes)
                    self._close(self._run_all(conn, lanes, parks_changed, until=end, is_end=True))
                    return end
            except OverBudget:
                if isinstance(self.scan.source, StreamSource):
                    raise SourceNotResumable(
                        "the stream has more identities than CP_MEMORY has room for,"
                        " and it cannot be read twice",
                        hint="Set CP_MEMORY higher, or save the stream as a file and import that.",
                    ) from None
                # More identities than estimated: each lane becomes two, so each pass has half as
                # many.
                ledger.put_lanes(conn, self.claim, halved(self._lanes(conn)))

    def _expect(self, conn: Connection) -> None:
        """Adds the hashes of what passes have read that came to no end."""
        self.scan.unchanged.expect(
            ledger.blocks_of(conn, self.claim.import_id),
            [(lane.done_to, lane.tail_hash) for lane in self._lanes(conn)],
        )

    def _close(self, found: Found) -> None:
        """Commits the tail together with the end of the file.

        Bytes that are appended later would change the tail, so they are not read.
        """
        unchanged = Counts(pending=-found.unchanged, unchanged=found.unchanged)
        with self.scan.sessions.lane() as conn:
            writer = self._writer(conn)
            with conn.transaction():
                ledger.set_phase(conn, self.claim, "indexing", scanned_to=found.end)
                counts = [writer.apply(tail) for tail in found.tails]
                for tail in found.parked_tails:
                    writer.park(tail)
                if found.unchanged:
                    settle(conn, self.claim, unchanged)
        for tail, count in zip(found.tails, counts, strict=True):
            self.scan.tally.committed(count, tail.lane, tail.span[1])
        self.scan.tally.committed(unchanged)

    def _divide(self, conn: Connection, parks_changed: bool) -> None:
        """Divides the lanes anew if this run needs other ones than the last run had."""
        lanes = self._lanes(conn)
        needed = lanes_needed(conn, self.scan)
        if len(lanes) % self._at_once == 0 and len(lanes) >= needed:
            return
        lanes = self._level(conn, parks_changed)
        ledger.put_lanes(conn, self.claim, divided(lanes, lanes_needed(conn, self.scan)))

    def _level(self, conn: Connection, parks_changed: bool) -> list[Lane]:
        """The lanes, when all have reached the furthest checkpoint of any of them."""
        lanes = self._lanes(conn)
        furthest = max(lane.done_to for lane in lanes)
        if any(lane.done_to < furthest for lane in lanes):
            # Some lanes have passed rows that others have not.
            self._run_all(conn, lanes, parks_changed, until=furthest)
            lanes = self._lanes(conn)
        return lanes

    def _lanes(self, conn: Connection) -> list[Lane]:
        return ledger.lanes_of(conn, self.claim.import_id)

    def _run_all(
        self,
        conn: Connection,
        lanes: list[Lane],
        parks_changed: bool,
        until: int | None,
        *,
        is_end: bool = False,
    ) -> Found:
        """Runs all lanes up to `until` or the end of the file, `_at_once` in each pass. `is_end`:
        nothing behind `until` will be read.
        """
        scan = self.scan
        scan.tally.begin(self.claim.import_id, lanes, scan.plan.data_start)
        scan.tally.bytes_total = scan.source.size_now()
        seed = database_seed(conn)
        parks_done = ledger.parks_done(conn, self.claim.import_id)
        found = Found(end=until)
        is_end = is_end or until is None
        for first in range(0, len(lanes), self._at_once):
            group = lanes[first : first + self._at_once]
            if not is_end and until is not None and all(lane.done_to >= until for lane in group):
                continue
            this = Pass(
                lanes=group,
                total=len(lanes),
                seed=seed,
                import_id=self.claim.import_id,
                clears_blanks=self.claim.clears != 0,
                parks_changed=parks_changed,
                parks_many=isinstance(scan.source, StreamSource),
                parks_done=parks_done,
                # Later passes end where the first one ended.
                until=found.end,
            )
            known = load_known(conn, scan, this)
            ended = self._pass(this, known, lambda writer: writer.apply)
            found.tails += ended.tails
            found.end = ended.end if found.end is None else found.end
            # Whether the rows of a customer are the same is known at the end of the file only.
            if is_end:
                found.unchanged += ended.unchanged
                if ended.changed is not None:
                    found.parked_tails += self._read_again(this, found.end, ended.changed)
        return found

    def _read_again(self, this: Pass, end: int, changed: Known) -> list[Batch]:
        """The second reading of a pass: parks the rows of customers with other rows than before.

        Returns the batches of the tail.
        """
        start = self.scan.plan.data_start
        lanes = [msgspec.structs.replace(lane, done_to=start) for lane in this.lanes]
        again = msgspec.structs.replace(this, lanes=lanes, until=end, is_second=True)
        return self._pass(again, changed, lambda writer: writer.park).tails

    def _pass(self, this: Pass, known: Known, how: Callable[[Writer], Write]) -> Ended:
        """Raises StopRequested."""

        @contextlib.contextmanager
        def opened(_: int) -> Iterator[Write]:
            with self.scan.sessions.lane() as conn:
                yield how(self._writer(conn))

        ended = run_pass(self.scan, this, known, opened)
        if ended is None:
            raise StopRequested
        return ended

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
