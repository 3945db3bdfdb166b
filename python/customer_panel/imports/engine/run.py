"""One call of an import: first what other imports of its feed left, then the import itself."""

from __future__ import annotations

import contextlib

import msgspec

from customer_panel.db.connect import Connection
from customer_panel.db.query import Row
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    Interrupted,
    SourceError,
    SourceNotFound,
    Stopped,
)
from customer_panel.imports.engine import ending
from customer_panel.imports.engine.part import Part
from customer_panel.imports.engine.request import Hooks, ImportRequest, Notes
from customer_panel.imports.job import choice, ledger
from customer_panel.imports.job.choice import Replaced
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import ImportResult, Options
from customer_panel.imports.sources import FileSource, StreamSource
from customer_panel.imports.stop import Stop


class Run:
    """One call of `run_import`; `attempt` is repeated after a lost connection."""

    def __init__(self, request: ImportRequest, dsn: str, hooks: Hooks, stop: Stop) -> None:
        self.request = request
        self.hooks = hooks
        self.stop = stop
        self.notes = Notes(hooks)
        self.sessions = Sessions(dsn)
        self.own = Part(request, self.sessions, hooks, stop, self.notes, only=request.resumes)
        self.part = self.own  # the one that runs
        self._has_begun = False
        self.has_connected = False

    @property
    def has_begun(self) -> bool:
        """Whether an import was claimed: after a lost connection there is something to go on with."""
        return self._has_begun or self.part.has_claimed

    @property
    def is_lost_with_connection(self) -> bool:
        """Whether the import that runs cannot go on after a lost connection."""
        return self.part.has_claimed and isinstance(self.part.source, StreamSource)

    def attempt(self) -> ImportResult:
        with self.sessions.job() as conn:
            self.has_connected = True
            with self.sessions.cancelling(self.stop):
                if not ledger.try_lock(conn):
                    raise AlreadyRunning
                ending.settle(self.sessions, conn, spared=self.own.only, on_note=self.notes.add)
                if self.request.resumes is None and not self.own.has_claimed:
                    self._see_to_open_ones(conn)
            self.part = self.own
            try:
                result = self.own.run(conn)
            except Replaced as replaced:
                # Its file is another one by now, or is read in another way: imported from its start.
                self._begin_anew(replaced.job, is_same_file=replaced.is_same_file)
                return self.own.run(conn)
            if self.own.has_new_file and not self.request.is_unasked:
                self.notes.add(
                    f"import {result.job_id} is finished; its path holds another file by now"
                )
                self._begin_anew(ledger.get(conn, result.job_id or 0), is_same_file=False)
                return self.own.run(conn)
            return result

    def _begin_anew(self, job: Row, *, is_same_file: bool) -> None:
        """From now on the own part is a new import of the file, for the feed of `job`."""
        options = self.request.options
        kept = {"source": options.source or job["source"]}
        if is_same_file or self.request.resumes is not None:
            kept |= {name: job["options"][name] for name in ("date_order", "blank")}
        request = msgspec.structs.replace(
            self.request,
            options=msgspec.structs.replace(options, **kept),
            # If it was to stand still first, it has.
            tuning=msgspec.structs.replace(self.request.tuning, settle_s=self.own.settle_s),
        )
        part = Part(request, self.sessions, self.hooks, self.stop, self.notes)
        if is_same_file:
            part.plan, part.plan_error = ledger.plan_of(job), None
        self._has_begun = True
        self.part = self.own = part

    # -- other imports -----------------------------------------------------------------------------

    def _see_to_open_ones(self, conn: Connection) -> None:
        """Chooses the interrupted import of this file, and sees to those of other files of its feed."""
        jobs = ledger.open_jobs(conn)
        own = choice.own(jobs, self.own.source, self.request.options)
        for job in choice.unfinished(jobs, own, self.request.options):
            self._see_to(conn, job)
        self.own.only = None if own is None else own["id"]
        if own is not None and self.request.restarts:
            self.own.only = None
            self._cancel(conn, own, "a new import of its file was asked for (--restart)")

    def _see_to(self, conn: Connection, job: Row) -> None:
        """Finishes an interrupted import of another file, or says why not. Raises Interrupted."""
        name = choice.named(job)
        is_paused = job["status"] == "PAUSED"
        if self.request.is_strict:
            state = "is paused" if is_paused else "was interrupted"
            raise Interrupted(f"{name} {state} and is not finished")
        if is_paused:
            self.notes.add(f"{name} is paused, and stays so")
        elif self.request.restarts:
            self._cancel(conn, job, "a new import of its feed was asked for (--restart)")
        else:
            try:
                source = self.request.opens(job["file_path"])
            except SourceNotFound as error:
                self._cancel(conn, job, f"its file is gone: {error.message}")
            except SourceError as error:
                self._leave(conn, job, f"its file cannot be opened: {error.message}")
            else:
                with contextlib.closing(source):
                    self._finish(conn, job, source)

    def _finish(self, conn: Connection, job: Row, source: FileSource) -> None:
        name = choice.named(job)
        if job["newer_id"] is not None:
            self._leave(conn, job, choice.overtaken(job))
            return
        if not self.request.finishes_others:
            tried = "" if job["error"] is None else f" (its last attempt: {job['error']})"
            raise Interrupted(
                f"{name} was interrupted and is finished first: it goes on by itself{tried};"
                " try again when it has ended"
            )
        self.notes.add(f"{name} was interrupted: it is finished first")
        # A request to stop that job ends it alone. Who stops this call means both.
        stop = Stop()
        request = msgspec.structs.replace(self.request, source=source, options=Options())
        hooks = Hooks(on_progress=self.hooks.on_progress)
        self.part = Part(
            request, self.sessions, hooks, stop, self.notes, only=job["id"], is_own=False
        )

        def pass_on() -> None:
            # Paused was the call, not this job: the same command again goes on with it first.
            stop.ask("INTERRUPTED" if self.stop.status == "PAUSED" else self.stop.status)

        with self.stop.calling(pass_on):
            try:
                result = self.part.run(conn)
            except Stopped:
                if self.stop.is_asked():
                    raise
                self.notes.add(f"{name} was stopped by request")
            except SourceError as error:
                self.notes.add(f"{name} is not finished: {error.message}")
            except (Replaced, ClaimLost):
                pass  # is said already, or was ended by somebody else
            else:
                self.notes.add(f"{name} is finished: {result.rows_processed:,} rows")
        self._has_begun = True

    def _cancel(self, conn: Connection, job: Row, reason: str) -> None:
        self._has_begun = True
        is_done = ending.cancel(
            self.sessions, conn, job["id"], reason=reason, stop=self.stop, on_note=self.notes.add
        )
        if not is_done:
            raise Stopped
        self.notes.add(f"{choice.named(job)} is cancelled: {reason}; the rows it wrote stay")

    def _leave(self, conn: Connection, job: Row, reason: str) -> None:
        ledger.explain(conn, job["id"], reason)
        self.notes.add(f"{choice.named(job)} stays interrupted: {reason}")
