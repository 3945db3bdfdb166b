"""How imports end: one function writes every end, and what a process that died could not do is done
by the next session that holds the runner lock.

An import that has ended leaves the table whole: with both indexes, and without parked or pending rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg

from customer_panel.db.connect import Connection, is_loss
from customer_panel.errors import AlreadyRunning, ClaimLost
from customer_panel.imports.engine import finish, indexes
from customer_panel.imports.job import ledger
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Claim, Counts
from customer_panel.imports.stop import Stop
from customer_panel.states import ENDED, Status

STREAM_DIED = "the process that imported it has died, and a stream cannot be read again"

Counted = Callable[[Counts], None]
Noted = Callable[[str], None]


def _ignore(_: object) -> None:
    """The callback of a caller that gave none."""


def end(
    sessions: Sessions,
    conn: Connection,
    claim: Claim,
    status: Status,
    *,
    error: str | None = None,
    elapsed_ms: int = 0,
    maintenance_s: float = 0,
    on_counts: Counted = _ignore,
    on_note: Noted = _ignore,
    is_stopped: Callable[[], bool] = lambda: False,
    stop: Stop | None = None,
) -> None:
    """The end of every run. COMPLETED, FAILED and CANCELLED leave the table whole; a job that is PAUSED
    or INTERRUPTED goes on later.

    Of a FAILED import the parked rows are merged, of a CANCELLED one they are given up. If that or an
    index fails, the job ends all the same: `repair` does it. Raises ClaimLost; if the connection is
    lost, or a statement was cancelled because of `is_stopped`, the job has not ended. Nor has one that
    goes on later if somebody's lock is in the way and `stop` is asked: `settle` writes its state.
    """
    if status in ENDED:
        try:
            _make_whole(sessions, conn, claim, status, on_counts)
        except psycopg.Error as failure:
            if status == "COMPLETED" or is_loss(failure) or is_stopped():
                raise
            on_note(
                f"what import {claim.import_id} left could not be put in order"
                f" ({reason_of(failure)}): the next import does it, or"
                " `customer-panel doctor --repair`"
            )
    with contextlib.ExitStack() as stack:
        if stop is not None and status not in ENDED:
            stack.enter_context(contextlib.suppress(psycopg.errors.QueryCanceled))
            stack.enter_context(sessions.cancelling(stop))
        ledger.end(
            conn, claim, status, error=error, elapsed_ms=elapsed_ms, maintenance_s=maintenance_s
        )


def _make_whole(
    sessions: Sessions, conn: Connection, claim: Claim, status: Status, on_counts: Counted
) -> None:
    if not indexes.are_complete(conn):
        ledger.set_phase(conn, claim, "indexing")
        build_keys(sessions, conn, claim, on_counts)
    if status == "FAILED":
        # Every row that was counted is in the table then.
        finish.merge_parked(sessions.lane, claim, on_counts, lambda: False)


def build_keys(
    sessions: Sessions, conn: Connection, claim: Claim | None, on_counts: Counted = _ignore
) -> bool:
    """Builds the indexes that are missing; False if there is neither `claim` nor any import.

    Rows that meet customers made by hand are counted with the first load that brought them, which need
    not be the import of `claim`.
    """
    loaded, newest = ledger.deferred_import(conn)
    if claim is not None and claim.import_id == loaded:
        finish.build_indexes(sessions.lane, claim, on_counts)
    elif loaded is not None:
        finish.build_indexes(sessions.lane, ledger.renewed(conn, loaded), _ignore)
    elif newest is not None:
        # Somebody else has dropped an index: no import has brought these rows without one.
        indexes.build(sessions.lane, claim or ledger.renewed(conn, newest), lambda *_: None)
    return newest is not None


def settle(
    sessions: Sessions, conn: Connection, *, spared: int | None = None, on_note: Noted = _ignore
) -> list[str]:
    """Settles what dead runners left, but the import `spared`; what was done, in sentences.

    `conn` must hold the runner lock: so no open import has a runner. A RUNNING one becomes
    INTERRUPTED; a stream has FAILED.
    """
    done: list[str] = []
    for job in ledger.open_jobs(conn):
        if job["status"] != "RUNNING" or job["id"] == spared:
            continue
        claim = ledger.claim(conn, job["id"])
        if job["file_path"] is None:
            end(sessions, conn, claim, "FAILED", error=STREAM_DIED, on_note=on_note)
            done.append(f"import {job['id']}, a stream, has failed: its process is dead")
        else:
            end(sessions, conn, claim, "INTERRUPTED")
            done.append(f"import {job['id']} is interrupted: its process is dead")
    done += [
        f"import {number} has given up the rows that it had parked"
        for number in ledger.close_leftovers(conn)
    ]
    return done


def repair(dsn: str) -> list[str]:
    """Makes the table whole if no import runs; what was done, in sentences. Raises AlreadyRunning."""
    sessions = Sessions(dsn)
    with sessions.job() as conn:
        if not ledger.try_lock(conn):
            raise AlreadyRunning
        done = settle(sessions, conn)
        if not indexes.are_complete(conn) and build_keys(sessions, conn, None):
            done.append("the indexes on customer_id and e-mail are built")
    return done


def faults(dsn: str) -> list[str]:
    """What `repair` would put in order, in sentences. Raises AlreadyRunning."""
    with Sessions(dsn).job() as conn:
        if not ledger.try_lock(conn):
            raise AlreadyRunning
        opened = ledger.open_jobs(conn)
        found = [
            f"import {job['id']} is RUNNING, and its process is dead"
            for job in opened
            if job["status"] == "RUNNING"
        ]
        found += [f"import {number} left parked rows" for number in ledger.leftovers(conn)]
        # A first load that has not ended builds them when it does.
        if not indexes.are_complete(conn) and not any(job["keys_deferred"] for job in opened):
            found.append("an index on customer_id or e-mail is missing")
    return found


def settle_dead(dsn: str) -> None:
    """`settle`, unless another session has the runner lock."""
    sessions = Sessions(dsn)
    with sessions.job() as conn:
        if ledger.try_lock(conn, patience_s=0):
            settle(sessions, conn)


def cancel(
    sessions: Sessions,
    conn: Connection,
    import_id: int,
    *,
    reason: str | None = None,
    stop: Stop | None = None,
    on_note: Noted = _ignore,
) -> bool:
    """Cancels an import without a runner; `conn` holds the lock. Needs no file.

    False if `stop` came before its indexes were built. Raises ClaimLost when it has ended.
    """
    stop = stop or Stop()
    claim = ledger.claim(conn, import_id)
    try:
        # A stop does not wait until an index is built.
        with sessions.cancelling(stop):
            end(
                sessions,
                conn,
                claim,
                "CANCELLED",
                error=reason,
                on_note=on_note,
                is_stopped=stop.is_asked,
            )
    except psycopg.errors.QueryCanceled:
        if not stop.is_asked():
            raise
        end(sessions, conn, claim, "INTERRUPTED")
        return False
    return True


def cancel_idle(
    dsn: str, import_id: int, stop: Stop, on_claimed: Callable[[int], None] = _ignore
) -> bool:
    """`cancel`, with a session of its own. After a kill or a stop at any point any process can call it
    again. Raises AlreadyRunning, or ClaimLost when the import has ended.
    """
    sessions = Sessions(dsn)
    with sessions.job() as conn:
        if not ledger.try_lock(conn):
            raise AlreadyRunning
        settle(sessions, conn, spared=import_id)
        if ledger.find(conn, import_id) is None:
            raise ClaimLost
        on_claimed(import_id)
        return cancel(sessions, conn, import_id, stop=stop)


def reason_of(error: BaseException) -> str:
    """The text of an error. Of a database error only the primary message: its detail quotes rows."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or type(error).__name__
    return str(error)
