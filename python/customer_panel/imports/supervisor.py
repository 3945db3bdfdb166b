"""Runs one import from its source to its end, through lost connections, stops and kills.

    claim -> verify -> scan (passes of lanes) -> keys -> parked rows -> maintenance -> done

Whatever ends a run leaves the job such that `run_import`, called again, goes on at its checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from customer_panel._native import Batch, Known, OverBudget, verify
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    CustomerPanelError,
    DatabaseLost,
    DiskFull,
    ImportFailed,
    Interrupted,
    SourceChanged,
    SourceError,
    SourceNotResumable,
    SourceUnreadable,
    Stopped,
)
from customer_panel.imports import finish, keys, known, ledger, scan
from customer_panel.imports.apply import Writer, prepare
from customer_panel.imports.model import (
    DEFAULT_SOURCE,
    Claim,
    Counts,
    ImportResult,
    Lane,
    Options,
    Progress,
    Row,
    Tuning,
)
from customer_panel.imports.progress import Tally
from customer_panel.imports.sessions import Sessions, is_loss
from customer_panel.imports.sources import Source, StreamSource, planned
from customer_panel.imports.states import Status

Connection = psycopg.Connection[Any]
LOST_PATIENCE_S = 60.0  # for a server that went away while an import ran
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


class Stop:
    """Asks a running import to stop at the next batch border, and says what it is then: paused or
    interrupted.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.status: Status = "INTERRUPTED"

    def ask(self, status: Status = "INTERRUPTED") -> None:
        if not self._event.is_set():
            self.status = status
            self._event.set()

    def is_asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class _StopRequested(Exception):
    """Carries a stop from where it was noticed to where the job's state is written."""


def run_import(
    source: Source,
    dsn: str,
    options: Options,
    tuning: Tuning,
    *,
    told: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
    restarts: bool = False,
    revive: Callable[[], None] = lambda: None,
    noted: Callable[[str], None] = lambda _: None,
) -> ImportResult:
    """Imports `source`: goes on with an interrupted import of the same file, else begins one.

    `restarts` gives an interrupted one up first. `revive` is called when the server went away,
    before it is asked again. Raises CustomerPanelError; after Stopped, DatabaseLost and any other
    failure but SourceChanged the job can be resumed.
    """
    run = _Run(source, dsn, options, tuning, told, stop or Stop(), restarts, noted)
    wait = FIRST_WAIT_S
    lost_since: float | None = None
    while True:
        try:
            return run.attempt()
        except (psycopg.Error, CustomerPanelError) as wrong:
            if not run.has_begun or not (is_loss(wrong) or isinstance(wrong, AlreadyRunning)):
                raise _explained(wrong) from (
                    None if isinstance(wrong, CustomerPanelError) else wrong
                )
            if isinstance(source, StreamSource):
                raise SourceNotResumable(
                    "the connection to the database was lost, and a stream cannot be read again"
                ) from wrong
            if run.moved:
                lost_since, run.moved, wait = None, False, FIRST_WAIT_S
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > LOST_PATIENCE_S:
                raise DatabaseLost(
                    f"the database has been away for {LOST_PATIENCE_S:.0f} s"
                ) from wrong
            if run.stop.wait(wait):
                raise Stopped from None
            wait = min(wait * 2, LONGEST_WAIT_S)
            with contextlib.suppress(CustomerPanelError):
                revive()


def _explained(wrong: Exception) -> Exception:
    if isinstance(wrong, psycopg.errors.DiskFull):
        return DiskFull(f"the disk of the database is full: {wrong.diag.message_primary}")
    return wrong


