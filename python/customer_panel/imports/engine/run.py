"""One run of an import, from its claim to its end.

The phases: verifying -> scanning (passes of lanes) -> indexing -> merging (parked rows) ->
maintenance -> done
"""

from __future__ import annotations

import contextlib

import psycopg

from customer_panel._native import verify
from customer_panel.db.connect import Connection, is_loss
from customer_panel.db.query import Row
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    Interrupted,
    SourceChanged,
    SourceError,
    Stopped,
)
from customer_panel.imports.engine import finish, indexes
from customer_panel.imports.engine.cancel import cancel
from customer_panel.imports.engine.lanes import Lanes, lanes_needed
from customer_panel.imports.engine.passes import Scan
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.job import ledger
from customer_panel.imports.job.progress import Tally, result_of
from customer_panel.imports.job.requests import listening
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, ImportResult, Phase, total
from customer_panel.imports.sources import StreamSource, planned, reading
from customer_panel.imports.stop import Stop, StopRequested
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
        try:
            self.plan = planned(request.source, request.options)
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
        is_final = is_stream or isinstance(error, SourceChanged)
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
                self.plan = ledger.restored_plan(job, self.request.options)
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
        lanes = lanes_needed(conn, self._scan())
        with conn.transaction():
            is_first_load = indexes.drop(conn)
            import_id = ledger.create(
                conn, self.source, self.plan, self.request.options, lanes, is_first_load
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
        )

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
        self.tally.begin(
            claim.import_id, ledger.lanes_of(conn, claim.import_id), self.plan.data_start
        )
        if job["scanned_to"] is None:
            self._verify(conn, claim)
            # Left by a first load that was cancelled or failed; a merge needs the key.
            if not job["keys_deferred"] and not indexes.are_complete(conn):
                self._enter(conn, claim, "indexing")
                finish.build_indexes(self.sessions.lane, claim, self.tally.committed)
            self._enter(conn, claim, "scanning")
            Lanes(self._scan(), claim).run(conn, parks_changed=job["keys_deferred"])
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

    def _verify(self, conn: Connection, claim: Claim) -> None:
        """Compares the file with the hashes of what earlier runs read. Raises SourceChanged."""
        furthest = max(ledger.lanes_of(conn, claim.import_id), key=lambda lane: lane.done_to)
        if furthest.tail_hash is None or isinstance(self.source, StreamSource):
            return
        self._enter(conn, claim, "verifying")
        blocks = ledger.blocks_of(conn, claim.import_id)
        with reading(self.source):
            span = verify(self.source.native, blocks, furthest.done_to, furthest.tail_hash)
        if span is not None:
            raise SourceChanged(span=span)

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
