"""Listens to what others ask of a running import: to pause, or to be cancelled.

Whoever asks writes it on the job and notifies; so it reaches every runner, in whichever process,
and outlives one that dies before it could obey.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.stop import Stop

LOOK_S = 1.0  # a notification may get lost with the server; the request is on the job
JOIN_S = 2.0  # for the answer to the last look


@contextlib.contextmanager
def listening(sessions: Sessions, conn: Connection, import_id: int, stop: Stop) -> Iterator[None]:
    """While it is entered, a request for the import asks `stop` at once; `conn` is the job's session."""
    is_over = threading.Event()

    def listen() -> None:
        # A session that is lost here is lost to the import too, and reported there.
        with contextlib.suppress(psycopg.Error, CustomerPanelError), sessions.listener() as own:
            own.execute(b"LISTEN customer_panel_requests")
            while not is_over.is_set():
                for row in query.rows(own, "requested", import_id=import_id):
                    stop.ask(row["requested"])
                for _ in own.notifies(timeout=LOOK_S, stop_after=1):
                    pass

    thread = threading.Thread(target=listen, name="cp-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        with contextlib.suppress(psycopg.Error):
            # Wakes it; and servers that wait for their turn.
            conn.execute(b"NOTIFY customer_panel_requests")
        thread.join(JOIN_S)
