"""The rows of a job in the database: created, claimed, divided into lanes, ended. Every change of a
claimed job is fenced by its epoch.
"""

from __future__ import annotations

import time
from typing import Any

from psycopg.types.json import Jsonb

from customer_panel._native import RULES_VERSION, Plan
from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.db.query import Row
from customer_panel.errors import ClaimLost, MappingError
from customer_panel.imports.model import (
    COUNTERS,
    DEFAULT_SOURCE,
    RUNNER_LOCK,
    Claim,
    Counts,
    Lane,
    Options,
    Phase,
)
from customer_panel.imports.sources import Source
from customer_panel.sql import statement
from customer_panel.states import Status

# The backend of a killed client ends within client_connection_check_interval, half a second.
LOCK_PATIENCE_S = 1.5


def try_lock(conn: Connection, patience_s: float = LOCK_PATIENCE_S) -> bool:
    """Takes the one-runner lock of the database, until `conn` is closed; False if another session
    has it for longer than `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while True:
        if query.only(conn, "try_lock", key=RUNNER_LOCK)[0]:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def open_jobs(conn: Connection) -> list[Row]:
    """The jobs that can be claimed, newest first."""
    return query.rows(conn, "open_imports")


def find(conn: Connection, import_id: int) -> Row | None:
    """The row of a job."""
    return next(iter(query.rows(conn, "get_import", import_id=import_id)), None)


def create(
    conn: Connection,
    source: Source,
    plan: Plan,
    options: Options,
    lanes: int,
    keys_deferred: bool,
    **more_options: Any,
) -> int:
    """Creates a job and its lanes in the caller's transaction; returns its number.

    more_options: are kept beside `options`.
    """
    (source_id,) = query.only(conn, "source_id", name=options.source or DEFAULT_SOURCE)
    (import_id,) = query.only(
        conn,
        "create_import",
        source_id=source_id,
        file_path=None if source.path is None else str(source.path),
        file_size=source.size,
        file_device=source.device,
        file_inode=source.inode,
        file_mtime_ns=source.mtime_ns,
        delimiter=plan.delimiter,
        headers=plan.headers,
        mapping=Jsonb(plan.mapping),
        data_start=plan.data_start,
        header_lines=plan.header_lines,
        rules_version=RULES_VERSION,
        # The other options are columns. A new option is compared in `restored_plan` too.
        options=Jsonb(
            {"date_order": options.date_order, "blank": options.blank or "keep"} | more_options
        ),
        keys_deferred=keys_deferred,
    )
    conn.execute(
        statement("create_lanes"),
        {
            "import_id": import_id,
            "done_to": plan.data_start,
            "tail_hash": plan.header_hash(source.head),
            "count": lanes,
        },
    )
    return int(import_id)


def claim(
    conn: Connection,
    import_id: int,
    plan: Plan,
    *,
    is_first: bool = True,
    forgets_pause: bool = False,
) -> Claim:
    """Claims the job. When this returns, no earlier runner can commit anything for it.

    is_first: the run has not claimed it before.
    forgets_pause: deletes an earlier request to pause it.
    """
    with conn.transaction():
        epoch = fenced(
            conn,
            "claim_import",
            import_id=import_id,
            is_first=is_first,
            forgets_pause=forgets_pause,
        )[0]
        # Waits for the last commit of a runner that died.
        conn.execute(statement("claim_lanes"), {"import_id": import_id, "epoch": epoch})
        job = find(conn, import_id)
    assert job is not None
    clears = plan.fields if job["options"]["blank"] == "clear" else 0
    return Claim(import_id, epoch, job["source_id"], clears)


def is_overtaken(conn: Connection, import_id: int) -> bool:
    """Whether another import has run since this one began, while rows wait that are not parked."""
    return bool(query.only(conn, "is_overtaken", import_id=import_id)[0])


def hold_claim(conn: Connection, claim: Claim) -> None:
    """Fences the caller's transaction: no other runner can claim the job until it ends.

    Raises ClaimLost.
    """
    fenced(conn, "hold_claim", import_id=claim.import_id, epoch=claim.epoch)


def restored_plan(job: Row, options: Options) -> Plan:
    """The plan that a job was begun with. Raises MappingError if `options` differ from it."""
    differences = [
        (
            options.delimiter is not None and options.delimiter != job["delimiter"],
            "another delimiter",
        ),
        (options.date_order not in (None, job["options"]["date_order"]), "another date order"),
        (options.blank not in (None, job["options"]["blank"]), f"--blank {options.blank}"),
        (
            options.source not in (None, job["source"]),
            f"the source {options.source!r} (it has {job['source']!r})",
        ),
    ]
    plan = plan_of(job)
    if options.mapping:
        wanted = Plan.from_header(
            _header(job), delimiter=job["delimiter"], overrides=list(options.mapping)
        )
        differences.append((wanted.mapping != plan.mapping, "other columns"))
    if job["rules_version"] != RULES_VERSION:
        differences.append(
            (True, "other rules of normalisation (another version of Customer Panel)")
        )
    for differs, what in differences:
        if differs:
            raise MappingError(
                f"import {job['id']} was interrupted, and cannot go on with {what}",
                hint="Leave the option away to go on with it, or give it up with --restart.",
            )
    return plan


def plan_of(job: Row) -> Plan:
    """The plan that is stored with a job, even if it was made by other rules than today's."""
    return Plan.restore(
        job["delimiter"],
        job["headers"],
        [tuple(pair) for pair in job["mapping"]],
        date_order=job["options"]["date_order"],
        data_start=job["data_start"],
        header_lines=job["header_lines"],
    )


