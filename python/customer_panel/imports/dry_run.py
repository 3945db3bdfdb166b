"""The dry run: reads and classifies like an import, and writes nothing.

It uses the same pipeline, the same map of the database's identities, and the same conditions
(sql/imports/dry_run.sql). It writes temporary tables only, so it needs no lock and may run while an
import runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg

from customer_panel._native import Batch, OverBudget
from customer_panel.db import query
from customer_panel.db.connect import Connection, is_loss
from customer_panel.errors import DatabaseLost, SourceNotResumable, Stopped
from customer_panel.imports import settling
from customer_panel.imports.engine.apply import counted
from customer_panel.imports.engine.identities import database_seed, load_known
from customer_panel.imports.engine.lanes import lanes_at_once, lanes_needed
from customer_panel.imports.engine.merge import copy_to_stage, prepare
from customer_panel.imports.engine.passes import Pass, Scan, run_pass
from customer_panel.imports.engine.request import ImportRequest
from customer_panel.imports.job import decision, ledger
from customer_panel.imports.job.progress import Tally, result_of
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import DEFAULT_SOURCE, Counts, ImportResult, Progress
from customer_panel.imports.sources import FileSource, StreamSource, planned
from customer_panel.imports.stop import Stop, StopRequested
from customer_panel.imports.unchanged import MOST_GROWTHS, Unchanged
from customer_panel.sql import statement

NO_FEED = -1  # the source of no customer: for a feed that has no import yet


def dry_run(
    request: ImportRequest,
    dsn: str,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    on_note: Callable[[str], None] = lambda _: None,
    stop: Stop | None = None,
) -> ImportResult:
    """Counts what a new import of the source would do to the database as it is now.

    Raises SourceError (SourceChanged too), MappingError, Stopped, DatabaseError.
    """
    stop, source, seconds = stop or Stop(), request.source, request.tuning.settle_s
    try:
        with stop.calling(source.stop):
            tally = Tally(source.size_now(), on_progress)
            if seconds and isinstance(source, FileSource):
                on_note(settling.note(source, seconds))
                tally.enter("settling")
                settling.wait_until_still(source, seconds, stop)
                tally.bytes_total = source.size
            return _DryRun(request, dsn, tally, stop).result()
    except StopRequested:
        raise _stopped() from None
    except psycopg.Error as error:
        if is_loss(error):
            raise DatabaseLost(hint="Run it again; a dry run writes nothing.") from error
        raise


class _DryRun:
    def __init__(self, request: ImportRequest, dsn: str, tally: Tally, stop: Stop) -> None:
        self.source = request.source
        self.plan = planned(request.source, request.options)
        self.feed = request.options.source or DEFAULT_SOURCE
        self.clears = self.plan.fields if request.options.blank == "clear" else 0
        self.tally = tally
        self.stop = stop
        self.sessions = Sessions(dsn)
        self.scan = Scan(
            source=self.source,
            plan=self.plan,
            tuning=request.tuning,
            sessions=self.sessions,
            tally=tally,
            stop=stop,
            unchanged=Unchanged(self.source, stop),
        )
        self.notes: list[str] = []

    def result(self) -> ImportResult:
        with self.sessions.job() as conn:
            source = query.first(conn, "find_source", name=self.feed)
            source_id = NO_FEED if source is None else source[0]
            for job in ledger.open_jobs(conn):
                if job["file_path"] is not None and job["file_path"] == str(self.source.path):
                    self.notes.append(
                        f"import {job['id']} of this file is not finished:"
                        " the rows that it has brought so far count as unchanged here"
                    )
            total = lanes_needed(conn, self.scan)
            growths = 0
            while True:
                try:
                    end = self._read(conn, source_id, total)
                    size = self.scan.unchanged.check()
                    if size is None or size <= end:
                        break
                    # It has written nothing, so it begins again, not at the end as an import does.
                    growths += 1
                    if growths > MOST_GROWTHS:
                        self.notes.append(
                            "the file went on growing while it was read; what is behind byte"
                            f" {end} was left out"
                        )
                        break
                except OverBudget:
                    if isinstance(self.source, StreamSource):
                        raise SourceNotResumable(
                            "the stream has more identities than CP_MEMORY has room for,"
                            " and it cannot be read twice"
                        ) from None
                    # Like an import: twice as many lanes, with half of the identities in each pass.
                    total *= 2
        self.tally.enter("done")
        return result_of(
            self.tally.counts(),
            self.plan,
            elapsed_sec=self.tally.elapsed_s,
            maintenance_sec=0.0,
            job_id=None,
            status="COMPLETED",
            source=self.feed,
            is_resumed=False,
            bytes_read=end,
            notes=tuple(self.notes),
        )

    def _read(self, conn: Connection, source_id: int, total: int) -> int:
        """Reads the source in as many passes as `total` lanes need; returns the byte of its end."""
        lanes = [decision.new_lane(number, self.plan.data_start) for number in range(total)]
        self.tally.begin(None, lanes, self.plan.data_start)
        seed = database_seed(conn)
        at_once = lanes_at_once(self.scan.tuning)
        end: int | None = None
        for first in range(0, total, at_once):
            this = Pass(
                lanes=lanes[first : first + at_once],
                total=total,
                seed=seed,
                import_id=None,
                clears_blanks=self.clears != 0,
                parks_changed=False,
                parks_many=True,
                until=end,
            )
            end = self._pass(conn, this, source_id)
        return end or 0

    def _pass(self, conn: Connection, this: Pass, source_id: int) -> int:
        self.tally.enter("scanning")
        with contextlib.ExitStack() as stack:
            counters = {
                lane.lane: _LaneCount(
                    stack.enter_context(self.sessions.lane()), source_id, self.clears
                )
                for lane in this.lanes
            }
            known = load_known(conn, self.scan, this)
            # The sessions are open longer than the pass: the last rows are counted after its end.
            ended = run_pass(
                self.scan,
                this,
                known,
                lambda lane: contextlib.nullcontext(counters[lane].count),
            )
            for tail in [] if ended is None else ended.tails:
                self.tally.committed(counters[tail.lane].count(tail), tail.lane, tail.span[1])
            self.tally.enter("merging")
            for counter in counters.values():
                if ended is None or self.stop.is_asked():
                    raise _stopped()
                self.tally.committed(counter.count_parked())
        assert ended is not None
        return this.until or ended.end


class _LaneCount:
    """Counts the batches of one lane over one connection, with temporary tables only."""

    def __init__(self, conn: Connection, source_id: int, clears: int) -> None:
        self.conn = conn
        self.source_id = source_id
        self.clears = clears
        prepare(conn)
        with conn.transaction():
            conn.execute(statement("create_dry_run"))

    def count(self, batch: Batch) -> Counts:
        """What an import would count for this batch."""
        counts, new, changed = counted(batch)
        counts.inserted = new
        with self.conn.transaction():
            if changed:
                copy_to_stage(self.conn, batch.changed(self.clears))
                counts.add(self._count_merge())
            if counts.duplicate or counts.pending:
                query.copy_in(self.conn, "copy_dry_run", batch.parked(0))
        return counts

    def count_parked(self) -> Counts:
        """What an import would count for the parked rows after the end of the file."""
        with self.conn.transaction():
            self.conn.execute(statement("stage_dry_run"), {"clears": self.clears})
            counts = self._count_merge()
        counts.pending = -sum((counts.inserted, counts.updated, counts.unchanged, counts.protected))
        return counts

    def _count_merge(self) -> Counts:
        firsts, inserted, updated, protected = query.only(
            self.conn, "count_merge", source_id=self.source_id
        )
        return Counts(
            inserted=inserted,
            updated=updated,
            protected=protected,
            unchanged=firsts - inserted - updated - protected,
        )


def _stopped() -> Stopped:
    return Stopped("the dry run was stopped", hint="Run it again; it has written nothing.")
