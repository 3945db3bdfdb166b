"""What must be equal after two imports of the same file: the table, counts, rejects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from customer_panel.imports import ImportResult
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.engine.supervisor import Stop, run_import
from customer_panel.imports.model import Options, Progress, Tuning
from customer_panel.imports.sources import opened
from support.reference import NAMES, Counts, Reference, Reject

KEPT = ["source_hash", "many_rows", "edited_fields", "edit_base", "deleted_at IS NOT NULL"]
COUNTERS = ["processed", "inserted", "updated", "unchanged", "protected", "duplicate", "skipped"]


def run(
    path: Path,
    dsn: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
    restarts: bool = False,
    is_strict: bool = False,
    blank: Any = None,
    feed: str | None = None,
    mapping: tuple[tuple[str, str], ...] = (),
    **tuning: Any,
) -> ImportResult:
    """An import with any tuning at all."""
    with opened(path) as source:
        request = ImportRequest(
            source=source,
            options=Options(blank=blank, source=feed, mapping=mapping),
            tuning=Tuning(**tuning),
            restarts=restarts,
            is_strict=is_strict,
        )
        return run_import(request, dsn, Hooks(on_progress=on_progress), stop=stop)


def digest(dsn: str) -> tuple[int, str]:
    """Rows and content of the table: all but ids, times and lineage."""
    listed = ", ".join([*NAMES, *KEPT])
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            f"SELECT count(*), coalesce(md5(string_agg(md5(ROW({listed})::text), ''"
            " ORDER BY customer_id)), '') FROM customers".encode()
        ).fetchone()
    assert row is not None
    return row


def content(dsn: str) -> dict[str, tuple[Any, ...]]:
    """Every customer: its values, whether it has many rows, what was edited, whether deleted."""
    with psycopg.connect(dsn) as conn:
        columns = sql.SQL(", ").join(map(sql.Identifier, NAMES))
        rows = conn.execute(
            sql.SQL(
                "SELECT {}, many_rows, edited_fields, deleted_at IS NOT NULL FROM customers"
            ).format(columns)
        ).fetchall()
    found = {row[0]: tuple(row[1:]) for row in rows}
    assert len(found) == len(rows), "an identity twice"
    return found


def expected(reference: Reference) -> dict[str, tuple[Any, ...]]:
    """What `content` should find."""
    return {
        key: (
            *(customer.values[name] for name in NAMES[1:]),
            customer.many_rows,
            sum(1 << NAMES.index(name) for name in customer.edited),
            customer.is_deleted,
        )
        for key, customer in reference.customers.items()
    }


def counts(result: ImportResult) -> Counts:
    found = {name: getattr(result, f"rows_{name}") for name in COUNTERS}
    return Counts(warnings=result.warnings, **found)


def settled(dsn: str, import_id: int | None) -> tuple[int, ...]:
    """The counts that a kill must not change: it may move rows between duplicate and unchanged."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT sum(rows_processed)::int, sum(rows_inserted)::int, sum(rows_updated)::int,"
            " sum(rows_protected)::int, sum(rows_unchanged + rows_duplicate)::int,"
            " sum(rows_skipped)::int, sum(rows_pending)::int, sum(warnings)::int"
            " FROM import_lanes WHERE import_id = %s",
            [import_id],
        ).fetchone()
    assert row is not None
    return row


def rejects(dsn: str, import_id: int | None) -> list[Reject]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "SELECT line, byte_from, byte_to, severity, code, field, raw FROM import_rejects"
            " WHERE import_id = %s ORDER BY byte_from",
            [import_id],
        ).fetchall()
    return [Reject(*row) for row in rows]
