"""Two processes that start at once, and a process that is asked to stop."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.compare import run
from support.databases import command, environment
from support.waiting import listening, wait_for_batches, wait_until

STOPPED_WITHIN_S = 5.0


def started(path: Path, dsn: str, cwd: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("import", str(path), "--json", *options),
        env=environment(DATABASE_URL=dsn),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def gate(dsn) -> Iterator[psycopg.Connection]:
    """A session that holds every import up, before its first row, until its transaction ends."""
    with psycopg.connect(dsn) as conn:
        conn.execute("LOCK TABLE customers IN SHARE MODE")
        yield conn


def test_of_two_at_once_one_runs_and_the_other_says_so(small, dsn, gate, tmp_path):
    scene = small["first"]
    processes = [started(scene.path, dsn, tmp_path) for _ in range(2)]
    # The one that runs waits at the gate, so the first that prints its result is the other.
    (answers, *more), *_ = select.select([process.stdout for process in processes], [], [], 60)
    assert not more
    ended, running = sorted(processes, key=lambda process: process.stdout is not answers)
    out, err = ended.communicate(timeout=60)
    assert ended.returncode == 1
    assert json.loads(out)["error"]["code"] == "already_running", out
    assert "already running" in err
    assert running.poll() is None
    gate.rollback()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 3, err
    scene.check(dsn)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM imports").fetchone() == (1,)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, "PAUSED"), (signal.SIGTERM, "INTERRUPTED")]
)
def test_a_signal_stops_at_a_batch_border_and_can_be_resumed(
    large, databases, tmp_path, number, status
):
    scene = large["first"]
    with databases.copy(scene.before) as dsn:
        with (
            psycopg.connect(dsn, autocommit=True) as conn,
            psycopg.connect(dsn) as gate,
            listening(dsn) as notices,
        ):
            # No lane gets beyond the first block of the file: on a busy machine the import could be
            # over before the signal is sent, or is noticed.
            gate.execute("LOCK TABLE import_blocks IN SHARE MODE")
            process = started(scene.path, dsn, tmp_path, "--batch-rows", "1000")
            wait_for_batches(notices, 2)
            began = time.monotonic()
            process.send_signal(number)
            assert process.stderr
            assert any("stopping at the next batch border" in line for line in process.stderr)
            gate.rollback()
            out, err = process.communicate(timeout=60)
            assert time.monotonic() - began < STOPPED_WITHIN_S
            assert process.returncode == 1, err
            assert json.loads(out)["error"]["code"] == "stopped", out
            job = conn.execute("SELECT status, scanned_to FROM imports").fetchone()
            assert job == (status, None)
            sums = conn.execute("SELECT sum(rows_inserted) FROM import_lanes").fetchone()
            assert sums == conn.execute("SELECT count(*) FROM customers").fetchone()
        assert run(scene.path, dsn).is_resumed
        scene.check(dsn)


def test_a_signal_stops_an_import_that_waits_for_somebody(small, dsn, gate, tmp_path):
    """Every lane hangs in a statement behind a lock that is not ours."""
    scene = small["first"]
    process = started(scene.path, dsn, tmp_path)
    with psycopg.connect(dsn, autocommit=True) as conn:
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass"
        )
        # Past the attempt to drop the keys, which gives up after two seconds.
        waiting += " AND mode = 'RowExclusiveLock'"
        wait_until(
            "a lane waits for the lock", lambda: conn.execute(waiting).fetchone() != (0,), 60
        )
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < STOPPED_WITHIN_S
    assert process.returncode == 1, err
    gate.rollback()
    assert run(scene.path, dsn).is_resumed
