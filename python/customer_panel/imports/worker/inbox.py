"""What reaches an idle worker: submissions, wake-ups, and the notifications of its session."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future

import msgspec
import psycopg

from customer_panel.db.connect import Connection, connect
from customer_panel.db.migrate import migrate
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.engine.request import ImportRequest
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Tuning
from customer_panel.imports.sources import FileSource
from customer_panel.sql import statement

Created = Callable[[Connection, int], None]


class Submission(msgspec.Struct, kw_only=True):
    """An import that a caller has asked for and waits for: `future` gets its number."""

    path: str
    resumes: int | None
    is_strict: bool
    is_forced: bool
    tuning: Tuning
    progress_every_ms: int | None
    on_created: Created
    future: Future[int]

    def request(self, source: FileSource, opens: Callable[[str], FileSource]) -> ImportRequest:
        return ImportRequest(
            source=source,
            tuning=self.tuning,
            is_strict=self.is_strict,
            is_forced=self.is_forced,
            resumes=self.resumes,
            finishes_others=False,
            opens=opens,
        )

    def begun(self, dsn: str, import_id: int) -> None:
        """Gives the caller the number of the import."""
        if self.progress_every_ms is not None:
            # May fail: if this connection is lost, so are those of the import, which reports it.
            with (
                contextlib.suppress(psycopg.Error, CustomerPanelError),
                Sessions(dsn).job() as conn,
            ):
                conn.execute(
                    statement("set_progress_every"),
                    {"import_id": import_id, "progress_every_ms": self.progress_every_ms},
                )
        if not self.future.done():
            self.future.set_result(import_id)

    def failed(self, error: Exception) -> bool:
        """Raises `error` in the caller, unless it has its answer; False if it has."""
        if self.future.done():
            return False
        self.future.set_exception(error)
        return True

    def is_wanted(self) -> bool:
        """Whether the caller still waits. If not, no import is started: it was promised none."""
        return self.future.set_running_or_notify_cancel()

    def reject(self, error: CustomerPanelError) -> None:
        """Raises `error` in the caller that waits: the import is not started."""
        if self.is_wanted():
            self.future.set_exception(error)


class Waker:
    """Wakes the one thread that waits. May be called from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._sender.send(b"\0")

    def wait(self, seconds: float, conn: Connection | None) -> None:
        """Returns after `seconds`, when `wake` is called or when `conn` is notified.

        Raises psycopg.OperationalError when `conn` is lost.
        """
        # Not select: a server may have more than a thousand descriptors.
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            if conn is not None:
                selector.register(conn.fileno(), selectors.EVENT_READ)
            selector.select(seconds)
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(64):
                pass
        if conn is not None:
            for _ in conn.notifies(timeout=0):
                pass


class Session:
    """The session of an idle worker: opened when it is needed, and notified of requests."""

    def __init__(self, dsn: str, *, has_schema: bool) -> None:
        self.dsn = dsn
        self.has_schema = has_schema  # the schema is known to be up to date
        self.conn: Connection | None = None

    def open(self) -> Connection:
        """Raises DatabaseError."""
        self.migrate()
        if self.conn is None:
            self.conn = connect(self.dsn, part="import worker", autocommit=True, writes=True)
            self.conn.execute(b"LISTEN customer_panel_requests")
        return self.conn

    def migrate(self) -> None:
        if not self.has_schema:
            migrate(self.dsn)
            self.has_schema = True

    def close(self) -> None:
        conn, self.conn = self.conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                conn.close()
