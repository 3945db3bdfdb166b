"""The stage of a session: rows to be merged into customers that may exist already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from psycopg import errors

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.model import RECENT_IDS, Claim
from customer_panel.sql import statement

T = TypeVar("T")
ID_RANGE_BITS = 13  # customer_totals counts per 8,192 ids
ATTEMPTS = 5  # if all of them fail, it is not by chance


class Merged(msgspec.Struct, kw_only=True):
    """The outcomes of the rows of a stage that are counted (`stage.is_first`)."""

    firsts: int = 0
    inserted: int = 0
    inserted_later: int = 0
    updated: int = 0
    unchanged: int = 0
    protected: int = 0
    recent: list[int] = msgspec.field(default_factory=list)


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
            add_totals(conn, ids)
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


def add_totals(conn: Connection, ids: Iterable[int]) -> None:
    """Adds new rows to the totals of their ranges of ids."""
    deltas: dict[int, int] = {}
    if isinstance(ids, range):
        low, high = ids.start >> ID_RANGE_BITS, (ids.stop - 1) >> ID_RANGE_BITS
        for number in range(low, high + 1):
            begin, end = number << ID_RANGE_BITS, (number + 1) << ID_RANGE_BITS
            deltas[number] = min(end, ids.stop) - max(begin, ids.start)
    else:
        for customer in ids:
            deltas[customer >> ID_RANGE_BITS] = deltas.get(customer >> ID_RANGE_BITS, 0) + 1
    conn.execute(statement("add_totals"), {"ranges": list(deltas), "deltas": list(deltas.values())})


def repeated(work: Callable[[], T]) -> T:
    """Runs a transaction, and runs it again after a deadlock with another session's update of several
    rows, or if another session has inserted one of its ids.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except (errors.DeadlockDetected, errors.SerializationFailure):
            continue
        except errors.UniqueViolation as error:
            if error.diag.constraint_name != "customers_id_key":
                raise
    return work()
