"""The connections of an import: the settings of their sessions, and how statements are cancelled."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping

import psycopg

from customer_panel.db.connect import Connection, connect
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.stop import Stop
from customer_panel.sql import statement

# This package reports lost connections itself. The driver's warnings go to the log of the
# application; without one they must not go to the terminal.
logging.getLogger("psycopg").addHandler(logging.NullHandler())
# If the server crashes, rows and checkpoint of a commit are lost together, so a commit need not wait
# for the disk.
LANE = {"synchronous_commit": "off", "maintenance_work_mem": "256MB"}
# The backend of a killed client must end while it works, or it keeps its locks.
NOTICE = (
    b"SET client_connection_check_interval = 500;"
    b"SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
)
JOIN_S = 2.0  # for the answer to the last statement of a thread beside the import
GRACE_S = 1.0  # a batch takes less; statements that take longer are cancelled


class Sessions:
    """Opens the sessions of one import."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._working: weakref.WeakSet[Connection] = weakref.WeakSet()
        # Reentrant: `cancel` may run in a signal handler of the thread that holds it.
        self._lock = threading.RLock()

    def job(self) -> Connection:
        """The session that holds the runner lock and writes the job's states, each committed at once
        and durably.
        """
        return self._open("import")

    def lane(self) -> Connection:
        conn = self._open("import lane", LANE)
        conn.autocommit = False
        return conn

    def listener(self) -> Connection:
        return self._open("import requests")

    def clock(self) -> Connection:
        return self._open("import clock")

    @contextlib.contextmanager
    def cancelling(self, stop: Stop) -> Iterator[None]:
        """Inside `with`, a stop waits for a statement no longer than a batch takes: a longer one (an
        index, a merge, a VACUUM, or one that waits for somebody's lock) is cancelled, and done again
        on resume.
        """
        is_over = threading.Event()

        def cancel() -> None:
            while not is_over.wait(GRACE_S):
                self.cancel()

        def begin() -> None:
            threading.Thread(target=cancel, name="cp-cancel", daemon=True).start()

        with stop.calling(begin):
            try:
                yield
            finally:
                is_over.set()

    def cancel(self) -> None:
        """Cancels statements that have run for longer than GRACE_S; their transactions roll back."""
        with self._lock:
            working = [conn for conn in self._working if not conn.closed]
        processes = [conn.info.backend_pid for conn in working]
        # Without a connection more, the next attempt may have one.
        with (
            contextlib.suppress(psycopg.Error, CustomerPanelError),
            connect(self.dsn, part="import cancel", autocommit=True) as conn,
        ):
            conn.execute(statement("cancel_long"), {"processes": processes, "seconds": GRACE_S})

    def _note(self, conn: Connection) -> None:
        with self._lock:
            self._working.add(conn)

    def _open(self, part: str, settings: Mapping[str, str] | None = None) -> Connection:
        conn = connect(
            self.dsn,
            part=part,
            autocommit=True,
            settings=settings,
            writes=True,
            on_open=self._note,
        )
        try:
            conn.execute(statement("lower_deadlock_timeout"))
            # Some platforms cannot check a connection, and refuse the setting. There a backend
            # notices a lost client when it writes to it.
            with contextlib.suppress(psycopg.errors.InvalidParameterValue):
                conn.execute(NOTICE)
        except BaseException:
            conn.close()
            raise
        return conn


@contextlib.contextmanager
def beside(
    name: str,
    opened: Callable[[], Connection],
    work: Callable[[Connection, threading.Event], None],
    *,
    pause_s: float,
    wake: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Inside `with`, a thread does `work` over a session of its own, until that returns; if the session
    is lost, after `pause_s` over another one. The import does not fail with it: its own sessions report
    what they lose.

    The event says that it is over; `wake` makes the thread look at it.
    """
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            with contextlib.suppress(psycopg.Error, CustomerPanelError), opened() as conn:
                work(conn, is_over)
                return
            is_over.wait(pause_s)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        wake()
        thread.join(JOIN_S)
