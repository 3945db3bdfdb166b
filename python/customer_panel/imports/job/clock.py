"""Writes the time that an import has taken, again and again while it runs.

What is shown of it is what is written, so it never goes back, whenever the runner is killed; and a run
that is killed counts to the last time that it could write. Each write is durable before anybody sees it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim

# A write every tenth of the time so far: what is shown is at most so much behind.
SHARE = 1 / 10
SHORTEST_S, LONGEST_S = 0.1, 1.0
JOIN_S = 2.0  # for the answer to the last write


@contextlib.contextmanager
def beating(
    sessions: Sessions, claim: Claim, elapsed_ms: Callable[[], int | None]
) -> Iterator[None]:
    """Inside `with`, `elapsed_ms()` is written; None: it stands still."""
    is_over = threading.Event()
    began_ms = elapsed_ms() or 0

    def beat(conn: Connection) -> None:
        """Returns when the claim is lost, or when it is over."""
        while True:
            now_ms = elapsed_ms()
            if now_ms is not None and not query.rows(
                conn, "beat", import_id=claim.import_id, epoch=claim.epoch, elapsed_ms=now_ms
            ):
                return
            run_s = ((now_ms or began_ms) - began_ms) / 1000
            if is_over.wait(min(max(run_s * SHARE, SHORTEST_S), LONGEST_S)):
                return

    def work() -> None:
        # If the server is lost, the import reports it. If only this session is, another one beats.
        while not is_over.is_set():
            with contextlib.suppress(psycopg.Error, CustomerPanelError), sessions.clock() as conn:
                beat(conn)
                return
            is_over.wait(LONGEST_S)

    thread = threading.Thread(target=work, name="cp-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(JOIN_S)
