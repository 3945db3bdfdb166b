"""Listens for requests to pause or cancel a running import.

A request is a row of the job and a notification: so it reaches a runner in any process, and is still
there if that runner dies before it has obeyed.
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

LOOK_S = 1.0  # a notification may be lost with the server; the row is not
REOPEN_S = 0.5  # until a session that was lost is opened again
JOIN_S = 2.0  # for the answer to the last query


@contextlib.contextmanager
def listening(sessions: Sessions, conn: Connection, import_id: int, stop: Stop) -> Iterator[None]:
    """Inside `with`, a request for the import asks `stop` at once; `conn` is the job's session."""
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            # The import goes on while this session is lost; its own ones report what they lose.
            with contextlib.suppress(psycopg.Error, CustomerPanelError), sessions.listener() as own:
                own.execute(b"LISTEN customer_panel_requests")
                while not is_over.is_set():
                    # Read after LISTEN: also what was asked for while nobody listened.
                    for row in query.rows(own, "requested", import_id=import_id):
                        stop.ask(row["requested"])
                    for _ in own.notifies(timeout=LOOK_S, stop_after=1):
                        pass
            is_over.wait(REOPEN_S)

    thread = threading.Thread(target=listen, name="cp-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        with contextlib.suppress(psycopg.Error):
            # Wakes the thread, and other servers whose imports wait for this one.
            conn.execute(b"NOTIFY customer_panel_requests")
        thread.join(JOIN_S)
