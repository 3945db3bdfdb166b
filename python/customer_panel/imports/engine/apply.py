"""One batch of one lane into the database: rows, parked rows, rejects, counters and checkpoint, or
nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import errors

from customer_panel._native import Batch
from customer_panel.errors import ClaimLost
from customer_panel.imports.model import Claim, Counts
from customer_panel.sql import statement

Connection = psycopg.Connection[Any]
T = TypeVar("T")
ID_RANGE_BITS = 13  # customer_totals counts per 8,192 ids
RECENT_IDS = 200  # the most that a snapshot may ask for
ATTEMPTS = 5  # more deadlocks in a row are no accident


class Merged(msgspec.Struct, kw_only=True):
    """What became of the rows of a stage whose outcome counts."""

    firsts: int = 0
    inserted: int = 0
    inserted_later: int = 0
    updated: int = 0
    unchanged: int = 0
    protected: int = 0
    recent: list[int] = msgspec.field(default_factory=list)


class Writer:
    """Applies the batches of one lane over one connection."""

    def __init__(
        self, conn: Connection, claim: Claim, drawing: threading.Lock, *, is_safe: bool = True
    ) -> None:
        self.conn = conn
        self.claim = claim
        self.drawing = drawing
        self.is_safe = is_safe

    def apply(self, batch: Batch) -> Counts:
        """Loads, merges and checkpoints one batch, or does none of it; what was counted.

        Raises ClaimLost when another runner owns the lane by now: the batch is theirs.
        """
        batch.sort()
        try:
            return repeated(lambda: self._apply(batch, merges_new=False))
        except errors.UniqueViolation as wrong:
            if wrong.diag.constraint_name != "customers_pkey":
                raise
            # Somebody created one of these customers meanwhile.
            return repeated(lambda: self._apply(batch, merges_new=True))

    def _apply(self, batch: Batch, *, merges_new: bool) -> Counts:
        with self.conn.transaction():
            return self._load(batch, merges_new)

    def _load(self, batch: Batch, merges_new: bool) -> Counts:
        counts, fresh, changed = counted(batch)
        recent: list[int] = []
        if fresh and not merges_new:
            first_id = self._draw(fresh)
            rows = batch.new_rows(first_id, self.claim.import_id, self.claim.source_id)
            copy_in(self.conn, "copy_customers", rows)
            add_totals(self.conn, range(first_id, first_id + fresh))
            counts.inserted = fresh
            recent = list(
                range(first_id + fresh - 1, max(first_id, first_id + fresh - RECENT_IDS) - 1, -1)
            )
        if changed or (fresh and merges_new):
            prepare(self.conn)
            if merges_new:
                copy_in(self.conn, "copy_stage", batch.new_to_stage(self.claim.clears))
            copy_in(self.conn, "copy_stage", batch.changed(self.claim.clears))
            merged = merge(self.conn, self.claim)
            counts.inserted += merged.inserted
            counts.updated = merged.updated
            counts.unchanged += merged.unchanged
            counts.protected = merged.protected
            recent = (merged.recent + recent)[:RECENT_IDS]
        if counts.duplicate or counts.pending:
            copy_in(self.conn, "copy_parked", batch.parked(self.claim.import_id))
        if findings := batch.findings():
            copy_in(self.conn, "copy_rejects", [findings])
        if self.is_safe:
            self._checkpoint(batch, counts, recent)
        return counts

    def _draw(self, count: int) -> int:
        """The first of `count` ids in a row."""
        # Two lanes that draw at once would get each other's ids; somebody else's insert makes us
        # draw again.
        with self.drawing:
            while True:
                row = self.conn.execute(statement("draw_ids"), {"count": count}).fetchone()
                assert row is not None
                first, last = row
                if last - first == count - 1:
                    return int(first)

    def _checkpoint(self, batch: Batch, counts: Counts, recent: list[int]) -> None:
        start, end = batch.span
        lane = {"import_id": self.claim.import_id, "lane": batch.lane}
        if blocks := batch.blocks:
            numbers, hashes = zip(*blocks, strict=True)
            self.conn.execute(
                statement("note_blocks"), lane | {"numbers": list(numbers), "hashes": list(hashes)}
            )
        moved = self.conn.execute(
            statement("advance_lane"),
            lane
            | msgspec.structs.asdict(counts)
            | {
                "epoch": self.claim.epoch,
                "from": start,
                "done_to": end,
                "tail_hash": batch.tail_hash,
                "last_row_hash": batch.last_row_hash,
                "last_line": batch.last_line,
                "recent": recent,
            },
        )
        if moved.rowcount != 1:
            raise ClaimLost


def counted(batch: Batch) -> tuple[Counts, int, int]:
    """What is counted of a batch before the database has judged it, and its new and changed rows."""
    processed, fresh, changed, unchanged, duplicate, pending, skipped, warnings = batch.counts
    counts = Counts(
        processed=processed,
        unchanged=unchanged,
        duplicate=duplicate,
        skipped=skipped,
        pending=pending,
        warnings=warnings,
    )
    return counts, fresh, changed


def copy_in(conn: Connection, name: str, pieces: Iterable[bytes]) -> None:
    """Sends a binary stream to the COPY statement `name`."""
    with conn.cursor() as cursor, cursor.copy(statement(name)) as copy:
        for piece in pieces:
            copy.write(piece)


def repeated(work: Callable[[], T]) -> T:
    """Does a transaction again that met somebody's own update of several rows in a deadlock, or whose
    ids somebody has taken by hand.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except (errors.DeadlockDetected, errors.SerializationFailure):
            continue
        except errors.UniqueViolation as wrong:
            if wrong.diag.constraint_name != "customers_id_key":
                raise
    return work()


