"""Gives up an import that nobody runs: cancelled for good, its rows stay."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from customer_panel.errors import AlreadyRunning, ClaimLost
from customer_panel.imports.engine import finish
from customer_panel.imports.job import ledger
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Counts
from customer_panel.imports.stop import Stop


def give_up(
    dsn: str, import_id: int, stop: Stop, begun: Callable[[int], None] = lambda _: None
) -> bool:
    """Ends the import as cancelled once the keys that it left away are built; False if a stop came
    first.

    Needs no file. Killed or stopped at any point it can be called again, by whoever sees that the
    import was asked to be given up. `begun` hears when it is claimed. Raises AlreadyRunning, or
    ClaimLost when it is over already.
    """
    sessions = Sessions(dsn)
    with sessions.job() as conn:
        if not ledger.try_lock(conn):
            raise AlreadyRunning
        for job in ledger.rows(conn, "open_imports"):
            if job["id"] != import_id and job["status"] == "RUNNING":
                # Its runner died; only one may be RUNNING.
                ledger.abandon(conn, job["id"], "INTERRUPTED")
        found = ledger.rows(conn, "get_import", import_id=import_id)
        if not found:
            raise ClaimLost
        claim = ledger.claim(conn, import_id, ledger.plan_of(found[0]))
        begun(import_id)
        try:
            # A stop does not wait for an index.
            with sessions.cancelling(stop):
                finish.give_up(sessions.lane, conn, claim, _ignored)
        except psycopg.errors.QueryCanceled:
            if not stop.is_asked():
                raise
            ledger.end(conn, claim, "INTERRUPTED")
            return False
    return True


def _ignored(_: Counts) -> None:
    """Rows that are counted anew concern nobody who watches."""
