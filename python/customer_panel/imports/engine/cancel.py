"""Imports that end before their file does: cancelled ones, whose rows stay and get their indexes, and
those whose runner died.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from customer_panel.db.connect import Connection
from customer_panel.errors import AlreadyRunning, ClaimLost
from customer_panel.imports.engine import indexes
from customer_panel.imports.engine.finish import build_indexes
from customer_panel.imports.job import ledger
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, Counts
from customer_panel.imports.stop import Stop
from customer_panel.states import Status


def cancel(
    connect: Callable[[], Connection],
    conn: Connection,
    claim: Claim,
    on_counts: Callable[[Counts], None] = lambda _: None,
    *,
    elapsed_s: float = 0.0,
) -> None:
    """Ends a claimed import as cancelled: what it wrote stays, what waited for the end of the file
    goes. Raises ClaimLost.
    """
    if not indexes.are_complete(conn):
        ledger.set_phase(conn, claim, "indexing")
        build_indexes(connect, claim, on_counts)
    with conn.transaction():
        ledger.end(conn, claim, "CANCELLED", elapsed_s=elapsed_s)
        ledger.drop_parked(conn, claim.import_id)


def cancel_idle(
    dsn: str, import_id: int, stop: Stop, on_claimed: Callable[[int], None] = lambda _: None
) -> bool:
    """Cancels an import that nobody runs; False if a stop came before its indexes were built.

    Needs no file. Killed or stopped at any point it can be called again, by whoever sees that the
    import was asked to be cancelled. Raises AlreadyRunning, or ClaimLost when it is over already.
    """
    sessions = Sessions(dsn)
    with sessions.job() as conn:
        if not ledger.try_lock(conn):
            raise AlreadyRunning
        for job in ledger.open_jobs(conn):
            if job["id"] != import_id and job["status"] == "RUNNING":
                # Its runner died; only one may be RUNNING.
                ledger.abandon(conn, job["id"], "INTERRUPTED")
        found = ledger.find(conn, import_id)
        if found is None:
            raise ClaimLost
        claim = ledger.claim(conn, import_id, ledger.plan_of(found))
        on_claimed(import_id)
        try:
            # A stop does not wait for an index.
            with sessions.cancelling(stop):
                cancel(sessions.lane, conn, claim)
        except psycopg.errors.QueryCanceled:
            if not stop.is_asked():
                raise
            ledger.end(conn, claim, "INTERRUPTED")
            return False
    return True


def mark_dead(dsn: str, import_id: int, status: Status) -> None:
    """An import that says RUNNING and has no runner is INTERRUPTED, or FAILED, from now on; unless
    somebody takes it up at this moment.
    """
    with Sessions(dsn).job() as conn:
        if not ledger.try_lock(conn, patience_s=0):
            return
        job = ledger.find(conn, import_id)
        if job is not None and job["status"] == "RUNNING":
            ledger.abandon(conn, import_id, status)
