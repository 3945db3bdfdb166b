"""The stage of a session: rows to be merged into customers that may exist already."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import psycopg
from psycopg import errors

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.errors import NotAllowed, RowRefused
from customer_panel.imports.model import RECENT_IDS, Claim
from customer_panel.sql import statement

T = TypeVar("T")
Run = tuple[int, int]  # consecutive ids: the first, and how many
ID_RANGE_BITS = 13  # customer_totals counts per 8,192 ids
ATTEMPTS = 10  # 2.6 s; if all of them fail, it is not by chance
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.5  # between two attempts, for the other session
# The constraints that the table has from us.
OURS = ("customers_pkey", "customers_id_key")


class Merged(msgspec.Struct, kw_only=True):
    """The outcomes of the rows of a stage that are counted (`stage.is_first`)."""

    firsts: int = 0
    inserted: int = 0
    inserted_later: int = 0
    updated: int = 0
    unchanged: int = 0
    protected: int = 0
    recent: list[int] = msgspec.field(default_factory=list)


def stand_aside(conn: Connection) -> None:
    """In the transaction that is open, and in no other of the same server process, the trigger that
    keeps what people edit lets updates pass.
    """
    conn.execute(statement("stand_aside"))


def prepare(conn: Connection) -> None:
    """Makes the stage if the session has none. Not done earlier: an unchanged file needs no stage, and
    so writes no WAL for it.
    """
    with conn.transaction():
        conn.execute(statement("create_stage"))


def copy_to_stage(conn: Connection, pieces: Iterable[bytes]) -> None:
    """Adds rows to the stage: the pieces of a binary COPY stream."""
    query.copy_in(conn, "copy_stage", pieces)


def merge(conn: Connection, claim: Claim) -> Merged:
    """Merges the rows of the stage into existing customers, and inserts the others. The stage keeps
    its rows.
    """
    done = Merged()
    stand_aside(conn)
    parameters = {"import_id": claim.import_id, "source_id": claim.source_id}
    while True:
        updated, protected, recent = query.only(conn, "merge_changed", **parameters)
        done.updated += updated
        done.protected += protected
        done.recent = (recent + done.recent)[:RECENT_IDS]
        missing, deleted, hand_made, firsts, inserted, inserted_later, ids = query.only(
            conn, "insert_missing", **parameters
        )
        done.inserted += inserted
        done.inserted_later += inserted_later
        if ids:
            add_totals(conn, runs_of(ids))
            done.recent = (sorted(ids, reverse=True) + done.recent)[:RECENT_IDS]
        if hand_made:
            conn.execute(statement("adopt_hand_made"), parameters)
        elif missing == inserted + inserted_later:
            # Customers that were deleted by hand stay deleted.
            done.protected += deleted
            done.firsts = firsts
            done.unchanged = firsts - done.inserted - done.updated - done.protected
            return done


def merge_hand_made(conn: Connection, claim: Claim) -> Merged:
    """Moves imported rows whose identity was created by hand too out of the table, and merges them
    into those customers. For a table without its key, which `merge` needs to insert.
    """
    parameters = {"import_id": claim.import_id, "source_id": claim.source_id}
    stand_aside(conn)
    prepare(conn)
    firsts = conn.execute(statement("stage_hand_made"), {"clears": claim.clears}).rowcount
    conn.execute(statement("adopt_hand_made"), parameters)
    updated, kept, recent = query.only(conn, "merge_changed", **parameters)
    protected = kept + query.only(conn, "count_deleted")[0]
    return Merged(
        firsts=firsts,
        updated=updated,
        protected=protected,
        unchanged=firsts - updated - protected,
        recent=recent,
    )


def runs_of(ids: Iterable[int]) -> list[Run]:
    """Each id as a run of its own."""
    return [(number, 1) for number in ids]


def add_totals(conn: Connection, ids: Iterable[Run]) -> None:
    """Adds new rows to the totals of their ranges of ids."""
    deltas: dict[int, int] = {}
    for first, count in ids:
        end = first + count
        for number in range(first >> ID_RANGE_BITS, ((end - 1) >> ID_RANGE_BITS) + 1):
            begin = number << ID_RANGE_BITS
            held = min(begin + (1 << ID_RANGE_BITS), end) - max(begin, first)
            deltas[number] = deltas.get(number, 0) + held
    conn.execute(statement("add_totals"), {"ranges": list(deltas), "deltas": list(deltas.values())})


def repeated(work: Callable[[], T]) -> T:
    """Runs a transaction, and runs it again after a deadlock with another session's update of several
    rows, or if another session has inserted one of its ids.

    Raises RowRefused if a constraint or trigger that is not ours refuses a row.
    """
    pause_s = FIRST_PAUSE_S
    for _ in range(ATTEMPTS - 1):
        try:
            return _unless_refused(work)
        except (errors.DeadlockDetected, errors.SerializationFailure):
            pass
        except errors.UniqueViolation as error:
            if error.diag.constraint_name != "customers_id_key":
                raise
        # At once it would often meet the same session again.
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
    return _unless_refused(work)


def _unless_refused(work: Callable[[], T]) -> T:
    try:
        return work()
    except errors.InsufficientPrivilege as error:
        raise NotAllowed(f"the database refused: {error.diag.message_primary}") from None
    except (psycopg.IntegrityError, psycopg.DataError, errors.RaiseException) as error:
        rule = error.diag.constraint_name
        is_ours = rule in OURS and isinstance(error, errors.UniqueViolation)
        if is_ours or (error.diag.table_name or "").startswith("import"):
            raise
        if rule or isinstance(error, errors.NotNullViolation):
            # It names the constraint or the column. The detail, which is left out, quotes the row.
            reason = f": {error.diag.message_primary}"
        else:
            # Here even the message may quote a value.
            reason = f" by a trigger or the type of a column (SQLSTATE {error.sqlstate})"
    raise RowRefused(f"a row of the file was refused{reason}")
