"""At every moment of an import the counters tell exactly what is in the tables."""

from __future__ import annotations

import threading
from typing import Self

import psycopg
import pytest
from psycopg import IsolationLevel

from support.compare import run
from support.kill_runner import Scene

SEEN = """
SELECT sum(rows_processed)::int, sum(rows_inserted)::int, sum(rows_updated)::int,
       sum(rows_unchanged)::int, sum(rows_protected)::int, sum(rows_duplicate)::int,
       sum(rows_skipped)::int, sum(rows_pending)::int, sum(warnings)::int
  FROM import_lanes WHERE import_id = %(job)s
"""
THERE = """
SELECT (SELECT count(*) FROM customers WHERE import_id = %(job)s)::int,
       (SELECT count(*) FROM import_rejects WHERE import_id = %(job)s AND severity = 'reject')::int,
       (SELECT count(*) FROM import_rejects WHERE import_id = %(job)s AND severity = 'warning')::int,
       (SELECT count(*) FROM import_parked WHERE import_id = %(job)s AND is_first)::int,
       (SELECT count(*) FROM import_parked WHERE import_id = %(job)s AND NOT is_first)::int,
       (SELECT count(*) FROM customer_history WHERE import_id = %(job)s)::int,
       (SELECT phase FROM imports WHERE id = %(job)s)
"""


class Reader:
    """A session that looks at every notification, and between them, under one snapshot each."""

    def __init__(self, dsn: str, scene: Scene) -> None:
        self.dsn, self.scene = dsn, scene
        self.looks: list[tuple[int, ...]] = []
        self.phases: set[str] = set()
        self.failures: list[BaseException] = []
        self.is_ready, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.thread.start()
        self.is_ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        if self.failures:
            raise self.failures[0]

    def _run(self) -> None:
        try:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                conn.execute("LISTEN customer_panel")
                conn.isolation_level = IsolationLevel.REPEATABLE_READ
                self.is_ready.set()
                while not self.ended.is_set():
                    for _ in conn.notifies(timeout=0.02, stop_after=1):
                        pass
                    with conn.transaction():
                        self._look(conn)
                with conn.transaction():
                    self._look(conn)
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.is_ready.set()

    def _look(self, conn: psycopg.Connection) -> None:
        job = {"job": self.scene.job_id}
        seen = conn.execute(SEEN, job).fetchone()
        there = conn.execute(THERE, job).fetchone()
        assert seen
        assert there
        if seen[0] is None:
            return
        processed, inserted, updated, unchanged, protected, duplicate, skipped, pending, warned = (
            seen
        )
        customers, rejects, warnings, firsts, laters, changed, phase = there
        outcomes = inserted + updated + unchanged + protected + duplicate + skipped + pending
        assert processed == outcomes
        assert (rejects, warnings) == (skipped, warned)
        if self.scene.before == "template_migrated":
            assert customers == inserted
        if phase == "scanning":
            # Rows of customers who had several in the last file wait without being parked.
            assert firsts <= pending
            assert laters <= duplicate
            assert changed == updated
        else:
            assert firsts == pending
        if self.looks:
            assert processed >= self.looks[-1][0]
        self.looks.append(seen)
        self.phases.add(phase)


@pytest.mark.parametrize("name", ["first", "again"])
def test_counters_are_what_is_in_the_tables_at_every_checkpoint(large, databases, name):
    scene = large[name]
    with databases.copy(scene.before) as dsn, Reader(dsn, scene) as reader:
        run(scene.path, dsn, lanes=2, batch_rows=3000)
        scene.check(dsn)
    different = set(reader.looks)
    print(f"{len(different)} different states in {len(reader.looks)} looks, {reader.phases}")
    assert len(different) > 5
    last = reader.looks[-1]
    assert last[7] == 0


def test_progress_counts_only_what_is_committed(large, databases):
    scene = large["first"]
    reported = []
    with databases.copy(scene.before) as dsn, psycopg.connect(dsn, autocommit=True) as conn:

        def look(progress) -> None:
            row = conn.execute(SEEN, {"job": scene.job_id}).fetchone()
            assert row is not None
            reported.append((progress, row[0] or 0))

        run(scene.path, dsn, lanes=2, batch_rows=3000, on_progress=look)
    assert len(reported) > 3
    for progress, committed in reported:
        assert progress.counts.processed <= committed
    assert reported[-1][0].counts.processed == reported[-1][1] == scene.counts[0]
    assert reported[-1][0].phase == "done"
