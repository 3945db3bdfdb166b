"""The dry run: an import's reading, classifying and judging, with nothing written.

It reads through the same pipeline, against the same map of what the database holds, and judges by
the same conditions (sql/rehearse.sql). Only temporary tables are written, so it needs no lock and
may run beside an import.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg

from customer_panel._native import Batch, Known, OverBudget, Plan
from customer_panel.errors import DatabaseLost, SourceNotResumable, SourceUnreadable, Stopped
from customer_panel.imports.engine import lanes
from customer_panel.imports.engine import passes as scan
from customer_panel.imports.engine.apply import copy_in, counted, prepare
from customer_panel.imports.job import ledger
from customer_panel.imports.job.progress import Tally
from customer_panel.imports.job.result import result_of
from customer_panel.imports.job.sessions import Sessions, is_loss
from customer_panel.imports.model import (
    DEFAULT_SOURCE,
    Counts,
    ImportResult,
    Lane,
    Options,
    Progress,
    Tuning,
)
from customer_panel.imports.sources import Source, StreamSource, planned
from customer_panel.imports.stop import Stop
from customer_panel.sql import statement

Connection = psycopg.Connection[Any]
NO_FEED = -1  # of a feed that was never imported no customer comes


def rehearse(
    source: Source,
    dsn: str,
    options: Options,
    tuning: Tuning,
    *,
    told: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
) -> ImportResult:
    """Counts what a new import of `source` would do to the database as it is now.

    Raises SourceError, MappingError, Stopped, DatabaseError.
    """
    run = _Rehearsal(source, dsn, options, tuning, Tally(source.size_now(), told), stop or Stop())
    try:
        return run.result()
    except OSError as wrong:
        raise SourceUnreadable(f"the file cannot be read: {wrong.strerror or wrong}") from wrong
    except psycopg.Error as wrong:
        if is_loss(wrong):
            raise DatabaseLost(hint="Run it again; a dry run writes nothing.") from wrong
        raise


class _Rehearsal:
    def __init__(
        self,
        source: Source,
        dsn: str,
        options: Options,
        tuning: Tuning,
        tally: Tally,
        stop: Stop,
    ) -> None:
        self.source = source
        self.plan: Plan = planned(source, options)
        self.options = options
        self.tuning = tuning
        self.tally = tally
        self.stop = stop
        self.sessions = Sessions(dsn)
        self.notes: list[str] = []
        self.clears = self.plan.fields if options.blank == "clear" else 0

    def result(self) -> ImportResult:
        feed = self.options.source or DEFAULT_SOURCE
        with self.sessions.job() as conn:
            (seed,) = ledger.one(conn, "database_seed")
            found = ledger.rows(conn, "find_source", name=feed)
            source_id = found[0]["id"] if found else NO_FEED
            for job in ledger.rows(conn, "open_imports"):
                if job["file_path"] is not None and job["file_path"] == str(self.source.path):
                    self.notes.append(
                        f"import {job['id']} of this file is not finished:"
                        " the rows that it has brought so far count as unchanged here"
                    )
            total = lanes.lane_count(self.tuning) * lanes.passes(
                conn, self.source, self.plan, self.tuning
            )
            while True:
                try:
                    end = self._read(conn, seed, source_id, total)
                    break
                except OverBudget:
                    if isinstance(self.source, StreamSource):
                        raise SourceNotResumable(
                            "the stream has more identities than CP_MEMORY has room for,"
                            " and it cannot be read twice"
                        ) from None
                    # As an import does: twice as many lanes, each pass half as large.
                    total *= 2
        self.tally.enter("done")
        return self._counted(feed, end)

    def _read(self, conn: Connection, seed: int, source_id: int, total: int) -> int:
        """Reads the source in as many passes as `total` lanes need; where it ended."""
        self.tally.begin(None, [self._lane(number) for number in range(total)], self._start)
        at_once = lanes.lane_count(self.tuning)
        end: int | None = None
        for first in range(0, total, at_once):
            group = [self._lane(number) for number in range(first, min(first + at_once, total))]
            asked = scan.Pass(
                lanes=group,
                total=total,
                seed=seed,
                import_id=0,
                is_clearing=self.clears != 0,
                parks_changed=False,
                until=end,
            )
            found = lanes.known_of(
                conn, self.source, self.plan, self.tuning, self.sessions, asked, None
            )
            end = self._pass(found, asked, source_id)
        return end or 0

    def _pass(self, found: Known, asked: scan.Pass, source_id: int) -> int:
        self.tally.enter("scanning")
        with contextlib.ExitStack() as stack:
            judges = {
                lane.lane: _Judge(stack.enter_context(self.sessions.lane()), source_id, self.clears)
                for lane in asked.lanes
            }
            # Lanes judge with sessions that outlive the pass: the last rows come after its end.
            ended = scan.run(
                self.source,
                self.plan,
                found,
                asked,
                self.tuning,
                self.tally,
                lambda lane: contextlib.nullcontext(judges[lane].take),
                self.stop.is_asked,
            )
            if ended is not None and ended.tail is not None:
                tail = ended.tail
                self.tally.committed(judges[tail.lane].take(tail), tail.lane, tail.span[1])
            self.tally.enter("merging")
            for judge in judges.values():
                if ended is None or self.stop.is_asked():
                    raise Stopped(
                        "the dry run was stopped", hint="Run it again; it has written nothing."
                    )
                self.tally.committed(judge.parked())
        assert ended is not None
        return asked.until or ended.end

    @property
    def _start(self) -> int:
        return self.plan.data_start

    def _lane(self, number: int) -> Lane:
        return Lane(
            lane=number,
            done_to=self._start,
            tail_hash=None,
            counts=Counts(),
            last_row_hash=None,
            last_line=0,
            recent_ids=[],
        )

    def _counted(self, feed: str, end: int) -> ImportResult:
        return result_of(
            self.tally.counts(),
            self.plan,
            elapsed_sec=self.tally.elapsed_s,
            maintenance_sec=0.0,
            job_id=None,
            status="COMPLETED",
            source=feed,
            is_resumed=False,
            bytes_read=end,
            notes=tuple(self.notes),
        )


class _Judge:
    """Counts the batches of one lane over one connection; a rollback takes back all it wrote."""

    def __init__(self, conn: Connection, source_id: int, clears: int) -> None:
        self.conn = conn
        self.parameters = {"source_id": source_id}
        self.clears = clears
        prepare(conn)
        with conn.transaction():
            conn.execute(statement("create_rehearsal"))

    def take(self, batch: Batch) -> Counts:
        """What an import would count for this batch."""
        counts, fresh, changed = counted(batch)
        counts.inserted = fresh
        with self.conn.transaction():
            if changed:
                copy_in(self.conn, "copy_stage", batch.changed(self.clears))
                counts.add(self._merged())
            if counts.duplicate or counts.pending:
                copy_in(self.conn, "copy_rehearsed", batch.parked(0))
                self.conn.execute(statement("keep_rehearsed"))
        return counts

    def parked(self) -> Counts:
        """What would become of the first rows that waited for the end of the file."""
        with self.conn.transaction():
            self.conn.execute(statement("stage_rehearsed"), {"clears": self.clears})
            counts = self._merged()
        counts.pending = -sum((counts.inserted, counts.updated, counts.unchanged, counts.protected))
        return counts

    def _merged(self) -> Counts:
        firsts, inserted, updated, protected = ledger.one(
            self.conn, "rehearse_merge", **self.parameters
        )
        return Counts(
            inserted=inserted,
            updated=updated,
            protected=protected,
            unchanged=firsts - inserted - updated - protected,
        )
