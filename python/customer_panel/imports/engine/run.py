"""One run of an import, from its claim to its end.

The phases: settling (if it is wanted) -> verifying -> scanning (passes of lanes) -> indexing ->
merging (parked rows) -> maintenance -> done
"""

from __future__ import annotations

import contextlib

import psycopg

from customer_panel.db.connect import Connection, is_loss
from customer_panel.db.query import Row
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    Interrupted,
    MappingError,
    SourceChanged,
    SourceEmpty,
    SourceError,
    Stopped,
)
from customer_panel.imports import settling
from customer_panel.imports.engine import finish, indexes
from customer_panel.imports.engine.cancel import cancel
from customer_panel.imports.engine.lanes import Lanes, lanes_needed
from customer_panel.imports.engine.passes import Scan
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.job import decision, ledger
from customer_panel.imports.job.progress import Tally, result_of
from customer_panel.imports.job.requests import listening
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, ImportResult, Phase, total
from customer_panel.imports.sources import FileSource, StreamSource, planned
from customer_panel.imports.stop import Stop, StopRequested
from customer_panel.imports.unchanged import Unchanged
from customer_panel.states import Status


class Run:
    """One call of `run_import`; `attempt` is repeated after a lost connection."""

    def __init__(self, request: ImportRequest, dsn: str, hooks: Hooks, stop: Stop) -> None:
        self.request = request
        self.source = request.source
        self.hooks = hooks
        self.stop = stop
        self.only = request.resumes  # the job to resume and no other; once claimed, our own job
        self.notes: list[str] = []
        self.sessions = Sessions(dsn)
        self.tally = Tally(request.source.size_now(), hooks.on_progress)
        self.has_claimed = False  # the job is claimed: after a lost connection it has to be resumed
        self.is_resumed = False
        # Raised only for a new import. An interrupted import of this file fails in `verify` instead,
        # which says where the file has changed.
        self.plan_error: SourceError | None = None
        self.settle_s = request.tuning.settle_s if isinstance(self.source, FileSource) else 0
        try:
            self.plan = (
                decision.UNDECIDED if self.settle_s else planned(self.source, request.options)
            )
        except SourceError as error:
            self.plan_error = error

    # -- the job -----------------------------------------------------------------------------------

    def attempt(self) -> ImportResult:
        with self.sessions.job() as conn:
            if not ledger.try_lock(conn):
                raise AlreadyRunning
            job = self._job_to_resume(conn) or self._begin(conn)
            if job["status"] == "COMPLETED":
                # The last commit arrived; only its answer was lost.
                return self._result(conn, job["id"])
            claim = ledger.claim(
                conn,
                job["id"],
                self.plan,
                is_first=not self.has_claimed,
                forgets_pause=not (self.has_claimed or self.request.heeds_pause),
            )
            if not self.has_claimed:
                self.has_claimed, self.only = True, claim.import_id
                self.hooks.on_claimed(claim.import_id)
            maintenance_s = 0.0
            try:
                with (
                    self.sessions.cancelling(self.stop),
                    listening(self.sessions, conn, claim.import_id, self.stop),
                ):
                    maintenance_s = self._work(conn, claim, job)
            except BaseException as error:
                self._save_failure(conn, claim, error)
                raise
            self._end(conn, claim, "COMPLETED", maintenance_s=maintenance_s)
            return self._result(conn, claim.import_id)

    def _save_failure(self, conn: Connection, claim: Claim, error: BaseException) -> None:
        """Writes the state in which `error` leaves the job, unless the connection or claim is lost."""
        is_stream = isinstance(self.source, StreamSource)
        if self.stop.is_asked() and isinstance(
            error, StopRequested | Stopped | psycopg.errors.QueryCanceled
        ):
            if self.stop.status == "CANCELLED":
                cancel(
                    self.sessions.lane,
                    conn,
                    claim,
                    self.tally.committed,
                    elapsed_s=self.tally.elapsed_s,
                )
            elif is_stream:
                self._end(conn, claim, "FAILED")
            else:
                self._end(conn, claim, self.stop.status)
            raise Stopped(f"import {claim.import_id} was stopped at a batch border") from None
        if is_loss(error) or isinstance(error, ClaimLost):
            return
        # The last two: only after the wait for a file that stands still; before, there is no job.
        is_final = is_stream or isinstance(error, SourceChanged | MappingError | SourceEmpty)
        with contextlib.suppress(psycopg.Error, ClaimLost):
            self._end(conn, claim, "FAILED" if is_final else "INTERRUPTED", _text(error))

    def _job_to_resume(self, conn: Connection) -> Row | None:
        """The interrupted import of this file, if there is one; or our own one, completed.

        Also marks other open jobs: streams FAILED, dead ones INTERRUPTED, with `restarts` CANCELLED.
        We hold the lock, so no open job has a runner. Raises ClaimLost when the one to resume has
        ended.
        """
        for job in ledger.open_jobs(conn):
            if job["file_path"] is None:
                ledger.abandon(conn, job["id"], "FAILED")
            elif self.request.restarts and not self.has_claimed:
                ledger.abandon(conn, job["id"], "CANCELLED")
                self._note(
                    f"gave up import {job['id']} of {job['file_path']}; the rows it wrote stay"
                )
            elif self._is_ours(job):
                self.plan = decision.restored(job, self.request.options)
                if not self.has_claimed:
                    self.is_resumed = True
                    self._note(f"going on with import {job['id']}, which was interrupted")
                return job
            else:
                if job["status"] == "RUNNING":
                    ledger.abandon(conn, job["id"], "INTERRUPTED")
                if self.request.leaves_others or self.only is not None:
                    continue
                raise Interrupted(
                    f"import {job['id']} of {job['file_path']} was interrupted and is not finished"
                )
        if self.only is None:
            return None
        # It is no longer open, so it has ended; it must not begin anew.
        only = ledger.find(conn, self.only)
        if only is None or only["status"] != "COMPLETED" or not self.has_claimed:
            raise ClaimLost
        return only

    def _is_ours(self, job: Row) -> bool:
        return job["id"] == self.only if self.only is not None else self._is_of_this_file(job)

    def _is_of_this_file(self, job: Row) -> bool:
        if self.source.path is None:
            return False
        is_same_file = (job["file_device"], job["file_inode"]) == (
            self.source.device,
            self.source.inode,
        )
        return is_same_file or job["file_path"] == str(self.source.path)

    def _begin(self, conn: Connection) -> Row:
        if self.plan_error is not None:
            raise self.plan_error
        options, plan = self.request.options, self.plan
        is_decided = plan is not decision.UNDECIDED
        lanes = lanes_needed(conn, self._scan()) if is_decided else 1
        more = {} if is_decided else decision.wishes(options)
        with conn.transaction():
            is_first_load = is_decided and indexes.drop(conn)
            import_id = ledger.create(
                conn, self.source, plan, options, lanes, is_first_load, **more
            )
            self.hooks.on_created(conn, import_id)
        return self._job(conn, import_id)

    @staticmethod
    def _job(conn: Connection, import_id: int) -> Row:
        job = ledger.find(conn, import_id)
        assert job is not None
        return job

    def _scan(self) -> Scan:
        return Scan(
            source=self.source,
            plan=self.plan,
            tuning=self.request.tuning,
            sessions=self.sessions,
            tally=self.tally,
            stop=self.stop,
            unchanged=Unchanged(self.source, self.stop, self._written),
        )

    def _written(self) -> int:
        counts = self.tally.counts()
        return counts.inserted + counts.updated

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
        self.hooks.on_note(text)

    # -- the work ----------------------------------------------------------------------------------

    def _work(self, conn: Connection, claim: Claim, job: Row) -> float:
        """All steps between claim and end; returns the seconds of maintenance."""
        claim, job = self._settle(conn, claim, job)
        self.tally.begin(
            claim.import_id, ledger.lanes_of(conn, claim.import_id), self.plan.data_start
        )
        if job["scanned_to"] is None:
            scan = self._scan()
            self._verify(conn, claim, job, scan.unchanged)
            # Left by a first load that was cancelled or failed; a merge needs the key.
            if not job["keys_deferred"] and not indexes.are_complete(conn):
                self._enter(conn, claim, "indexing")
                finish.build_indexes(self.sessions.lane, claim, self.tally.committed)
            self._enter(conn, claim, "scanning")
            end = Lanes(scan, claim).run(conn, parks_changed=job["keys_deferred"])
            if end is not None:
                self._note(
                    f"the file went on growing while it was read; what is behind byte {end} was left"
                    " out: import it again"
                )
        elif (size := self.source.size_now()) is not None and size > job["scanned_to"]:
            self._note(
                f"the file grew by {size - job['scanned_to']} bytes after it was read to its end:"
                " import it again"
            )
        if not indexes.are_complete(conn):
            self._enter(conn, claim, "indexing")
            finish.build_indexes(self.sessions.lane, claim, self.tally.committed)
        self._enter(conn, claim, "merging")
        if not finish.merge_parked(
            self.sessions.lane, claim, self.tally.committed, self.stop.is_asked
        ):
            raise StopRequested
        self._enter(conn, claim, "maintenance")
        counts = total(ledger.lanes_of(conn, claim.import_id))
        return finish.maintain(self.sessions.lane, counts.inserted + counts.updated)

    def _enter(self, conn: Connection, claim: Claim, phase: Phase) -> None:
        if self.stop.is_asked():
            raise StopRequested
        ledger.set_phase(conn, claim, phase)
        self.tally.enter(phase)

    def _settle(self, conn: Connection, claim: Claim, job: Row) -> tuple[Claim, Row]:
        """Waits until the file stands still, and decides how it is read if that is still open."""
        if isinstance(self.source, FileSource) and self.settle_s and job["scanned_to"] is None:
            self._enter(conn, claim, "settling")
            self._note(settling.note(self.source, self.settle_s))
            settling.wait_until_still(self.source, self.settle_s, self.stop)
            self.settle_s = 0  # not once more after a lost connection
            self.tally.bytes_total = self.source.size
        if decision.is_decided(job):
            return claim, job
        options = decision.wished(job, self.request.options)
        self.plan = planned(self.source, options)
        lanes = lanes_needed(conn, self._scan())
        with conn.transaction():
            is_first_load = indexes.drop(conn)
            claim = decision.decide(
                conn, claim, self.source, self.plan, options, lanes, is_first_load
            )
        return claim, self._job(conn, claim.import_id)

    def _verify(self, conn: Connection, claim: Claim, job: Row, unchanged: Unchanged) -> None:
        """Compares the file with the hashes of what earlier runs read. Raises SourceChanged."""
        lanes = ledger.lanes_of(conn, claim.import_id)
        if isinstance(self.source, StreamSource) or all(lane.tail_hash is None for lane in lanes):
            return
        self._enter(conn, claim, "verifying")
        unchanged.expect(
            ledger.blocks_of(conn, claim.import_id),
            [(lane.done_to, lane.tail_hash) for lane in lanes],
        )
        unchanged.compare(job["file_size"])

    # -- the result --------------------------------------------------------------------------------

    def _result(self, conn: Connection, import_id: int) -> ImportResult:
        job = self._job(conn, import_id)
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
            notes=tuple(self.notes),
        )


def _text(error: BaseException) -> str:
    """The text of an error. Of a database error only the primary message: its detail quotes rows."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or type(error).__name__
    return str(error)
