"""Runs one import to its end, and goes on with it after a lost connection.

Whatever interrupts it, another call of `run_import` resumes the job at its checkpoints.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psycopg

from customer_panel.db.connect import disk_full, first_line, is_loss
from customer_panel.errors import (
    AlreadyRunning,
    CustomerPanelError,
    DatabaseLost,
    NotAllowed,
    SourceNotResumable,
    Stopped,
)
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.engine.run import Run
from customer_panel.imports.model import ImportResult
from customer_panel.imports.stop import Stop

LOST_PATIENCE_S = 60.0  # for a server that was lost while an import ran
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 1.0


def run_import(
    request: ImportRequest,
    dsn: str,
    hooks: Hooks | None = None,
    *,
    stop: Stop | None = None,
    revive: Callable[[], None] = lambda: None,
    patience_s: float | None = LOST_PATIENCE_S,
) -> ImportResult:
    """Runs the requested import, and returns when its last row is in.

    After a lost connection it calls `revive` and tries again, for `patience_s` (None: for ever).
    Raises CustomerPanelError; after Stopped, DatabaseLost and any other error but SourceChanged the
    job can be resumed.
    """
    stop = stop or Stop()
    # A source that gives nothing is waited for in many places; a stop ends all of them.
    with stop.calling(request.source.stop):
        return _attempts(Run(request, dsn, hooks or Hooks(), stop), revive, patience_s)


def _attempts(run: Run, revive: Callable[[], None], patience_s: float | None) -> ImportResult:
    wait = FIRST_WAIT_S
    lost_since: float | None = None
    while True:
        try:
            return run.attempt()
        except (psycopg.Error, CustomerPanelError) as error:
            if run.stop.is_asked() and isinstance(error, psycopg.errors.QueryCanceled):
                raise Stopped from None
            is_away = is_loss(error)
            if not run.has_begun and (not run.has_connected or patience_s is None):
                # Nothing is begun, and the server was away from the start; or a server's worker, which
                # answers at once.
                if is_away and isinstance(error, psycopg.Error):
                    raise DatabaseLost from error
                is_away = False
            if not is_away and not (run.has_begun and isinstance(error, AlreadyRunning)):
                if full := disk_full(error):
                    raise full from error
                if isinstance(error, psycopg.errors.InsufficientPrivilege):
                    raise NotAllowed(f"the database refused: {first_line(error)}") from None
                raise
            if run.is_lost_with_connection:
                raise SourceNotResumable(
                    "the connection to the database was lost, and a stream cannot be read again"
                ) from error
            if run.part.tally.has_moved():
                lost_since, wait = None, FIRST_WAIT_S
            lost_since = lost_since or time.monotonic()
            if patience_s is not None and time.monotonic() - lost_since > patience_s:
                raise DatabaseLost(f"the database has been away for {patience_s:.0f} s") from error
            if run.stop.wait(wait):
                raise Stopped from None
            wait = min(wait * 2, LONGEST_WAIT_S)
            with contextlib.suppress(CustomerPanelError):
                revive()
