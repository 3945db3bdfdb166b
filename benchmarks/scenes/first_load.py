r"""First load: the file into an empty table, against `psql \copy` into the same table with the same indexes."""

from __future__ import annotations

from customer_panel.benchmarks.engines import ours, plain_sql
from customer_panel.benchmarks.figures import Result, Run, ratio
from customer_panel.benchmarks.place import BenchVoid, Place

BOUND, BOUND_ABOUT = 0.35, 0.50


def run(place: Place, *, rows: int, runs: int, about: bool = False) -> Result:
    """The engines take turns, each run in a new database. Raises BenchVoid."""
    file = place.file(rows, about=about)
    done: list[Run] = []
    for number in range(1, runs + 1):
        checksums = []
        for engine in (ours, plain_sql):
            place.report(f"first load {number} of {runs}: {engine.NAME}")
            with place.database() as dsn:
                if engine is plain_sql:
                    plain_sql.prepare(dsn)
                done.append(engine.load(place, dsn, file))
                checksums.append(place.checksum(dsn))
        if len(set(checksums)) > 1:
            raise BenchVoid(f"the tables differ: {checksums}")
    name = "first load, about column" if about else "first load"
    figure = ratio(name, done, ours.NAME, plain_sql.NAME, BOUND_ABOUT if about else BOUND)
    return Result(scene="first-load", rows=rows, runs=done, figures=[figure])
