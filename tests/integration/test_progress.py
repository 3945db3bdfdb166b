"""The snapshot: consistent at every moment of an import, in every process, after every restart."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from typing import Any

import psycopg
import pytest

from customer_panel.api.progress.messages import View, progress_of
from customer_panel.db.pool import make_pool
from customer_panel.errors import Stopped
from customer_panel.imports.model import COUNTERS, RUNNER_LOCK
from customer_panel.imports.queries.snapshot import (
    DYING_S,
    NOT_DONE,
    ImportSnapshot,
    Reading,
    Watch,
)
from customer_panel.imports.stop import Stop
from customer_panel.sql import statement
from support.compare import run
from support.customers import csv
from support.kill_runner import kill

RECENT = 20


def readings(dsn: str, watch: Watch | None = None, count: int = 1, **how: Any) -> list[Reading]:
    """What a new process sees, or the process of `watch`."""

    async def read() -> list[Reading]:
        async with make_pool(dsn) as pool:
            seeing = watch or Watch(pool)
            seeing._pool = pool
            return [await seeing.read(recent=RECENT, **how) for _ in range(count)]

    return asyncio.run(read())


def shown(dsn: str, watch: Watch | None = None) -> ImportSnapshot:
    snapshot = readings(dsn, watch)[0].shown
    assert snapshot is not None
    return snapshot


class Onlooker(threading.Thread):
    """Takes snapshots all the time, each few of them as a process that was just started."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn = dsn
        self.seen: list[ImportSnapshot] = []
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_over.is_set():
            found = (reading.shown for reading in readings(self.dsn, count=20))
            self.seen += [snapshot for snapshot in found if snapshot is not None]

    def close(self) -> None:
        self._is_over.set()
        self.join()


def is_consistent(snapshot: ImportSnapshot) -> None:
    counts = {name: getattr(snapshot.counts, name) for name in COUNTERS}
    outcomes = sum(counts.values()) - counts["processed"] - counts["warnings"]
    assert counts["processed"] == outcomes
    assert all(count >= 0 for count in counts.values())
    percent = snapshot.percent(None)
    assert percent == 100 if snapshot.status == "COMPLETED" else 0 <= percent <= NOT_DONE
    assert snapshot.bytes_total is None or 0 <= snapshot.bytes_read <= snapshot.bytes_total
    assert snapshot.elapsed_sec >= 0
    assert snapshot.eta_sec is None or snapshot.eta_sec >= 0
    assert snapshot.started_at <= snapshot.updated_at
    progress = progress_of(snapshot, View(RECENT, None))
    recent = [(customer.updated_at, customer.id) for customer in progress.recent_customers]
    assert recent == sorted(recent, reverse=True)
    assert len(recent) <= RECENT
    if counts["inserted"]:
        assert len(recent) == RECENT
        # Written before the moment of the snapshot, and not by an earlier import.
        assert all(str(progress.started_at) <= moment for moment, _ in recent)


def goes_forward(seen: list[ImportSnapshot]) -> None:
    for earlier, later in itertools.pairwise(seen):
        if earlier.job_id == later.job_id:
            assert earlier.percent(None) <= later.percent(None)
            assert earlier.bytes_read <= later.bytes_read
            assert earlier.counts.processed <= later.counts.processed
            assert earlier.updated_at <= later.updated_at
        else:
            assert earlier.job_id < later.job_id


@pytest.mark.parametrize("number", range(3))
def test_a_snapshot_at_any_moment_is_consistent(runner, databases, large, number):
    """Killed and gone on with, in other lanes and passes each time; seen by ever new processes."""
    draw = random.Random(number)
    scene = large["again" if number == 2 else "first"]
    with databases.copy(scene.before) as dsn:
        onlooker = Onlooker(dsn)
        try:
            for _ in range(30):
                tuning = {
                    "lanes": draw.choice([1, 2, 3]),
                    "batch_rows": draw.choice([3_000, 20_000]),
                    # 300,000 rows in one pass, or in several.
                    "memory_bytes": draw.choice([1 << 29, 1 << 22]),
                }
                pid = runner.start(scene.path, dsn, tuning=tuning)
                timer = threading.Timer(draw.uniform(0.1, 0.9 * scene.seconds), kill, [pid])
                timer.start()
                ended = runner.wait()
                timer.cancel()
                if ended.exit == 0:
                    break
            runner.run(scene.path, dsn, tuning=tuning)
        finally:
            onlooker.close()
        seen = onlooker.seen
        print(f"seed {number}: {len(seen)} snapshots, {len({s.bytes_read for s in seen})} states")
        assert len({snapshot.bytes_read for snapshot in seen}) > 5
        for snapshot in seen:
            is_consistent(snapshot)
        goes_forward(seen)
        last = shown(dsn)
        is_consistent(last)
        assert (last.status, last.eta_sec) == ("COMPLETED", 0)
        # When the job has ended, its figures stay.
        assert shown(dsn) == last


