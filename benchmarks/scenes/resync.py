r"""Re-sync: the next night's file, against `\copy` and INSERT .. ON CONFLICT DO UPDATE WHERE something differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from customer_panel.benchmarks.engines import ours, plain_sql
from customer_panel.benchmarks.figures import Facts, Figure, Result, Run, fact, ratio
from customer_panel.benchmarks.place import BenchVoid, Place

BOUND, BOUND_CHANGED = 0.12, 0.17
# The job's own rows: some pages of the tables of imports, written whole after the checkpoint.
JOB_WAL_BYTES = 128 << 10
WRITES = (
    "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = 'customers'"
)


def run(place: Place, *, rows: int, runs: int, about: bool = False, changed: float = 0.0) -> Result:
    """Both engines begin with the loaded table, vacuumed before each run. With `changed`, two variants of the file
    alternate, so that each run changes that share of the rows. Raises BenchVoid."""
    base = place.file(rows, about=about)
    files = [place.file(rows, about=about, changed=changed), base] if changed else [base]
    done: list[Run] = []
    with place.database() as mine, place.database() as theirs:
        place.report("first loads, not timed")
        plain_sql.prepare(theirs)
        ours.load(place, mine, base)
        plain_sql.load(place, theirs, base)
        for number in range(1, runs + 1):
            file = files[(number - 1) % len(files)]
            place.report(f"re-sync {number} of {runs}: {ours.NAME}")
            with _counted(mine) as written:
                done.append(ours.load(place, mine, file))
            done[-1].facts |= written
            place.report(f"re-sync {number} of {runs}: {plain_sql.NAME}")
            with _counted(theirs) as written:
                done.append(plain_sql.resync(place, theirs, file))
            done[-1].facts |= written
            checksums = [place.checksum(dsn) for dsn in (mine, theirs)]
            if len(set(checksums)) > 1:
                raise BenchVoid(f"the tables differ: {checksums}")
    what = f"re-sync, {changed:.2g} changed" if changed else "re-sync, unchanged"
    figures = [ratio(what, done, ours.NAME, plain_sql.NAME, BOUND_CHANGED if changed else BOUND)]
    if not changed:
        wal, versions = (fact(done, ours.NAME, name) for name in ("wal_bytes", "row_versions"))
        figures.append(
            Figure(name="WAL of an unchanged file", value=wal, bound=JOB_WAL_BYTES, unit="bytes")
        )
        figures.append(
            Figure(name="row versions written to customers", value=versions, bound=0, unit="rows")
        )
    return Result(scene="resync", rows=rows, runs=done, figures=figures)


@contextmanager
def _counted(dsn: str) -> Iterator[Facts]:
    """Vacuums, so that each run begins alike. After `with`, the facts have the row versions written to customers."""
    facts: Facts = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(b"VACUUM (ANALYZE) customers")
        before = conn.execute(WRITES.encode()).fetchone() or (0, 0, 0)
    yield facts
    # A session adds its counts when it ends, which is after its client has closed it.
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            b"DO $$ BEGIN WHILE (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            b" AND backend_type = 'client backend') > 1 LOOP PERFORM pg_sleep(0.01);"
            b" PERFORM pg_stat_clear_snapshot(); END LOOP; END $$"
        )
        after = conn.execute(WRITES.encode()).fetchone() or (0, 0, 0)
    facts["row_versions"] = sum(after) - sum(before)
