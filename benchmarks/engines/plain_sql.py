r"""The yardstick: psql and SQL alone, `\copy`, and `\copy` with INSERT .. ON CONFLICT."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg

from customer_panel.benchmarks.figures import Run
from customer_panel.benchmarks.place import Place
from customer_panel.customer import COLUMNS

NAME = "psql"
# `customers` has no column for the file's Index, and \copy cannot skip a column of a file.
PREPARE = 'ALTER TABLE customers ADD COLUMN "index" integer'
CREATE_FRESH = 'CREATE TEMPORARY TABLE fresh ("index" integer, {types});'
# Updates rows that differ. The others are not written, but locked, which dirties their pages too.
MERGE = """
INSERT INTO customers ({columns}) SELECT {columns} FROM fresh
ON CONFLICT (customer_id) DO UPDATE SET {assignments}, updated_at = CURRENT_TIMESTAMP
WHERE ({old}) IS DISTINCT FROM ({new});
"""


def prepare(dsn: str) -> None:
    """Adds the file's extra column to the table; table and indexes are the same otherwise."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(PREPARE.encode())


def load(place: Place, dsn: str, file: Path) -> Run:
    r"""`\copy` into the table with its three indexes, which are not dropped before."""
    return _timed(place, dsn, _copy("customers", _columns(file), file))


def resync(place: Place, dsn: str, file: Path) -> Run:
    r"""`\copy` into a temporary table, then one INSERT .. ON CONFLICT DO UPDATE WHERE something differs."""
    columns = _columns(file)
    data = columns[1:]
    types = {
        column.name: "date" if column.kind == "date" else 'text COLLATE "C"' for column in COLUMNS
    }
    script = [
        CREATE_FRESH.format(types=", ".join(f"{name} {types[name]}" for name in columns)),
        _copy("fresh", columns, file),
        MERGE.format(
            columns=", ".join(columns),
            assignments=", ".join(f"{name} = excluded.{name}" for name in data),
            old=", ".join(f"customers.{name}" for name in data),
            new=", ".join(f"excluded.{name}" for name in data),
        ),
    ]
    return _timed(place, dsn, "\n".join(script))


def _timed(place: Place, dsn: str, script: str) -> Run:
    command = [place.binaries.program("psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def run() -> None:
        subprocess.run(command, input=script.encode(), env=environment, check=True)

    _, facts = place.measured(run)
    return Run(engine=NAME, seconds=float(facts["wall_s"]), facts=facts)


def _columns(file: Path) -> list[str]:
    """Our names of the file's columns after Index: generated files have them in our order."""
    with file.open() as lines:
        count = len(next(lines).split(",")) - 1
    return [column.name for column in COLUMNS[:count]]


def _copy(table: str, columns: list[str], file: Path) -> str:
    quoted = str(file).replace("'", "''")
    return f"\\copy {table} (\"index\", {', '.join(columns)}) from '{quoted}' with (format csv, header true)"
