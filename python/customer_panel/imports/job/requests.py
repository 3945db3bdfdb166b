"""Listens for requests to pause or cancel a running import.

A request is a row of the job and a notification: so it reaches a runner in any process, and is still
there if that runner dies before it has obeyed.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager

import psycopg

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.job.sessions import Sessions, beside
from customer_panel.imports.stop import Stop

LOOK_S = 1.0  # a notification may be lost with the server; the row is not
REOPEN_S = 0.5  # until a session that was lost is opened again


def listening(
    sessions: Sessions, conn: Connection, import_id: int, stop: Stop
) -> AbstractContextManager[None]:
    """Inside `with`, a request for the import asks `stop` at once; `conn` is the job's session."""

    def listen(own: Connection, is_over: threading.Event) -> None:
        own.execute(b"LISTEN customer_panel_requests")
        while not is_over.is_set():
            # Read after LISTEN: also what was asked for while nobody listened.
            for row in query.rows(own, "requested", import_id=import_id):
                stop.ask(row["requested"])
            for _ in own.notifies(timeout=LOOK_S, stop_after=1):
                pass

    def wake() -> None:
        with contextlib.suppress(psycopg.Error):
            # Wakes the thread, and other servers whose imports wait for this one.
            conn.execute(b"NOTIFY customer_panel_requests")

    return beside("cp-requests", sessions.listener, listen, pause_s=REOPEN_S, wake=wake)
