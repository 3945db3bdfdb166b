"""The thread of a server that runs imports: those it is asked for, and those that were interrupted.

Of several servers on one database each has a worker; the lock in the database makes one of them
run an import. The others look again every second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import psycopg

from customer_panel.db.connect import connect
from customer_panel.db.migrate import migrate
from customer_panel.errors import (
    AlreadyRunning,
    ClaimLost,
    CustomerPanelError,
    SourceError,
    Stopped,
    described,
)
from customer_panel.imports.engine.cancel import give_up
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.job import ledger
from customer_panel.imports.job.sessions import Sessions, is_loss
from customer_panel.imports.model import Options, Progress, Row, Tuning
from customer_panel.imports.roots import open_beneath
from customer_panel.imports.sources import FileSource
from customer_panel.imports.stop import Stop
from customer_panel.imports.worker.backoff import Rests
from customer_panel.imports.worker.inbox import Bell
from customer_panel.imports.worker.orders import Created, Order
from customer_panel.settings import Settings
from customer_panel.sql import statement
from customer_panel.states import Status

Connection = psycopg.Connection[Any]
LOOK_S = 1.0  # an interrupted import goes on within two seconds
FIRST_AWAY_S = 0.1  # a database that restarts is back in less than a second, most often
LONGEST_AWAY_S = 60.0  # for what waiting does not cure: a schema that is too new, say
LEAVING = "the server is shutting down"

logger = logging.getLogger("customer_panel.imports")


class Worker:
    """One thread, from `start` to `join`. All other methods may be called from any thread.

    While it is idle it takes up what was interrupted, by itself: at once, every second, and when
    it is notified. Paused imports, those of files that it may not open, and those behind which a
    newer one of their feed has begun are left alone. Nothing that happens to an import ends the
    thread: the import is INTERRUPTED then, and tried again after a rest.
    """

    def __init__(
        self,
        dsn: str,
        settings: Settings,
        *,
        told: Callable[[Progress], None] = lambda _: None,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        """`told` hears of every import's progress; `revive` brings back a server that is ours."""
        self.dsn = dsn
        self.roots = settings.roots()
        self.tuning = Tuning(batch_rows=settings.batch_rows, memory_bytes=settings.memory)
        self.has_schema = False  # the schema is known to be up to date
        self.running: int | None = None  # the import that is run, once it is claimed
        self.progress: Progress | None = None  # what was told last
        self._app_told = told
        self._revive = revive
        self._lock = threading.Lock()
        self._order: Order | None = None
        self._stop = Stop()
        self._is_leaving = False
        self._conn: Connection | None = None
        self._rests = Rests()
        self._shut: set[int] = set()  # imports whose file cannot be opened, and that was said
        self._is_away, self._away_s = False, 0.0
        self._bell = Bell()
        self._thread = threading.Thread(target=self._work, name="cp-worker", daemon=True)

    # -- for other threads -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self,
        path: str,
        *,
        resumes: int | None = None,
        batch_rows: int | None = None,
        progress_every_ms: int | None = None,
        created: Created = lambda _, __: None,
    ) -> Future[int]:
        """Imports `path`, or goes on with the import `resumes` of it: its number as soon as it is
        claimed.

        `created` writes into the transaction that makes a new import. Raises AlreadyRunning at
        once while one runs or waits to; the future raises what came before the claim, SourceError
        most often. What comes behind it is told by the import's state.
        """
        rows = max(batch_rows or 0, self.tuning.batch_rows)
        order = Order(
            path=path,
            resumes=resumes,
            tuning=msgspec.structs.replace(self.tuning, batch_rows=rows),
            progress_every_ms=progress_every_ms,
            created=created,
            future=Future(),
        )
        with self._lock:
            if self._is_leaving or not self.is_alive():
                raise Stopped(LEAVING)
            if self.running is not None or self._order is not None:
                raise AlreadyRunning
            self._order = order
        self.wake()
        return order.future

    def wake(self) -> None:
        """Makes it look now."""
        self._bell.ring()

    def ask_stop(self) -> None:
        """Interrupts what runs, at the next batch border, and ends the thread."""
        with self._lock:
            self._is_leaving = True
            order, self._order = self._order, None
            stop = self._stop
        if order is not None:
            order.refuse(Stopped(LEAVING))
        stop.ask("INTERRUPTED")
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Whether the thread has ended in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self.is_alive()

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        wait_s = 0.0
        while True:
            try:
                self._bell.wait(wait_s, self._conn)
                if self._is_leaving:
                    break
                if self._is_away:
                    with contextlib.suppress(CustomerPanelError):
                        self._revive()
                order = self._taken()
                wait_s = self._look() if order is None else self._serve(order)
                if self._is_away:
                    logger.info("the database is back")
                self._is_away, self._away_s = False, 0.0
            except Exception as wrong:  # the thread outlives all of it, and says what it was
                wait_s = self._put_off(wrong)
        self._leave()

    def _taken(self) -> Order | None:
        with self._lock:
            order, self._order = self._order, None
        return order if order is not None and order.is_wanted() else None

    def _put_off(self, wrong: Exception) -> float:
        """After a failure that is no import's: seconds until the next look."""
        self._leave()
        longest = LOOK_S if is_loss(wrong) else LONGEST_AWAY_S
        self._away_s = min(self._away_s * 2 or FIRST_AWAY_S, longest)
        if not is_loss(wrong):
            logger.error("looking for imports failed: %s", _told_of(wrong))
        elif not self._is_away:
            self._is_away = True
            logger.warning("the database is away; waiting for it")
        return self._away_s

    def _leave(self) -> None:
        """Gives the idle session back."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                conn.close()

    def _session(self) -> Connection:
        """The session to look with, which is notified."""
        self._migrate()
        if self._conn is None:
            self._conn = connect(self.dsn, part="import worker", autocommit=True)
            self._conn.execute(b"LISTEN customer_panel_requests")
        return self._conn

    def _migrate(self) -> None:
        if not self.has_schema:
            migrate(self.dsn)
            self.has_schema = True

    # -- what waits --------------------------------------------------------------------------------

    def _look(self) -> float:
        """Takes up the first import that waits and can be; seconds until the next look."""
        waiting = ledger.rows(self._session(), "waiting_imports", key=ledger.LOCK)
        numbers = {job["id"] for job in waiting}
        self._rests.keep(numbers)
        self._shut &= numbers
        for job in waiting:
            if self._rests.is_over(job["id"]) and self._taken_up(job):
                return 0.0
        return LOOK_S

    def _taken_up(self, job: Row) -> bool:
        """Whether the import could be taken up, however that went."""
        if job["requested"] == "CANCELLED":
            self._attempt(job["id"], lambda stop: self._give_up(job["id"], stop))
            return True
        if job["is_newest"] and job["file_path"] is not None:
            try:
                source = open_beneath(self.roots, job["file_path"])
            except SourceError as wrong:
                if job["id"] not in self._shut:
                    self._shut.add(job["id"])
                    logger.warning("import %d waits for its file: %s", job["id"], wrong.message)
            else:
                with contextlib.closing(source):
                    self._attempt(
                        job["id"],
                        lambda stop: self._run(
                            source,
                            stop,
                            self.tuning,
                            self._begun,
                            resumes=job["id"],
                            heeds_pause=True,
                        ),
                    )
                return True
        if job["status"] == "RUNNING":
            # Of a stream nothing can be read again.
            self._mark(job["id"], "FAILED" if job["file_path"] is None else "INTERRUPTED")
        return False

    def _mark(self, import_id: int, status: Status) -> None:
        """An import that says RUNNING and is not; unless somebody takes it up just now."""
        with Sessions(self.dsn).job() as conn:
            if not ledger.try_lock(conn, patience_s=0):
                return
            for job in ledger.rows(conn, "get_import", import_id=import_id):
                if job["status"] == "RUNNING":
                    ledger.abandon(conn, import_id, status)

    def _give_up(self, import_id: int, stop: Stop) -> None:
        if give_up(self.dsn, import_id, stop, self._begun):
            logger.info("import %d was given up", import_id)

    # -- what was asked for ------------------------------------------------------------------------

    def _serve(self, order: Order) -> float:
        """Runs an import that somebody waits for, who hears of all that comes before its claim."""
        claimed: list[int] = []

        def begun(import_id: int) -> None:
            self._begun(import_id)
            claimed.append(import_id)
            if order.progress_every_ms is not None:
                self._note_progress_every(import_id, order.progress_every_ms)
            order.future.set_result(import_id)

        try:
            with contextlib.closing(open_beneath(self.roots, order.path)) as source:
                self._migrate()
                stop = self._entered()
                self._run(source, stop, order.tuning, begun, order.resumes, order.created)
        except Exception as wrong:
            if not claimed:
                order.future.set_exception(wrong)
                if is_loss(wrong):
                    raise
            else:
                self._failed(claimed[0], wrong)
        finally:
            self._exited()
        return 0.0

    def _note_progress_every(self, import_id: int, progress_every_ms: int) -> None:
        # A nicety: if the connection is lost here, so is the import's, and told there.
        with (
            contextlib.suppress(psycopg.Error, CustomerPanelError),
            Sessions(self.dsn).job() as conn,
        ):
            conn.execute(
                statement("set_progress_every"),
                {"import_id": import_id, "progress_every_ms": progress_every_ms},
            )

    # -- a run -------------------------------------------------------------------------------------

    def _run(
        self,
        source: FileSource,
        stop: Stop,
        tuning: Tuning,
        begun: Callable[[int], None],
        resumes: int | None = None,
        created: Created = lambda _, __: None,
        heeds_pause: bool = False,
    ) -> None:
        # Notifications would pile up in a session that nobody reads.
        self._leave()
        result = run_import(
            source,
            self.dsn,
            Options(),
            tuning,
            told=self._told,
            stop=stop,
            revive=self._revive,
            noted=logger.info,
            begun=begun,
            created=created,
            patience_s=None,
            leaves_others=True,
            resumes=resumes,
            heeds_pause=heeds_pause,
        )
        logger.info(
            "import %s is completed: %d rows, %d of them new",
            *(result.job_id, result.rows_processed, result.rows_inserted),
        )

    def _attempt(self, import_id: int, attempt: Callable[[Stop], None]) -> None:
        """Takes up an import that waits; what goes wrong makes it rest."""
        began = time.monotonic()
        try:
            attempt(self._entered())
        except Exception as wrong:
            if is_loss(wrong) and self.running is None:
                raise
            self._failed(import_id, wrong, time.monotonic() - began)
        finally:
            self._exited()

    def _entered(self) -> Stop:
        """Raises Stopped when the server shuts down."""
        with self._lock:
            if self._is_leaving:
                raise Stopped(LEAVING)
            self._stop = Stop()
            return self._stop

    def _exited(self) -> None:
        with self._lock:
            self.running = None

    def _begun(self, import_id: int) -> None:
        with self._lock:
            self.running = import_id
            order, self._order = self._order, None
        if order is not None:
            # It came while this import was being taken up.
            order.refuse(AlreadyRunning())
        logger.info("import %d is running", import_id)

    def _told(self, progress: Progress) -> None:
        self.progress = progress
        self._app_told(progress)

    def _failed(self, import_id: int, wrong: Exception, attempted_s: float = 0.0) -> None:
        """Says why a run ended, and lets its import rest; another server may have been faster."""
        if isinstance(wrong, Stopped | AlreadyRunning | ClaimLost):
            logger.info("import %d: %s", import_id, wrong.message)
            return
        self._rests.begin(import_id, attempted_s)
        logger.error("import %d failed: %s", import_id, _told_of(wrong))
        # The run has written it down itself, unless that failed too.
        self._mark(import_id, "INTERRUPTED")


def _told_of(wrong: Exception) -> str:
    """What a log may say: our own sentences, and of anything else its kind and places."""
    if isinstance(wrong, CustomerPanelError):
        return f"{wrong.code}: {wrong.message}"
    return described(wrong)