class _Run:
    """One call of `run_import`; `attempt` is repeated after a lost connection."""

    def __init__(
        self,
        source: Source,
        dsn: str,
        options: Options,
        tuning: Tuning,
        told: Callable[[Progress], None] | None,
        stop: Stop,
        restarts: bool,
        noted: Callable[[str], None],
    ) -> None:
        self.source = source
        self.options = options
        self.tuning = tuning
        self.stop = stop
        self.restarts = restarts
        self.noted = noted
        self.notes: list[str] = []
        self.sessions = Sessions(dsn)
        self.tally = Tally(source.size_now(), told)
        self.drawing = threading.Lock()
        self.has_begun = False  # there is a job that a lost connection leaves behind
        self.moved = False  # something was committed since the connection was last lost
        self.is_resumed = False
        # What is wrong with a file is said only when it is not one whose import was interrupted:
        # of that one, it is said where it changed.
        self.refusal: SourceError | None = None
        try:
            self.plan = planned(source, options)
        except SourceError as wrong:
            self.refusal = wrong

    # -- the job -----------------------------------------------------------------------------------

    def attempt(self) -> ImportResult:
        with self.sessions.job() as conn:
            if not ledger.try_lock(conn):
                raise AlreadyRunning
            job = self._take_up(conn) or self._begin(conn)
            claim = ledger.claim(conn, job["id"], self.plan)
            self.has_begun = True
            maintenance_s = 0.0
            try:
                maintenance_s = self._work(conn, claim, job)
            except _StopRequested:
                self._end(
                    conn,
                    claim,
                    "FAILED" if isinstance(self.source, StreamSource) else self.stop.status,
                )
                raise Stopped(f"import {claim.import_id} was stopped at a batch border") from None
            except SourceChanged as wrong:
                self._end(conn, claim, "FAILED", wrong.message)
                raise
            except ClaimLost:
                raise
            except BaseException as wrong:
                if not is_loss(wrong):
                    status: Status = (
                        "FAILED" if isinstance(self.source, StreamSource) else "INTERRUPTED"
                    )
                    with contextlib.suppress(psycopg.Error, ClaimLost):
                        self._end(conn, claim, status, f"{type(wrong).__name__}: {_text(wrong)}")
                raise
            self._end(conn, claim, "COMPLETED", maintenance_s=maintenance_s)
            return self._result(conn, claim)

    def _take_up(self, conn: Connection) -> Row | None:
        """The interrupted import of this file, if there is one.

        We hold the lock, so nobody runs any.
        """
        for job in ledger.rows(conn, "open_imports"):
            if job["file_path"] is None:
                ledger.abandon(conn, job["id"], "FAILED")
            elif self.restarts and not self.has_begun:
                ledger.abandon(conn, job["id"], "CANCELLED")
                self._note(
                    f"gave up import {job['id']} of {job['file_path']}; the rows it wrote stay"
                )
            elif self._is_of_this_file(job):
                self.plan = ledger.restored_plan(job, self.options)
                if not self.has_begun:
                    self.is_resumed = True
                    self._note(f"going on with import {job['id']}, which was interrupted")
                return job
            elif self.has_begun:
                continue
            else:
                if job["status"] == "RUNNING":
                    ledger.abandon(conn, job["id"], "INTERRUPTED")
                raise Interrupted(
                    f"import {job['id']} of {job['file_path']} was interrupted and is not finished"
                )
        return None

    def _is_of_this_file(self, job: Row) -> bool:
        if self.source.path is None:
            return False
        is_same_file = (job["file_device"], job["file_inode"]) == (
            self.source.device,
            self.source.inode,
        )
        return is_same_file or job["file_path"] == str(self.source.path)

    def _begin(self, conn: Connection) -> Row:
        if self.refusal is not None:
            raise self.refusal
        lanes = self._lane_count() * self._passes(conn)
        with conn.transaction():
            is_first_load = keys.defer(conn)
            import_id = ledger.create(
                conn, self.source, self.plan, self.options, lanes, is_first_load
            )
        return ledger.rows(conn, "get_import", import_id=import_id)[0]

    def _end(
        self,
        conn: Connection,
        claim: Claim,
        status: Status,
        error: str | None = None,
        maintenance_s: float = 0.0,
    ) -> None:
        elapsed = self.tally.elapsed_s - maintenance_s
        ledger.end(conn, claim, status, error=error, elapsed_s=elapsed, maintenance_s=maintenance_s)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.noted(text)

    # -- the work ----------------------------------------------------------------------------------

    def _work(self, conn: Connection, claim: Claim, job: Row) -> float:
        """Everything between claim and end; seconds of maintenance."""
        self.tally.begin(
            claim.import_id, ledger.lanes_of(conn, claim.import_id), self.plan.data_start
        )
        if job["scanned_to"] is None:
            self._verify(conn, claim)
            if not job["keys_deferred"] and not keys.are_complete(conn):
                self._enter(conn, claim, "indexing")
                self._committed(finish.build_keys(self.sessions.lane, claim))
            self._enter(conn, claim, "scanning")
            self._scan(conn, claim, job)
        elif (size := self.source.size_now()) is not None and size > job["scanned_to"]:
            self._note(
                f"the file grew by {size - job['scanned_to']} bytes after it was read to its end:"
                " import it again"
            )
        if not keys.are_complete(conn):
            self._enter(conn, claim, "indexing")
            self._committed(finish.build_keys(self.sessions.lane, claim))
        self._enter(conn, claim, "merging")
        if not finish.merge_parked(self.sessions.lane, claim, self._committed, self.stop.is_asked):
            raise _StopRequested
        self._enter(conn, claim, "maintenance")
        total = Counts()
        for lane in ledger.lanes_of(conn, claim.import_id):
            total.add(lane.counts)
        return finish.maintain(self.sessions.lane, total.inserted + total.updated)

    def _enter(self, conn: Connection, claim: Claim, phase: Any) -> None:
        if self.stop.is_asked():
            raise _StopRequested
        ledger.set_phase(conn, claim, phase, file_size=self.source.size_now())
        self.tally.enter(phase)

    def _committed(self, counts: Counts) -> None:
        self.moved = True
        self.tally.committed(counts)

    def _verify(self, conn: Connection, claim: Claim) -> None:
        """Holds the file against the hashes of what was read before. Raises SourceChanged."""
        furthest = max(ledger.lanes_of(conn, claim.import_id), key=lambda lane: lane.done_to)
        if furthest.tail_hash is None:
            return
        self._enter(conn, claim, "verifying")
        blocks = [
            (row["block"], row["hash"])
            for row in ledger.rows(conn, "blocks", import_id=claim.import_id)
        ]
        descriptor = self.source.native()
        assert isinstance(descriptor, int)
        try:
            span = verify(descriptor, blocks, furthest.done_to, furthest.tail_hash)
        except OSError as wrong:
            raise SourceUnreadable(f"the file cannot be read: {wrong.strerror}") from wrong
        if span is not None:
            raise SourceChanged(span=span)

    # -- the lanes ---------------------------------------------------------------------------------

    def _lane_count(self) -> int:
        return self.tuning.lanes or (2 if (os.cpu_count() or 1) <= 4 else 4)

    def _passes(self, conn: Connection) -> int:
        _, guessed, counted = ledger.one(conn, "customer_pages")
        identities = max(guessed, counted, scan.expected_rows(self.source, self.plan))
        return scan.passes_for(identities, self.tuning.memory_bytes)

    def _scan(self, conn: Connection, claim: Claim, job: Row) -> None:
        """Brings every lane to the end of the file."""
        self._divide(conn, claim, job)
        while True:
            lanes = ledger.lanes_of(conn, claim.import_id)
            try:
                tails, end = self._run_all(conn, claim, job, lanes, until=None)
            except OverBudget:
                # More identities than the file's size told: each lane becomes two, and each pass
                # half as large.
                ledger.put_lanes(conn, claim, _halved(lanes=ledger.lanes_of(conn, claim.import_id)))
                continue
            if (
                not tails
                or len(lanes) == self._lane_count()
                or self.source.size_now() in (None, end)
            ):
                break
        # What comes behind an open-ended last record would change it: from here on nothing that
        # comes is read.
        with self.sessions.lane() as lane_conn:
            prepare(lane_conn)
            writer = self._writer(lane_conn, claim)
            with lane_conn.transaction():
                ledger.set_phase(
                    lane_conn, claim, "indexing", file_size=self.source.size_now(), scanned_to=end
                )
                counts = [writer.apply(tail) for tail in tails]
        for tail, counted in zip(tails, counts, strict=True):
            self.tally.committed(counted, tail.lane, tail.span[1])

    def _divide(self, conn: Connection, claim: Claim, job: Row) -> None:
        """Divides the lanes anew where this run wants others than the last one had."""
        lanes = ledger.lanes_of(conn, claim.import_id)
        count, passes = self._lane_count(), self._passes(conn)
        if len(lanes) % count == 0 and len(lanes) >= count * passes:
            return
        furthest = max(lanes, key=lambda lane: lane.done_to)
        if any(lane.done_to < furthest.done_to for lane in lanes):
            # Rows behind some lanes' checkpoints and before others': those are taken up with the
            # old lanes first.
            self._run_all(conn, claim, job, lanes, until=furthest.done_to)
            lanes = ledger.lanes_of(conn, claim.import_id)
        ledger.put_lanes(conn, claim, _divided(lanes, count * passes))

    def _run_all(
        self, conn: Connection, claim: Claim, job: Row, lanes: list[Lane], until: int | None
    ) -> tuple[list[Batch], int]:
        """Runs all lanes, as many at once as may be; the batches of an open-ended last record, and
        where the file ends.
        """
        count = self._lane_count()
        self.tally.begin(claim.import_id, lanes, self.plan.data_start)
        self.tally.bytes_total = self.source.size_now()
        tails: list[Batch] = []
        end = until
        for first in range(0, len(lanes), count):
            group = lanes[first : first + count]
            if end is not None and all(lane.done_to >= end for lane in group):
                continue
            asked = scan.Pass(
                lanes=group,
                total=len(lanes),
                seed=ledger.one(conn, "database_seed")[0],
                import_id=claim.import_id,
                is_clearing=claim.clears != 0,
                parks_changed=job["keys_deferred"],
                until=end,
            )
            ended = scan.run(
                self.source,
                self.plan,
                self._known(conn, claim, asked),
                asked,
                self.tuning,
                self.tally,
                lambda _: self._lane_writer(claim),
                self.stop.is_asked,
            )
            if ended is None:
                raise _StopRequested
            tails += [] if ended.tail is None else [ended.tail]
            # Later passes read no further than the first one did.
            end = ended.end if end is None else end
        assert end is not None
        return tails, end

    def _known(self, conn: Connection, claim: Claim, asked: scan.Pass) -> Known:
        _, guessed, counted = ledger.one(conn, "customer_pages")
        identities = max(guessed, counted, scan.expected_rows(self.source, self.plan))
        found = Known(
            asked.seed,
            expected=identities * len(asked.lanes) // asked.total,
            memory=self.tuning.memory_bytes,
            lanes=asked.total,
            first_lane=asked.lanes[0].lane,
            lane_count=len(asked.lanes),
        )
        known.load(self.sessions.lane, found, claim.import_id)
        return found

    @contextlib.contextmanager
    def _lane_writer(self, claim: Claim) -> Any:
        with self.sessions.lane() as conn:
            prepare(conn)
            writer = self._writer(conn, claim)

            def take(batch: Batch) -> Counts:
                counts = writer.apply(batch)
                self.moved = True
                return counts

            yield take

    def _writer(self, conn: Connection, claim: Claim) -> Writer:
        return Writer(conn, claim, self.drawing, is_safe=self.tuning.is_safe)

    # -- the result --------------------------------------------------------------------------------

    def _result(self, conn: Connection, claim: Claim) -> ImportResult:
        job = ledger.rows(conn, "get_import", import_id=claim.import_id)[0]
        counts = Counts()
        for lane in ledger.lanes_of(conn, claim.import_id):
            counts.add(lane.counts)
        elapsed = job["elapsed_ms"] / 1000
        self.tally.enter("done")
        return ImportResult(
            job_id=claim.import_id,
            status=job["status"],
            source=job["source"],
            is_resumed=self.is_resumed,
            rows_processed=counts.processed,
            rows_inserted=counts.inserted,
            rows_updated=counts.updated,
            rows_unchanged=counts.unchanged,
            rows_protected=counts.protected,
            rows_duplicate=counts.duplicate,
            rows_skipped=counts.skipped,
            warnings=counts.warnings,
            bytes_read=job["scanned_to"],
            elapsed_sec=elapsed,
            maintenance_sec=job["maintenance_ms"] / 1000,
            rate_rows_per_sec=counts.processed / elapsed if elapsed else 0.0,
            peak_rss_bytes=peak_rss_bytes(),
            mapping=tuple((header, field) for header, field in self.plan.mapping),
            unmapped=tuple(self.plan.unmapped),
            notes=tuple(self.notes),
        )


