"""The steps after the last row: indexes, parked rows, maintenance.

Each can be killed and started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.engine import indexes
from customer_panel.imports.engine.identities import table_size
from customer_panel.imports.engine.merge import Merged, merge, prepare, repeated
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim, Counts
from customer_panel.sql import statement

PORTION = 20_000  # parked rows in a transaction, and the rest of the last identity: some seconds
VACUUM_SHARE = 0.01  # of the rows; for less, autovacuum is enough


def build_indexes(
    connect: Callable[[], Connection], claim: Claim, on_counts: Callable[[Counts], None]
) -> None:
    """Builds the indexes of a first load, and corrects the counts of rows that are merged into
    customers made by hand.
    """

    def settle(conn: Connection, merged: Merged) -> None:
        counts = Counts(
            inserted=-merged.firsts,
            updated=merged.updated,
            unchanged=merged.unchanged,
            protected=merged.protected,
        )
        _settle(conn, claim, counts, merged)
        on_counts(counts)

    indexes.build(connect, claim, settle)


def merge_parked(
    connect: Callable[[], Connection],
    claim: Claim,
    on_counts: Callable[[Counts], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Folds the parked rows of each identity into one row and merges it; False if it was stopped
    before the last. Raises ClaimLost.
    """
    with connect() as conn:
        # Autocommit: each portion opens its own transaction.
        conn.autocommit = True
        if not query.only(conn, "has_parked", import_id=claim.import_id)[0]:
            return True
        prepare(conn)
        while not should_stop():
            counts, is_last = repeated(lambda: _merge_portion(conn, claim))
            on_counts(counts)
            if is_last:
                return True
        return False


def _merge_portion(conn: Connection, claim: Claim) -> tuple[Counts, bool]:
    """Merges the next portion of parked rows; the changes of the counts, and whether it was the last."""
    with conn.transaction():
        ledger.hold_claim(conn, claim)
        bound = query.first(conn, "parked_bound", import_id=claim.import_id, count=PORTION)
        conn.execute(
            statement("stage_parked"),
            {"import_id": claim.import_id, "bound": bound and bound[0], "clears": claim.clears},
        )
        merged = merge(conn, claim)
        counts = Counts(
            pending=-merged.firsts,
            inserted=merged.inserted + merged.inserted_later,
            updated=merged.updated,
            unchanged=merged.unchanged,
            protected=merged.protected,
            # Rows counted as later ones of an identity that were in fact the first of theirs.
            duplicate=-merged.inserted_later,
        )
        _settle(conn, claim, counts, merged)
    return counts, bound is None


def _settle(conn: Connection, claim: Claim, counts: Counts, merged: Merged) -> None:
    changes = {
        name: value for name, value in msgspec.structs.asdict(counts).items() if name != "pending"
    }
    ledger.fenced(
        conn,
        "settle_pending",
        import_id=claim.import_id,
        epoch=claim.epoch,
        settled=-counts.pending,
        recent=merged.recent,
        **changes,
    )


def maintain(connect: Callable[[], Connection], written: int) -> float:
    """Folds the totals and, if enough rows were written, runs VACUUM (ANALYZE); returns seconds."""
    began = time.monotonic()
    with connect() as conn:
        if written:
            repeated(lambda: _fold_totals(conn))
        counted = table_size(conn).counted
        conn.commit()
        if written and written >= counted * VACUUM_SHARE:
            conn.autocommit = True
            conn.execute(b"VACUUM (ANALYZE) customers")
            conn.execute(b"VACUUM (ANALYZE) customer_totals")
    return time.monotonic() - began


def _fold_totals(conn: Connection) -> None:
    with conn.transaction():
        conn.execute(statement("fold_totals"))
