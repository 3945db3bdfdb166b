"""The thread of a server that runs imports: those it is asked for, and those that were interrupted.

If several servers use one database, each has a worker. The lock in the database lets only one of
them run an import; the others try again every second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from customer_panel.db import query
from customer_panel.db.connect import is_loss
from customer_panel.db.query import Row
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    CustomerPanelError,
    SourceError,
    SourceNotFound,
    Stopped,
)
from customer_panel.imports.engine.ending import cancel_idle, settle_dead
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.job import choice, ledger
from customer_panel.imports.model import RUNNER_LOCK, Progress, Tuning
from customer_panel.imports.roots import open_beneath
from customer_panel.imports.sources import FileSource
from customer_panel.imports.stop import Stop
from customer_panel.imports.worker.backoff import Backoff
from customer_panel.imports.worker.inbox import Created, Session, Submission, Waker
from customer_panel.imports.worker.upkeep import KEYS, Keys, Unreadable
from customer_panel.redaction import log_text
from customer_panel.settings import Settings

LOOK_S = 1.0  # so an interrupted import is resumed within two seconds
FIRST_AWAY_S = 0.1  # a database that restarts is usually back within a second
LONGEST_AWAY_S = 60.0  # for errors that stay: a schema that is too new, for example
SHUTTING_DOWN = "the server is shutting down"

logger = logging.getLogger("customer_panel.imports")


class Worker:
    """One thread, from `start` to `join`. All other methods may be called from any thread.

    While it is idle it looks for interrupted imports and resumes them: at its start, every second,
    and when it is notified. It does not resume paused imports; nor those whose file it cannot open,
    and those that a newer import of their feed has overtaken: these get the reason as their error. No
    error of an import ends the thread: the import becomes INTERRUPTED, and is tried again after a
    delay.
    """

    def __init__(
        self,
        dsn: str,
        settings: Settings,
        *,
        has_schema: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_progress` gets the progress of every import; `revive` restarts an embedded server."""
        self.dsn = dsn
        self.roots = settings.roots()
        self.tuning = Tuning.of(settings)
        self.running: int | None = None  # the import that runs, once it is claimed
        self.progress: Progress | None = None  # the latest
        self._on_progress = on_progress
        self._revive = revive
        self._lock = threading.Lock()
        self._submission: Submission | None = None
        self._stop = Stop()
        self._is_shutting_down = False
        self._session = Session(dsn, has_schema=has_schema)
        self._backoff = Backoff()
        self._keys = Keys(self._session, self._backoff)
        self._unreadable = Unreadable()
        self._is_away, self._away_s = False, 0.0
        self._waker = Waker()
        self._thread = threading.Thread(target=self._work, name="cp-worker", daemon=True)

    # -- for other threads -------------------------------------------------------------------------

    @property
    def has_schema(self) -> bool:
        """Whether the schema is known to be up to date."""
        return self._session.has_schema

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self,
        path: str,
        *,
        resumes: int | None = None,
        is_strict: bool = False,
        is_forced: bool = False,
        batch_rows: int | None = None,
        progress_every_ms: int | None = None,
        on_created: Created = lambda _, __: None,
    ) -> Future[int]:
        """Imports `path`, or resumes its import `resumes`; the future gets the number of the import
        when its rows are about to be read.

        `on_created` may write in the transaction that creates a new import. Raises AlreadyRunning
        while an import runs or waits to. Errors before that, most often SourceError, are raised
        by the future; later ones are in the import's state.
        """
        rows = max(batch_rows or 0, self.tuning.batch_rows)
        submission = Submission(
            path=path,
            resumes=resumes,
            is_strict=is_strict,
            is_forced=is_forced,
            tuning=msgspec.structs.replace(self.tuning, batch_rows=rows),
            progress_every_ms=progress_every_ms,
            on_created=on_created,
            future=Future(),
        )
        with self._lock:
            if self._is_shutting_down or not self.is_alive():
                raise Stopped(SHUTTING_DOWN)
            if self.running is not None or self._submission is not None:
                raise AlreadyRunning
            self._submission = submission
        self.wake()
        return submission.future

    def wake(self) -> None:
        """Makes the thread look for imports now."""
        self._waker.wake()

    def ask_stop(self) -> None:
        """Interrupts the running import at the next batch border, and ends the thread."""
        with self._lock:
            self._is_shutting_down = True
            submission, self._submission = self._submission, None
            stop = self._stop
        if submission is not None:
            submission.reject(Stopped(SHUTTING_DOWN))
        stop.ask("INTERRUPTED")
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Waits for the end of the thread; False if `timeout` was too short."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self.is_alive()

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        wait_s = 0.0
        while True:
            try:
                self._waker.wait(wait_s, self._session.conn)
                if self._is_shutting_down:
                    break
                if self._is_away:
                    with contextlib.suppress(CustomerPanelError):
                        self._revive()
                submission = self._next_submission()
                wait_s = self._look() if submission is None else self._serve(submission)
                if self._is_away:
                    logger.info("the database is back")
                self._is_away, self._away_s = False, 0.0
            except Exception as error:  # is logged; no error may end the thread
                wait_s = self._put_off(error)
        self._session.close()

    def _next_submission(self) -> Submission | None:
        with self._lock:
            submission, self._submission = self._submission, None
        return submission if submission is not None and submission.is_wanted() else None

    def _put_off(self, error: Exception) -> float:
        """Handles an error outside of an import; returns the seconds until the next look."""
        self._session.close()
        longest = LOOK_S if is_loss(error) else LONGEST_AWAY_S
        self._away_s = min(self._away_s * 2 or FIRST_AWAY_S, longest)
        if not is_loss(error):
            logger.error("looking for imports failed: %s", log_text(error))
        elif not self._is_away:
            self._is_away = True
            logger.warning("the database is away; waiting for it")
        return self._away_s

    # -- what waits --------------------------------------------------------------------------------

    def _look(self) -> float:
        """Takes up the first waiting import that it can; returns the seconds until the next look."""
        waiting = query.rows(self._session.open(), "waiting_imports", key=RUNNER_LOCK)
        self._backoff.retain({job["id"] for job in waiting} | {KEYS})
        self._unreadable.retain({job["file_path"] for job in waiting})
        for job in waiting:
            if self._backoff.is_due(job["id"]) and self._resume_or_cancel(job):
                return 0.0
        self._keys.build_missing()
        return LOOK_S

    def _resume_or_cancel(self, job: Row) -> bool:
        """Resumes or cancels the import; False if it cannot be taken up, True even after an error."""
        import_id, path, reason = job["id"], job["file_path"], None
        if job["requested"] == "CANCELLED":
            self._attempt(import_id, lambda stop: self._cancel(import_id, stop))
            return True
        if job["newer_id"] is not None:
            reason = choice.overtaken(job)
        elif path is not None:
            try:
                source = open_beneath(self.roots, path)
            except SourceNotFound as error:
                reason = f"its file is gone: {error.message}"
            except SourceError as error:
                reason = f"its file cannot be opened: {error.message}"
            else:
                request = ImportRequest(
                    source=source, tuning=self.tuning, resumes=import_id, is_unasked=True
                )
                with contextlib.closing(source):
                    self._attempt(import_id, lambda stop: self._run(request, stop))
                return True
        if job["status"] == "RUNNING":
            settle_dead(self.dsn)
        if reason is not None and ledger.explain(self._session.open(), import_id, reason):
            what = "its file" if job["newer_id"] is None else "a user"
            logger.warning("import %d waits for %s: %s", import_id, what, reason)
        return False

    def _open_other(self, path: str) -> FileSource:
        """Opens the file of another import of the feed. Raises SourceError."""
        self._unreadable.check(path)
        return open_beneath(self.roots, path)

    def _cancel(self, import_id: int, stop: Stop) -> None:
        if cancel_idle(self.dsn, import_id, stop, self._on_claimed):
            logger.info("import %d is cancelled", import_id)

    # -- what was submitted ------------------------------------------------------------------------

    def _serve(self, submission: Submission) -> float:
        """Runs a submitted import. Errors before it has begun go to the caller, through the future."""
        try:
            with contextlib.closing(open_beneath(self.roots, submission.path)) as source:
                self._session.migrate()
                request = submission.request(source, self._open_other)
                self._run(
                    request,
                    self._new_stop(),
                    lambda import_id: submission.begun(self.dsn, import_id),
                    submission.on_created,
                )
        except Exception as error:
            claimed = self.running
            if not submission.failed(error) and claimed is not None:
                self._failed(claimed, error)
            elif is_loss(error):
                raise
        finally:
            self._not_running()
        return 0.0

    # -- a run -------------------------------------------------------------------------------------

    def _run(
        self,
        request: ImportRequest,
        stop: Stop,
        on_begun: Callable[[int], None] = lambda _: None,
        on_created: Created = lambda _, __: None,
    ) -> None:
        # Nothing reads this session while an import runs: its notifications would pile up.
        self._session.close()
        hooks = Hooks(
            on_progress=self._report,
            on_note=logger.info,
            on_claimed=self._on_claimed,
            on_begun=on_begun,
            on_created=on_created,
        )
        with self._unreadable.noticing(request.source.name):
            result = run_import(
                request, self.dsn, hooks, stop=stop, revive=self._revive, patience_s=None
            )
        logger.info(
            "import %s is completed: %d rows, %d of them new",
            *(result.job_id, result.rows_processed, result.rows_inserted),
        )

    def _attempt(self, import_id: int, attempt: Callable[[Stop], None]) -> None:
        """Runs `attempt` for a waiting import; after an error the import is delayed."""
        began = time.monotonic()
        try:
            attempt(self._new_stop())
        except Exception as error:
            if is_loss(error) and self.running is None:
                raise
            self._failed(import_id, error, time.monotonic() - began)
        finally:
            self._not_running()

    def _new_stop(self) -> Stop:
        """Raises Stopped when the server shuts down."""
        with self._lock:
            if self._is_shutting_down:
                raise Stopped(SHUTTING_DOWN)
            self._stop = Stop()
            return self._stop

    def _on_claimed(self, import_id: int) -> None:
        with self._lock:
            self.running = import_id
            submission, self._submission = self._submission, None
        if submission is not None:
            # It was submitted while this import was being claimed.
            submission.reject(AlreadyRunning())
        logger.info("import %d is running", import_id)

    def _not_running(self) -> None:
        self._keys.may_be_missing()
        with self._lock:
            self.running = None

    def _report(self, progress: Progress) -> None:
        self.progress = progress
        self._on_progress(progress)

    def _failed(self, import_id: int, error: Exception, attempted_s: float = 0.0) -> None:
        """Logs why a run ended, and delays its import unless it was stopped or runs elsewhere."""
        if isinstance(error, Stopped | AlreadyRunning | ClaimLost):
            logger.info("import %d: %s", import_id, error.message)
            return
        self._backoff.failed(import_id, attempted_s)
        logger.error("import %d failed: %s", import_id, log_text(error))
        # The run has written this state itself, unless that failed too.
        settle_dead(self.dsn)
