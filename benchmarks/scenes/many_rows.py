"""Customers with two rows each, unchanged, against the same customers with one row each."""

from __future__ import annotations

from pathlib import Path

import psycopg

from customer_panel.benchmarks.engines import ours
from customer_panel.benchmarks.figures import Figure, Result, Run, fact, ratio
from customer_panel.benchmarks.place import Place

ONE, TWO = "one row each", "two rows each"
BOUND = 2.2
# The job's own rows, as in `resync`.
WAL_BYTES = 128 << 10


def run(place: Place, *, rows: int, runs: int) -> Result:
    """`rows` customers. Each file is loaded into a database of its own and vacuumed; then the two are imported again
    in turns."""
    single = place.file(rows)
    double = single.with_suffix(".twice.csv")
    _twice(single, double)
    done: list[Run] = []
    with place.database() as one, place.database() as two:
        cases = [(ONE, one, single), (TWO, two, double)]
        place.report("first loads, not timed")
        for _, dsn, file in cases:
            ours.load(place, dsn, file)
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(b"VACUUM (ANALYZE) customers")
        for number in range(1, runs + 1):
            for name, dsn, file in cases:
                place.report(f"many rows {number} of {runs}: {name}")
                done.append(ours.load(place, dsn, file))
                done[-1].engine = name
    return Result(
        scene="many_rows",
        rows=rows,
        runs=done,
        figures=[
            ratio("two rows each / one row each", done, TWO, ONE, BOUND),
            Figure(
                name="WAL of an unchanged file",
                value=fact(done, TWO, "wal_bytes"),
                bound=WAL_BYTES,
                unit="bytes",
            ),
        ],
    )


def _twice(source: Path, target: Path) -> None:
    """The file with all of its rows a second time."""
    with source.open("rb") as read, target.open("wb") as write:
        header = read.readline()
        start = read.tell()
        write.write(header)
        for _ in range(2):
            read.seek(start)
            while piece := read.read(1 << 20):
                write.write(piece)
