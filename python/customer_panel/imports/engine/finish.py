"""The steps after the last row: indexes, parked rows, maintenance.

Each can be killed and started again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import msgspec

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.engine import indexes
from customer_panel.imports.engine.identities import table_size
from customer_panel.imports.engine.merge import Merged, merge, prepare, repeated
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim, Counts
from customer_panel.sql import statement

FIRST = ""  # before every identity
PORTION = 20_000  # parked rows in a transaction, and the rest of the last identity: some seconds
VACUUM_SHARE = 0.01  # of the rows; for less, autovacuum is enough


def build_indexes(
    connect: Callable[[], Connection], claim: Claim, on_counts: Callable[[Counts], None]
) -> None:
    """Builds the indexes of a first load, and corrects the counts of rows that are merged into
    customers made by hand.
    """

    def on_merged(conn: Connection, merged: Merged) -> None:
        counts = Counts(
            inserted=-merged.firsts,
            updated=merged.updated,
            unchanged=merged.unchanged,
            protected=merged.protected,
        )
        settle(conn, claim, counts, merged.recent)
        on_counts(counts)

    indexes.build(connect, claim, on_merged)


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
        after = FIRST
        while (bound := _end_of_portion(conn, claim, after)) is not None:
            if should_stop():
                return False
            on_counts(repeated(functools.partial(_merge_portion, conn, claim, after, bound)))
            after = bound
        if after != FIRST:
            conn.execute(b"VACUUM import_parked")
    return True


def _end_of_portion(conn: Connection, claim: Claim, after: str) -> str | None:
    """The last identity of the portion of parked rows behind the identity `after`; None if there is
    none.
    """
    (bound,) = query.only(
        conn, "parked_bound", import_id=claim.import_id, after=after, count=PORTION
    )
    return None if bound is None else str(bound)


def _merge_portion(conn: Connection, claim: Claim, after: str, bound: str) -> Counts:
    """Merges the parked rows behind the identity `after` up to `bound`; the changes of the counts."""
    with conn.transaction():
        ledger.hold_claim(conn, claim)
        prepare(conn)
        portion = {"import_id": claim.import_id, "after": after, "bound": bound}
        conn.execute(statement("stage_parked"), portion | {"clears": claim.clears})
        conn.execute(statement("delete_parked"), portion)
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
        settle(conn, claim, counts, merged.recent)
    return counts


def settle(conn: Connection, claim: Claim, counts: Counts, recent: Sequence[int] = ()) -> None:
    """Changes the counts of the job by those of rows that were judged later. Raises ClaimLost."""
    changes = {
        name: value for name, value in msgspec.structs.asdict(counts).items() if name != "pending"
    }
    ledger.fenced(
        conn,
        "settle_pending",
        import_id=claim.import_id,
        epoch=claim.epoch,
        settled=-counts.pending,
        recent=list(recent),
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
