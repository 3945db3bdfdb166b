"""Ends imports before the end of their file: cancelled ones, whose rows stay and get their indexes,
and those whose runner died.
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
    """Ends a claimed import as CANCELLED: rows that it wrote stay, parked rows are deleted.

    Raises ClaimLost.
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
    """Cancels an import without a runner; False if `stop` came before its indexes were built.

    Needs no file. After a kill or a stop at any point any process can call it again. Raises
    AlreadyRunning, or ClaimLost when the import has ended.
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
            # A stop does not wait until an index is built.
            with sessions.cancelling(stop):
                cancel(sessions.lane, conn, claim)
        except psycopg.errors.QueryCanceled:
            if not stop.is_asked():
                raise
            ledger.end(conn, claim, "INTERRUPTED")
            return False
    return True


def mark_dead(dsn: str, import_id: int, status: Status) -> None:
    """Sets an import that is RUNNING without a runner to `status`, INTERRUPTED or FAILED. Does
    nothing if another session has the runner lock.
    """
    with Sessions(dsn).job() as conn:
        if not ledger.try_lock(conn, patience_s=0):
            return
        job = ledger.find(conn, import_id)
        if job is not None and job["status"] == "RUNNING":
            ledger.abandon(conn, import_id, status)