def _header(job: Row) -> bytes:
    quoted = ('"' + header.replace('"', '""') + '"' for header in job["headers"])
    delimiter: str = job["delimiter"]
    return (delimiter.join(quoted) + "\n").encode()


def lanes_of(conn: Connection, import_id: int) -> list[Lane]:
    return [_lane(row) for row in query.rows(conn, "lanes", import_id=import_id)]


def _lane(row: Row) -> Lane:
    counts = Counts(
        **{name: row[name if name == "warnings" else f"rows_{name}"] for name in COUNTERS}
    )
    kept = {
        name: row[name]
        for name in ("lane", "done_to", "tail_hash", "last_row_hash", "last_line", "recent_ids")
    }
    return Lane(counts=counts, **kept)


def blocks_of(conn: Connection, import_id: int) -> list[tuple[int, int]]:
    """Number and hash of every block of the file that at least one lane has passed."""
    return [(row["block"], row["hash"]) for row in query.rows(conn, "blocks", import_id=import_id)]


def put_lanes(conn: Connection, claim: Claim, lanes: list[Lane]) -> None:
    """Divides the job's lanes anew, all or nothing."""
    with conn.transaction():
        hold_claim(conn, claim)
        query.rows(conn, "replace_lanes", import_id=claim.import_id, epoch=claim.epoch)
        for lane in lanes:
            counts = {
                name if name == "warnings" else f"rows_{name}": getattr(lane.counts, name)
                for name in COUNTERS
            }
            kept = {
                name: getattr(lane, name) for name in lane.__struct_fields__ if name != "counts"
            }
            conn.execute(
                statement("put_lane"),
                {"import_id": claim.import_id, "epoch": claim.epoch, **kept, **counts},
            )


def set_phase(
    conn: Connection,
    claim: Claim,
    phase: Phase,
    scanned_to: int | None = None,
) -> None:
    """Raises ClaimLost."""
    fenced(
        conn,
        "set_phase",
        import_id=claim.import_id,
        epoch=claim.epoch,
        phase=phase,
        scanned_to=scanned_to,
    )


def end(
    conn: Connection,
    claim: Claim,
    status: Status,
    *,
    error: str | None = None,
    elapsed_s: float = 0,
    maintenance_s: float = 0,
) -> None:
    """Raises ClaimLost."""
    fenced(
        conn,
        "end_import",
        import_id=claim.import_id,
        epoch=claim.epoch,
        status=status,
        error=error,
        elapsed_ms=round(elapsed_s * 1000),
        maintenance_ms=round(maintenance_s * 1000),
    )


def abandon(conn: Connection, import_id: int, status: Status) -> None:
    """Sets the status of a job without a runner. For CANCELLED, parked rows are deleted; rows that it
    wrote stay.
    """
    with conn.transaction():
        conn.execute(statement("abandon_import"), {"import_id": import_id, "status": status})
        if status == "CANCELLED":
            drop_parked(conn, import_id)


def drop_parked(conn: Connection, import_id: int) -> None:
    """Deletes the parked rows of an import that will not reach the end of its file."""
    conn.execute(statement("drop_parked"), {"import_id": import_id})


def fenced(conn: Connection, name: str, /, **parameters: Any) -> Any:
    """The row of a statement that returns one only while the claim is valid. Raises ClaimLost."""
    row = query.first(conn, name, **parameters)
    if row is None:
        raise ClaimLost
    return row
