"""SIGKILL at any moment costs nothing: the next start ends with the same table and counts.

Here by the clock; at each call of the driver: `test_sweep.py`.
"""

from __future__ import annotations

import random
import signal

import psycopg
import pytest

from support.kill_runner import RUNS, kill

SEED = 20261124


@pytest.mark.parametrize("number", range(RUNS or 20))
def test_killed_at_random_until_it_is_through(runner, databases, large, number):
    draw = random.Random(SEED + number)
    scene = large[["first", "again"][number % 2]]
    kills = []
    with databases.copy(scene.before) as dsn:
        while True:
            tuning = {"lanes": 2, "batch_rows": 20_000}
            if number % 4 >= 2:
                # Other lanes, batches and passes with each resume.
                tuning = {
                    "lanes": draw.choice([1, 2, 3, 5]),
                    "batch_rows": draw.choice([3_000, 20_000, 60_000]),
                    "memory_bytes": draw.choice([512 << 20, 512 << 20, 3_000_000]),
                }
            # The first one comes in time.
            after_s = draw.uniform(0.05, (1.3 if kills else 0.7) * scene.seconds)
            ended = runner.run(scene.path, dsn, kill_after_s=after_s, tuning=tuning)
            if ended.exit == 0:
                assert ended.result
            else:
                assert ended.exit == -signal.SIGKILL
                kills.append((round(after_s, 3), tuning))
            if scene.newest(dsn):
                break
        print(f"seed {SEED + number}: {len(kills)} kills: {kills}")
        scene.check(dsn)


IMPORTING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'customer-panel:import%'"
)
INVALID = "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND NOT indisvalid"


def test_killed_in_a_concurrent_index_build(runner, databases, small):
    """Somebody else writes, so the keys are built concurrently: a kill leaves a half one."""
    scene = small["first"]
    with databases.copy(scene.before) as dsn:
        with (
            psycopg.connect(dsn) as reader,
            psycopg.connect(dsn, autocommit=True) as observer,
        ):
            # A transaction that holds a snapshot: the build waits for its end.
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT 1")
            pid = runner.start(scene.path, dsn, gives_way=True)
            while observer.execute(INVALID).fetchone() == (0,):
                pass
            kill(pid)
            assert runner.wait().exit == -signal.SIGKILL
            # Its backends notice within half a second; the snapshot is held until they are gone, or
            # the build would be through before.
            while observer.execute(IMPORTING).fetchone() != (0,):
                pass
            reader.rollback()
            assert observer.execute(INVALID).fetchone() != (0,)
            assert runner.run(scene.path, dsn).result.is_resumed
        scene.check(dsn)
