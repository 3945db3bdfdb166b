"""The rows of a job in the database: created, claimed, divided into lanes, ended. Every change of a
claimed job is fenced by its epoch.
"""

from __future__ import annotations

import time
from typing import Any

from psycopg.types.json import Jsonb

from customer_panel._native import RULES_VERSION, Plan, PlanError
from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.db.query import Row
from customer_panel.errors import ClaimLost
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
    """The jobs that can be claimed, oldest first."""
    return query.rows(conn, "open_imports")


def find(conn: Connection, import_id: int) -> Row | None:
    """The row of a job."""
    return next(iter(query.rows(conn, "get_import", import_id=import_id)), None)


def get(conn: Connection, import_id: int) -> Row:
    """The row of a job that is there."""
    job = find(conn, import_id)
    assert job is not None
    return job


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
        **columns_of(source, plan),
        # The other options are columns. A new option is compared in `differences` too.
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


def columns_of(source: Source, plan: Plan) -> dict[str, Any]:
    """What a job keeps of its file, and of how that is read."""
    return {
        "file_size": source.size,
        "file_device": source.device,
        "file_inode": source.inode,
        "file_mtime_ns": source.mtime_ns,
        "delimiter": plan.delimiter,
        "headers": plan.headers,
        "mapping": Jsonb(plan.mapping),
        "data_start": plan.data_start,
        "header_lines": plan.header_lines,
        "rules_version": RULES_VERSION,
    }


def claim(
    conn: Connection,
    import_id: int,
    *,
    forgets_pause: bool = False,
) -> Claim:
    """Claims the job. When this returns, no earlier runner can commit anything for it.

    forgets_pause: deletes an earlier request to pause it.
    Raises ClaimLost when it has ended.
    """
    with conn.transaction():
        epoch = fenced(
            conn,
            "claim_import",
            import_id=import_id,
            forgets_pause=forgets_pause,
        )[0]
        # Waits for the last commit of a runner that died.
        conn.execute(statement("claim_lanes"), {"import_id": import_id, "epoch": epoch})
        job = get(conn, import_id)
    return Claim(import_id, epoch, job["source_id"], _clears(job), job["elapsed_ms"])


def renewed(conn: Connection, import_id: int) -> Claim:
    """The right to repair what an import left that does not run. Raises ClaimLost when it does."""
    with conn.transaction():
        epoch, source_id = fenced(conn, "renew_epoch", import_id=import_id)
        conn.execute(statement("claim_lanes"), {"import_id": import_id, "epoch": epoch})
        job = get(conn, import_id)
    return Claim(import_id, epoch, source_id, _clears(job))


def _clears(job: Row) -> int:
    """The columns that a blank erases, as a bit set."""
    if job["options"]["blank"] != "clear":
        return 0
    try:
        return plan_of(job).fields
    except (PlanError, ValueError):
        return 0  # made by a version with other fields: it can only be ended


def rename(conn: Connection, claim: Claim, file_path: str) -> None:
    """The file of the job has another name by now. Raises ClaimLost."""
    fenced(conn, "rename_import", import_id=claim.import_id, epoch=claim.epoch, file_path=file_path)


def parks_done(conn: Connection, import_id: int) -> bool:
    """Whether another import has run since this one began, while rows wait that are not parked."""
    return bool(query.only(conn, "parks_done", import_id=import_id)[0])


def hold_claim(conn: Connection, claim: Claim) -> None:
    """Fences the caller's transaction: no other runner can claim the job until it ends.

    Raises ClaimLost.
    """
    fenced(conn, "hold_claim", import_id=claim.import_id, epoch=claim.epoch)


def differences(job: Row, options: Options) -> list[str]:
    """What a job was begun with and `options`, or this version, would do otherwise."""
    found = [
        (
            options.delimiter is not None and options.delimiter != job["delimiter"],
            "another delimiter",
        ),
        (options.date_order not in (None, job["options"]["date_order"]), "another date order"),
        (options.blank not in (None, job["options"]["blank"]), f"--blank {options.blank}"),
    ]
    if options.mapping:
        found.append((not _maps_alike(job, options), "other columns"))
    return [what for differs, what in found if differs]


def has_other_rules(job: Row) -> bool:
    """Whether the job was begun by a version that reads values in another way."""
    return bool(job["rules_version"] != RULES_VERSION)


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


def _maps_alike(job: Row, options: Options) -> bool:
    try:
        wanted = Plan.from_header(
            _header(job), delimiter=job["delimiter"], overrides=list(options.mapping)
        )
    except PlanError:
        return False
    return wanted.mapping == [tuple(pair) for pair in job["mapping"]]


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
    elapsed_ms: int = 0,
    maintenance_s: float = 0,
) -> None:
    """Writes the state in which a run leaves its job; called by `ending` alone.

    elapsed_ms: of all runs, without maintenance. Raises ClaimLost.
    """
    with conn.transaction():
        fenced(
            conn,
            "end_import",
            import_id=claim.import_id,
            epoch=claim.epoch,
            status=status,
            error=error,
            elapsed_ms=elapsed_ms,
            maintenance_ms=round(maintenance_s * 1000),
        )


def leftovers(conn: Connection) -> list[int]:
    """Imports that have ended and left parked or pending rows."""
    return [row["id"] for row in query.rows(conn, "leftovers")]


def close_leftovers(conn: Connection) -> list[int]:
    """Gives these rows up; the numbers of their imports."""
    return [row["id"] for row in query.rows(conn, "close_leftovers")]


def deferred_import(conn: Connection) -> tuple[int | None, int | None]:
    """The import whose rows have no keys if the table has none; and the newest import."""
    loaded, newest = query.only(conn, "deferred_import")
    return loaded, newest


def explain(conn: Connection, import_id: int, reason: str) -> bool:
    """Stores why an interrupted import does not go on; False if that is known already."""
    return bool(query.first(conn, "explain_import", import_id=import_id, error=reason))


def fenced(conn: Connection, name: str, /, **parameters: Any) -> Any:
    """The row of a statement that returns one only while the claim is valid. Raises ClaimLost."""
    row = query.first(conn, name, **parameters)
    if row is None:
        raise ClaimLost
    return row
