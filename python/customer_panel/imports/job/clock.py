"""Writes the time that an import has taken, again and again while it runs.

What is shown of it is what is written, so it never goes back, whenever the runner is killed; and a run
that is killed counts to the last time that it could write. Each write is durable before anybody sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.job.sessions import Sessions, beside
from customer_panel.imports.model import Claim

# A write every tenth of the time so far: what is shown is at most so much behind.
SHARE = 1 / 10
SHORTEST_S, LONGEST_S = 0.1, 1.0


def beating(
    sessions: Sessions, claim: Claim, elapsed_ms: Callable[[], int | None]
) -> AbstractContextManager[None]:
    """Inside `with`, `elapsed_ms()` is written; None: it stands still."""
    began_ms = elapsed_ms() or 0

    def beat(conn: Connection, is_over: threading.Event) -> None:
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

    return beside("cp-clock", sessions.clock, beat, pause_s=LONGEST_S)