def prepare(conn: Connection) -> None:
    """Makes the stage of a session that has none yet: an unchanged file needs none, and no WAL for it."""
    with conn.transaction():
        conn.execute(statement("create_stage"))


def merge(conn: Connection, claim: Claim) -> Merged:
    """Merges the rows of the stage, which stays as it is: into customers that are there, as new
    ones otherwise.
    """
    done = Merged()
    parameters = {"import_id": claim.import_id, "source_id": claim.source_id}
    while True:
        row = conn.execute(statement("merge_changed"), parameters).fetchone()
        assert row is not None
        done.updated += row[0]
        done.protected += row[1]
        done.recent = (row[2] + done.recent)[:RECENT_IDS]
        row = conn.execute(statement("insert_missing"), parameters).fetchone()
        assert row is not None
        missing, deleted, handmade, firsts, inserted, inserted_later, ids = row
        done.inserted += inserted
        done.inserted_later += inserted_later
        if ids:
            add_totals(conn, ids)
            done.recent = (sorted(ids, reverse=True) + done.recent)[:RECENT_IDS]
        if handmade:
            conn.execute(statement("adopt_handmade"), parameters)
        elif missing == inserted + inserted_later:
            # What a person deleted stays deleted.
            done.protected += deleted
            done.firsts = firsts
            done.unchanged = firsts - done.inserted - done.updated - done.protected
            return done


def merge_twins(conn: Connection, claim: Claim) -> Merged:
    """Takes the rows whose identity a person has created too out of the table, and merges them into
    those customers; for a table without its key, where `merge` could not insert.
    """
    parameters = {"import_id": claim.import_id, "source_id": claim.source_id}
    prepare(conn)
    twins = conn.execute(statement("stage_twins"), {"clears": claim.clears}).rowcount
    conn.execute(statement("adopt_handmade"), parameters)
    row = conn.execute(statement("merge_changed"), parameters).fetchone()
    deleted = conn.execute(statement("count_deleted")).fetchone()
    assert row is not None
    assert deleted is not None
    updated, protected, recent = row[0], row[1] + deleted[0], row[2]
    unchanged = twins - updated - protected
    return Merged(
        firsts=twins, updated=updated, protected=protected, unchanged=unchanged, recent=recent
    )


def add_totals(conn: Connection, ids: Iterable[int]) -> None:
    """Counts new rows per range of ids."""
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
