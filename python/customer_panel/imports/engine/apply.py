"""Writes one batch of one lane: rows, parked rows, rejects, counters and checkpoint in one
transaction.
"""

from __future__ import annotations

import threading

import msgspec
from psycopg import errors

from customer_panel._native import Batch
from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.errors import ClaimLost
from customer_panel.imports.engine.merge import (
    Run,
    add_totals,
    copy_to_stage,
    merge,
    prepare,
    repeated,
    stand_aside,
)
from customer_panel.imports.job import ledger
from customer_panel.imports.model import RECENT_IDS, Claim, Counts
from customer_panel.sql import statement


class Writer:
    """Applies the batches of one lane over one connection."""

    def __init__(
        self, conn: Connection, claim: Claim, drawing: threading.Lock, *, is_safe: bool = True
    ) -> None:
        self.conn = conn
        self.claim = claim
        self.drawing = drawing
        self.is_safe = is_safe
        self._ids: list[Run] = []  # drawn, and not committed yet

    def apply(self, batch: Batch) -> Counts:
        """Loads, merges and checkpoints one batch, or does none of it; returns its counts.

        Raises ClaimLost when another runner has claimed the lane; that runner writes the batch.
        """
        batch.sort()
        try:
            return repeated(lambda: self._apply(batch, merges_new=False))
        except errors.UniqueViolation as error:
            if error.diag.constraint_name != "customers_pkey":
                raise
            # Another session has created one of these customers meanwhile.
            return repeated(lambda: self._apply(batch, merges_new=True))

    def _apply(self, batch: Batch, *, merges_new: bool) -> Counts:
        _, new, _ = counted(batch)
        try:
            with self.conn.transaction():
                ids, rest = self._ids_for(0 if merges_new else new)
                counts = self._load(batch, ids, merges_new=merges_new)
        except errors.UniqueViolation as error:
            if error.diag.constraint_name == "customers_id_key":
                # Somebody has given one of them to a customer.
                self._ids = []
            raise
        self._ids = rest
        return counts

    def _load(self, batch: Batch, ids: list[Run], *, merges_new: bool) -> Counts:
        counts, new, changed = counted(batch)
        recent: list[int] = []
        if ids:
            rows = batch.new_rows(ids, self.claim.import_id, self.claim.source_id)
            stand_aside(self.conn)
            query.copy_in(self.conn, "copy_customers", rows)
            add_totals(self.conn, ids)
            counts.inserted = new
            recent = newest(ids)
        if changed or (new and merges_new):
            prepare(self.conn)
            if merges_new:
                copy_to_stage(self.conn, batch.new_to_stage(self.claim.clears))
            copy_to_stage(self.conn, batch.changed(self.claim.clears))
            merged = merge(self.conn, self.claim)
            counts.inserted += merged.inserted
            counts.updated = merged.updated
            counts.unchanged += merged.unchanged
            counts.protected = merged.protected
            recent = (merged.recent + recent)[:RECENT_IDS]
        if batch.parked_rows:
            query.copy_in(self.conn, "copy_parked", batch.parked(self.claim.import_id))
        if findings := batch.findings():
            query.copy_in(self.conn, "copy_rejects", [findings])
        if self.is_safe:
            self._checkpoint(batch, counts, recent)
        return counts

    def park(self, batch: Batch) -> Counts:
        """Parks the rows of a batch of the second reading, which counts nothing. May be done again.

        Raises ClaimLost.
        """
        if batch.parked_rows:
            repeated(lambda: self._park(batch))
        return Counts()

    def _park(self, batch: Batch) -> None:
        with self.conn.transaction():
            ledger.hold_claim(self.conn, self.claim)
            self.conn.execute(statement("create_parked_again"))
            query.copy_in(self.conn, "copy_parked_again", batch.parked(self.claim.import_id))
            self.conn.execute(statement("park_again"))

    def _ids_for(self, count: int) -> tuple[list[Run], list[Run]]:
        """Ids for so many rows, and those that are left. A batch that is repeated gets the same again:
        a sequence takes nothing back.
        """
        drawn = sum(run[1] for run in self._ids)
        if drawn < count:
            self._ids = self._ids + self._draw(count - drawn)
        return split(self._ids, count)

    def _draw(self, count: int) -> list[Run]:
        # The lock keeps the runs long: two lanes that draw at once would get every other id.
        with self.drawing:
            rows = query.rows(self.conn, "draw_ids", count=count)
        return [(row["first"], row["count"]) for row in rows]

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
    """The counts of a batch as far as they are known before the merge; its new and changed rows."""
    processed, new, changed, unchanged, duplicate, pending, skipped, warnings = batch.counts
    counts = Counts(
        processed=processed,
        unchanged=unchanged,
        duplicate=duplicate,
        skipped=skipped,
        pending=pending,
        warnings=warnings,
    )
    return counts, new, changed


def split(runs: list[Run], count: int) -> tuple[list[Run], list[Run]]:
    """The first `count` ids, and the others."""
    taken: list[Run] = []
    for place, (first, length) in enumerate(runs):
        if count < length:
            rest = [(first + count, length - count), *runs[place + 1 :]]
            return taken + ([(first, count)] if count else []), rest
        taken.append((first, length))
        count -= length
    return taken, []


def newest(ids: list[Run]) -> list[int]:
    """The last ids, highest first, as many as a lane remembers."""
    found: list[int] = []
    for first, count in reversed(ids):
        room = min(count, RECENT_IDS - len(found))
        found += range(first + count - 1, first + count - 1 - room, -1)
        if len(found) == RECENT_IDS:
            break
    return found
