"""One job of a run, from its claim to its end.

The phases: settling (if it is wanted) -> verifying -> scanning (passes of lanes) -> indexing ->
merging (parked rows) -> maintenance -> done
"""

from __future__ import annotations

import contextlib

import psycopg

from customer_panel.db.connect import Connection, is_loss
from customer_panel.db.query import Row
from customer_panel.errors import (
    ClaimLost,
    CustomerPanelError,
    MappingError,
    Overtaken,
    SourceChanged,
    SourceEmpty,
    SourceError,
    SourceUnreadable,
    Stopped,
)
from customer_panel.imports import settling
from customer_panel.imports.engine import ending, finish, indexes
from customer_panel.imports.engine.lanes import Lanes, lanes_needed
from customer_panel.imports.engine.passes import Scan
from customer_panel.imports.engine.request import Hooks, ImportRequest, Notes
from customer_panel.imports.job import choice, decision, ledger
from customer_panel.imports.job.choice import Replaced
from customer_panel.imports.job.clock import beating
from customer_panel.imports.job.progress import Tally, result_of
from customer_panel.imports.job.requests import listening
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, ImportResult, Lane, Phase, total
from customer_panel.imports.sources import FileSource, StreamSource, planned
from customer_panel.imports.stop import Stop, StopRequested
from customer_panel.imports.unchanged import Unchanged
from customer_panel.states import ENDED, Status