def _halved(lanes: list[Lane]) -> list[Lane]:
    """Each lane as two of half its range, with what it had done; its counters stay with the lower
    half.
    """
    return [
        Lane(
            lane=lane.lane * 2 + half,
            done_to=lane.done_to,
            tail_hash=lane.tail_hash,
            counts=Counts() if half else lane.counts,
            last_row_hash=None if half else lane.last_row_hash,
            last_line=0 if half else lane.last_line,
            recent_ids=[] if half else lane.recent_ids,
        )
        for lane in lanes
        for half in (0, 1)
    ]


def _divided(lanes: list[Lane], count: int) -> list[Lane]:
    """`count` new lanes that go on where all `lanes` have come to; the first one carries the
    counters.
    """
    counts = Counts()
    for lane in lanes:
        counts.add(lane.counts)
    last = max(lanes, key=lambda lane: lane.last_line)
    furthest = max(lanes, key=lambda lane: lane.done_to)
    return [
        Lane(
            lane=number,
            done_to=furthest.done_to,
            tail_hash=furthest.tail_hash,
            counts=Counts() if number else counts,
            last_row_hash=None if number else last.last_row_hash,
            last_line=0 if number else last.last_line,
            recent_ids=[] if number else last.recent_ids,
        )
        for number in range(count)
    ]


def peak_rss_bytes() -> int:
    """The most memory this process has had. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _text(wrong: BaseException) -> str:
    """A failure's first line, without what the server quotes of the data."""
    if isinstance(wrong, psycopg.Error):
        return wrong.diag.message_primary or type(wrong).__name__
    return str(wrong)


__all__ = ["DEFAULT_SOURCE", "ImportFailed", "Stop", "peak_rss_bytes", "run_import"]