def test_elapsed_goes_on_while_it_runs_and_stops_when_it_stops(dsn, tmp_path):
    path = csv(tmp_path / "customers.csv", 60_000)
    onlooker = Onlooker(dsn)
    stop = Stop()
    threading.Timer(0.3, stop.ask, ["PAUSED"]).start()
    try:
        with pytest.raises(Stopped):
            run(path, dsn, stop=stop, batch_rows=500)
    finally:
        paused = shown(dsn)
        time.sleep(0.05)  # a clock that still ran would show by then
        assert shown(dsn) == paused
        run(path, dsn, batch_rows=500)
        onlooker.close()
    times = [snapshot.elapsed_sec for snapshot in onlooker.seen]
    assert times == sorted(times)
    assert len(set(times)) > 10
    assert shown(dsn).elapsed_sec >= times[-1]


# -- a runner that is missing ------------------------------------------------------------------------


@pytest.fixture
def job(database) -> int:
    """A job that says it is RUNNING, and nobody runs it."""
    database.execute("INSERT INTO sources (name) VALUES ('made by hand')")
    row = database.execute(
        "INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,"
        " header_lines, rules_version, options, epoch, file_size)"
        " SELECT id, 'RUNNING', 'scanning', ',', '{}', '[]', 100, 1, 1, '{}', 1, 1100 FROM sources RETURNING id"
    ).fetchone()
    database.execute(
        "INSERT INTO import_lanes (import_id, lane, epoch, done_to, rows_processed, rows_inserted,"
        " committed_at) VALUES (%(id)s, 0, 0, 700, 60, 60, now() - interval '70 s'),"
        " (%(id)s, 1, 0, 500, 40, 40, now() - interval '60 s')",
        {"id": row[0]},
    )
    database.execute("INSERT INTO import_clocks VALUES (%s, 100000)", [row[0]])
    return row[0]


def test_a_runner_that_is_missing_is_waited_for(dsn, job):
    now = [1000.0]
    watch = Watch(None, clock=lambda: now[0])  # type: ignore[arg-type]
    first = shown(dsn, watch)
    assert first.status == "RUNNING"
    assert first.elapsed_sec == 100
    now[0] += DYING_S - 0.1
    assert shown(dsn, watch).status == "RUNNING"
    now[0] += 0.2
    killed = shown(dsn, watch)
    assert killed.status == "INTERRUPTED"
    assert progress_of(killed, View(RECENT, None)).disable_sync is False
    # Its time ended with its last sign of life.
    assert killed.elapsed_sec == 100
    assert killed.eta_sec is None
    # Somebody runs it again: RUNNING at once, and the next time it is missing it is waited for anew.
    with psycopg.connect(dsn) as runner:
        runner.execute("SELECT pg_advisory_lock(%s)", [RUNNER_LOCK])
        assert shown(dsn, watch).status == "RUNNING"
    assert shown(dsn, watch).status == "RUNNING"


def test_figures_of_a_job(dsn, job, database):
    snapshot = shown(dsn)
    assert (snapshot.bytes_read, snapshot.bytes_total) == (600, 1100)
    assert snapshot.percent(None) == snapshot.percent(5) == 54.55
    # 500 of 1,000 bytes behind the header in 100 seconds.
    assert snapshot.eta_sec == pytest.approx(100, abs=5)
    assert snapshot.rate_rows_per_sec == pytest.approx(1, abs=0.05)
    database.execute("UPDATE imports SET phase = 'indexing'")
    assert shown(dsn).eta_sec is None
    # The total is a guess: it counts only while nobody knows the size.
    database.execute("UPDATE imports SET file_size = NULL")
    snapshot = shown(dsn)
    assert snapshot.percent(None) == 0
    assert snapshot.percent(400) == 25
    assert snapshot.percent(50) == NOT_DONE
    assert snapshot.eta_sec is None


def test_an_import_that_ended_without_success_says_why(dsn, job, database):
    for status, error, text in [
        ("FAILED", "the disk is full", "the disk is full"),
        ("FAILED", None, "The import failed"),
        ("CANCELLED", None, "The import was cancelled; the 100 rows it wrote stay"),
        ("PAUSED", None, None),
        ("COMPLETED", None, None),
    ]:
        database.execute("UPDATE imports SET status = %s, error = %s", [status, error])
        assert shown(dsn).error == text


def test_the_running_job_goes_before_the_one_that_changed_last(dsn, job, database):
    database.execute(
        "INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,"
        " header_lines, rules_version, options, updated_at)"
        " SELECT id, 'COMPLETED', 'done', ',', '{}', '[]', 0, 1, 1, '{}',"
        "        now() + make_interval(secs => i) FROM sources, generate_series(1, 3) AS i"
    )
    assert shown(dsn).job_id == job
    database.execute("UPDATE imports SET status = 'PAUSED' WHERE id = %s", [job])
    assert shown(dsn).job_id == job + 3


def test_recent_customers_are_found_by_the_index(dsn, database):
    database.execute(
        "INSERT INTO customers (customer_id, import_id) SELECT i, 1 FROM generate_series(1, 50000) AS i"
    )
    database.execute("ANALYZE customers")
    parameters = {"since": 0, "most": 100, "recent": 20, "key": RUNNER_LOCK}
    explained = database.execute(b"EXPLAIN " + statement("snapshot"), parameters).fetchall()
    plan = "\n".join(row[0] for row in explained)
    assert "customers_id_key" in plan
    assert "Seq Scan on customers" not in plan