class Part:
    """One job of a run: its file, how that is read, and what has become of it so far."""

    def __init__(
        self,
        request: ImportRequest,
        sessions: Sessions,
        hooks: Hooks,
        stop: Stop,
        notes: Notes,
        *,
        only: int | None = None,
        is_own: bool = True,
    ) -> None:
        """only: the job to resume and no other. is_own: the caller has asked for this file."""
        self.request, self.sessions, self.hooks = request, sessions, hooks
        self.source, self.options = request.source, request.options
        self.stop, self.notes = stop, notes
        self.is_own, self.only = is_own, only  # once claimed, our own job
        self.has_claimed = False  # it is claimed: after a lost connection it has to be resumed
        self.is_checked = False  # it may go on: its file is the one that it began with
        self.is_resumed = False
        self.has_new_file = False  # its rows were all read before, and its path holds another file
        self.before_ms = 0  # the elapsed time of earlier runs
        self.tally = Tally(self.source.size_now(), hooks.on_progress)
        # Raised only for a new import. A job that is resumed has a plan of its own.
        self.plan_error: SourceError | None = None
        self.settle_s = request.tuning.settle_s if isinstance(self.source, FileSource) else 0
        self.unchanged = Unchanged(self.source, self.stop, self.tally.written)
        try:
            self.plan = decision.UNDECIDED if self.settle_s else planned(self.source, self.options)
        except SourceError as error:
            self.plan_error = error

    def run(self, conn: Connection) -> ImportResult:
        """Resumes or begins the job, and ends it. Raises Replaced when it is cancelled because it cannot
        go on; Stopped, ClaimLost, SourceError, Overtaken.
        """
        claim = None
        try:
            with self.sessions.cancelling(self.stop):
                job = self._job_to_resume(conn) or self._begin(conn)
                if job["status"] == "COMPLETED":
                    return self._result(conn, job["id"])  # only the answer to its end was lost
                claim = self._claim(conn, job)
                with (
                    listening(self.sessions, conn, claim.import_id, self.stop),
                    beating(self.sessions, claim, self._beat_ms),
                ):
                    claim, job = self._settle(conn, claim, job)
                    self._check(conn, claim, job)
                    maintenance_s = self._work(conn, claim, job)
                self._end(conn, claim, "COMPLETED", maintenance_s=maintenance_s)
                claim = None
                return self._result(conn, job["id"])
        except BaseException as error:
            if claim is not None:
                self._save_failure(conn, claim, job, error)
            raise

    def _claim(self, conn: Connection, job: Row) -> Claim:
        is_again = self.has_claimed or self.request.is_unasked
        claim = ledger.claim(conn, job["id"], forgets_pause=self.is_own and not is_again)
        if not self.has_claimed:
            self.has_claimed, self.only = True, claim.import_id
            self.before_ms = claim.before_ms
            self.hooks.on_claimed(claim.import_id)
        return claim

    def _job_to_resume(self, conn: Connection) -> Row | None:
        """The job, if it is there already; it may be completed. Raises ClaimLost when it has ended in
        another way: it must not begin anew.
        """
        if self.only is None:
            return None
        job = ledger.find(conn, self.only)
        if job is None or job["status"] in ENDED:
            if job is None or job["status"] != "COMPLETED" or not self.has_claimed:
                raise ClaimLost
        elif self.request.resumes is not None:
            # What could replace newer values is refused at once; else after its file was compared.
            self._refuse_overtaken(conn, job)
        return job

    def _refuse_overtaken(self, conn: Connection, job: Row) -> None:
        if job["newer_id"] is not None and not self.request.is_forced:
            reason = choice.overtaken(job)
            ledger.explain(conn, job["id"], reason)
            raise Overtaken(reason)

    def _check(self, conn: Connection, claim: Claim, job: Row) -> None:
        """Whether a job may go on. Raises Replaced, or what the caller is to be told instead."""
        lanes = ledger.lanes_of(conn, claim.import_id)
        self.tally.begin(claim.import_id, lanes, job["data_start"])
        is_read = job["scanned_to"] is not None  # to its end: what is left to do needs no file
        if job["epoch"] > 0 and not (is_read and self.is_checked):
            try:
                self._verify(conn, claim, job, lanes)
            except SourceChanged as changed:
                self.has_new_file = is_read and not self.request.is_strict
                if not self.has_new_file:
                    why = changed.message.partition(";")[0]  # its rows are told by the state
                    other = Replaced(why, job, is_same_file=False)
                    raise self._instead(changed, other) from None
            except SourceUnreadable:
                if not is_read:
                    raise
        if not self.is_checked:
            if found := choice.obstacle(job, self.options):
                raise self._instead(*found)
            self._refuse_overtaken(conn, job)
            if self.source.path is not None and str(self.source.path) != job["file_path"]:
                ledger.rename(conn, claim, str(self.source.path))
            self.plan, self.is_resumed, self.is_checked = ledger.plan_of(job), True, True
            self.notes.add(f"going on with import {job['id']}, which was interrupted")
        self.hooks.on_begun(claim.import_id)

    def _instead(self, error: SourceError, replaced: Replaced) -> SourceError | Replaced:
        """What ends the run of a job that cannot go on."""
        job, is_same_file = replaced.job, replaced.is_same_file
        is_unwanted = self.request.is_unasked and not is_same_file
        if self.is_checked or self.request.is_strict or is_unwanted:
            return error
        if self.is_own and self.plan_error is not None:
            return self.plan_error
        if job["file_path"] != str(self.source.path):
            reason = f"its file is gone, another one has taken its place ({replaced})"
            return Replaced(reason, job, is_same_file=is_same_file)
        return replaced

    def _begin(self, conn: Connection) -> Row:
        if self.plan_error is not None:
            raise self.plan_error
        is_decided = self.plan is not decision.UNDECIDED
        wishes = {} if is_decided else decision.wishes(self.options)
        lanes = lanes_needed(conn, self._scan()) if is_decided else 1
        with conn.transaction():
            is_first_load = is_decided and indexes.drop(conn)
            import_id = ledger.create(
                conn, self.source, self.plan, self.options, lanes, is_first_load, **wishes
            )
            self.hooks.on_created(conn, import_id)
        self.is_checked = True
        return ledger.get(conn, import_id)

    def _scan(self) -> Scan:
        return Scan(
            source=self.source,
            plan=self.plan,
            tuning=self.request.tuning,
            sessions=self.sessions,
            tally=self.tally,
            stop=self.stop,
            unchanged=self.unchanged,
        )

    # -- its end -----------------------------------------------------------------------------------

    def _save_failure(self, conn: Connection, claim: Claim, job: Row, error: BaseException) -> None:
        """Writes the state in which `error` leaves the job, unless the connection or claim is lost."""
        with contextlib.suppress(psycopg.Error):
            conn.rollback()  # a transaction whose COMMIT was never sent is still open
        is_stream = isinstance(self.source, StreamSource)
        if self.stop.is_asked() and isinstance(
            error, StopRequested | Stopped | psycopg.errors.QueryCanceled
        ):
            is_failed = is_stream and self.stop.status != "CANCELLED"
            self._end(conn, claim, "FAILED" if is_failed else self.stop.status)
            raise Stopped(f"import {claim.import_id} was stopped at a batch border") from None
        if is_loss(error) or isinstance(error, ClaimLost):
            return
        if isinstance(error, Replaced):
            self._end(conn, claim, "CANCELLED", str(error))
            self.notes.add(f"{choice.named(job)} is cancelled: {error}; the rows it wrote stay")
            return
        # The last two: only after the wait for a file that stands still; before, there is no job.
        is_final = is_stream or isinstance(error, SourceChanged | MappingError | SourceEmpty)
        status: Status = "FAILED" if is_final else "INTERRUPTED"
        if not self.is_checked and isinstance(error, CustomerPanelError):
            # Refused: it stays what it was. If nobody has asked, nobody is told but by its state.
            is_left = not (isinstance(error, SourceChanged) and self.request.is_unasked)
            if is_left:
                status = "PAUSED" if job["status"] == "PAUSED" else "INTERRUPTED"
        with contextlib.suppress(psycopg.Error, ClaimLost):
            self._end(conn, claim, status, ending.reason_of(error))

    def _end(
        self,
        conn: Connection,
        claim: Claim,
        status: Status,
        error: str | None = None,
        maintenance_s: float = 0.0,
    ) -> None:
        ending.end(
            self.sessions,
            conn,
            claim,
            status,
            error=error,
            elapsed_ms=self._elapsed_ms(maintenance_s),
            maintenance_s=maintenance_s,
            on_counts=self.tally.committed,
            on_note=self.notes.add,
            stop=self.stop,
        )

    # -- the work ----------------------------------------------------------------------------------

    def _work(self, conn: Connection, claim: Claim, job: Row) -> float:
        """All steps between claim and end; returns the seconds of maintenance."""
        tally, source = self.tally, self.source
        if job["scanned_to"] is None:
            # Left by a first load that has not ended, or could not build them. A merge needs the key.
            if not job["keys_deferred"] and not indexes.are_complete(conn):
                self._build_keys(conn, claim)
            self._enter(conn, claim, "scanning")
            end = Lanes(self._scan(), claim).run(conn, parks_changed=job["keys_deferred"])
            if end is not None:
                self.notes.add(
                    f"the file went on growing while it was read; what is behind byte {end} was left"
                    " out: import it again"
                )
        elif not self.has_new_file and (more := (source.size_now() or 0) - job["scanned_to"]) > 0:
            self.notes.add(
                f"the file grew by {more} bytes after it was read to its end: import it again"
            )
        if not indexes.are_complete(conn):
            self._build_keys(conn, claim)
        self._enter(conn, claim, "merging")
        if not finish.merge_parked(self.sessions.lane, claim, tally.committed, self.stop.is_asked):
            raise StopRequested
        self._enter(conn, claim, "maintenance")
        counts = total(ledger.lanes_of(conn, claim.import_id))
        return finish.maintain(self.sessions.lane, counts.inserted + counts.updated)

    def _build_keys(self, conn: Connection, claim: Claim) -> None:
        self._enter(conn, claim, "indexing")
        ending.build_keys(self.sessions, conn, claim, self.tally.committed)

    def _elapsed_ms(self, maintenance_s: float = 0.0) -> int:
        return self.before_ms + round((self.tally.elapsed_s - maintenance_s) * 1000)

    def _beat_ms(self) -> int | None:
        """The time to show while it runs. Maintenance does not count."""
        return None if self.tally.phase in ("maintenance", "done") else self._elapsed_ms()

    def _enter(self, conn: Connection, claim: Claim, phase: Phase) -> None:
        if self.stop.is_asked():
            raise StopRequested
        ledger.set_phase(conn, claim, phase)
        self.tally.enter(phase)

    def _settle(self, conn: Connection, claim: Claim, job: Row) -> tuple[Claim, Row]:
        """Waits until the file stands still, and decides how it is read if that is still open."""
        if isinstance(self.source, FileSource) and self.settle_s and job["scanned_to"] is None:
            self._enter(conn, claim, "settling")
            self.hooks.on_begun(claim.import_id)
            self.notes.add(settling.note(self.source, self.settle_s))
            settling.wait_until_still(self.source, self.settle_s, self.stop)
            self.settle_s = 0  # not once more after a lost connection
            self.tally.bytes_total = self.source.size
        self.unchanged = Unchanged(self.source, self.stop, self.tally.written)
        if decision.is_decided(job):
            return claim, job
        if not self.is_checked:
            # Nothing of it was read, so any file will do.
            self.is_checked = self.is_resumed = True
            self.notes.add(f"going on with import {job['id']}, which was interrupted")
        options = decision.wished(job, self.options)
        self.plan = planned(self.source, options)
        lanes = lanes_needed(conn, self._scan())
        with conn.transaction():
            is_first_load = indexes.drop(conn)
            claim = decision.decide(
                conn, claim, self.source, self.plan, options, lanes, is_first_load
            )
        return claim, ledger.get(conn, claim.import_id)

    def _verify(self, conn: Connection, claim: Claim, job: Row, lanes: list[Lane]) -> None:
        """Compares the file with the hashes of what earlier runs read. Raises SourceChanged."""
        if isinstance(self.source, StreamSource) or all(lane.tail_hash is None for lane in lanes):
            return
        self._enter(conn, claim, "verifying")
        self.unchanged.expect(
            ledger.blocks_of(conn, claim.import_id),
            [(lane.done_to, lane.tail_hash) for lane in lanes],
        )
        self.unchanged.compare(job["file_size"])

    # -- the result --------------------------------------------------------------------------------

    def _result(self, conn: Connection, import_id: int) -> ImportResult:
        job = ledger.get(conn, import_id)
        self.tally.enter("done")
        return result_of(
            total(ledger.lanes_of(conn, import_id)),
            self.plan,
            elapsed_sec=job["elapsed_ms"] / 1000,
            maintenance_sec=job["maintenance_ms"] / 1000,
            job_id=import_id,
            status=job["status"],
            source=job["source"],
            is_resumed=self.is_resumed,
            bytes_read=job["scanned_to"],
            notes=tuple(self.notes.texts),
        )
