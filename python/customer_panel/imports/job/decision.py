"""How the file of a job is read, where that is decided after the job was made: when the file stands
still. Until then its header may be half of one, or not there yet.
"""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from customer_panel._native import Plan
from customer_panel.db.connect import Connection
from customer_panel.db.query import Row
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim, Counts, Lane, Options
from customer_panel.imports.sources import Source

# It reads nothing.
UNDECIDED = Plan.restore(",", [], [], date_order=None, data_start=0, header_lines=0)


def wishes(options: Options) -> dict[str, Any]:
    """What a job whose plan is not decided keeps of its options for `wished`."""
    return {"wishes": {"delimiter": options.delimiter, "mapping": options.mapping}}


def is_decided(job: Row) -> bool:
    """Whether it is decided how the file of the job is read: not before it stands still."""
    return "wishes" not in job["options"]


def wished(job: Row, options: Options) -> Options:
    """The options of a job whose plan is not decided: those of this call, else those that it was
    created with. Nothing was read by them so far.
    """
    stored, wishes = job["options"], job["options"]["wishes"]
    return Options(
        mapping=options.mapping or tuple((header, field) for header, field in wishes["mapping"]),
        delimiter=options.delimiter or wishes["delimiter"],
        date_order=options.date_order or stored["date_order"],
        blank=options.blank or stored["blank"],
        source=job["source"],
    )


def decide(
    conn: Connection,
    claim: Claim,
    source: Source,
    plan: Plan,
    options: Options,
    lanes: int,
    keys_deferred: bool,
) -> Claim:
    """Decides how the file of a job is read, in the caller's transaction; returns the claim with it.

    Raises ClaimLost.
    """
    ledger.fenced(
        conn,
        "decide_import",
        import_id=claim.import_id,
        epoch=claim.epoch,
        **ledger.columns_of(source, plan),
        options=Jsonb({"date_order": options.date_order, "blank": options.blank}),
        keys_deferred=keys_deferred,
    )
    tail_hash = plan.header_hash(source.head)
    ledger.put_lanes(
        conn, claim, [new_lane(number, plan.data_start, tail_hash) for number in range(lanes)]
    )
    clears = plan.fields if options.blank == "clear" else 0
    return Claim(claim.import_id, claim.epoch, claim.source_id, clears)


def new_lane(number: int, start: int, tail_hash: int | None = None) -> Lane:
    """A lane that has written nothing yet."""
    return Lane(
        lane=number,
        done_to=start,
        tail_hash=tail_hash,
        counts=Counts(),
        last_row_hash=None,
        last_line=0,
        recent_ids=[],
    )
