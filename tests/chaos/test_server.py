"""The server goes away or ends our sessions: the import goes on by itself, to the same table."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from support.databases import command, environment
from support.kill_runner import RUNS, Scene, kill, scenes

SEED = 99
TUNING = {"lanes": 2, "batch_rows": 5_000}


# -- sessions ended -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(RUNS or 4))
def test_goes_on_when_its_sessions_are_terminated(runner, databases, large, number):
    draw = random.Random(SEED + number)
    scene = large[["first", "again"][number % 2]]
    ended = threading.Event()
    with databases.copy(scene.before) as dsn:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        runner.start(scene.path, dsn, tuning=TUNING)
        terminated = []

        def terminate() -> None:
            """Ends sessions of the import, some or all, a few times."""
            with psycopg.connect(databases.dsn("postgres"), autocommit=True) as conn:
                after_s = draw.uniform(0.02, 0.4 * scene.seconds)
                while len(terminated) < 6 and not ended.wait(after_s):
                    after_s = draw.uniform(0.02, 0.4)
                    rows = conn.execute(
                        "SELECT application_name, pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = %s AND application_name LIKE 'customer-panel:import%%'"
                        " AND random() < %s",
                        [name, draw.choice([0.3, 1]) if terminated else 1],
                    ).fetchall()
                    terminated.extend([rows] if rows else [])

        thread = threading.Thread(target=terminate)
        thread.start()
        result = runner.wait()
        ended.set()
        thread.join()
        print(f"seed {SEED + number}: {terminated}")
        assert result.result
        assert terminated
        scene.check(dsn)


# -- the server killed ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stoppable_scenes(stoppable, tmp_path_factory) -> dict[str, Scene]:
    stoppable.execute("CREATE DATABASE template_stoppable")
    migrate(stoppable.dsn("template_stoppable"))
    return scenes(stoppable, "template_stoppable", tmp_path_factory.mktemp("stoppable"), 60_000)


def stop_immediately(home: Path) -> None:
    """What the kernel would do: no checkpoint, no farewell. Returns when nothing of it runs."""
    pid = embedded.status(home).pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)


@pytest.mark.parametrize("number", range(RUNS or 4))
def test_goes_on_after_immediate_stops_of_the_server(runner, stoppable, stoppable_scenes, number):
    """Somebody else starts it again; asynchronous commits may be gone, with their checkpoints."""
    draw = random.Random(SEED + number)
    scene = stoppable_scenes[["first", "again"][number % 2]]
    ended = threading.Event()
    stops = []
    with stoppable.copy(scene.before) as dsn:
        runner.start(scene.path, dsn, tuning={"lanes": 2, "batch_rows": 1000})

        def stop_and_start() -> None:
            while len(stops) < 3:
                # The first one comes in time.
                after_s = draw.uniform(0.02, 0.7 if stops else 0.4 * scene.seconds)
                if ended.wait(after_s):
                    return
                stop_immediately(stoppable.server.home)
                embedded.up(stoppable.server.home)
                stops.append(round(after_s, 3))

        thread = threading.Thread(target=stop_and_start)
        thread.start()
        result = runner.wait()
        ended.set()
        thread.join()
        print(f"seed {SEED + number}: {stops}")
        assert result.result
        assert stops
        scene.check(dsn)


@pytest.mark.parametrize("number", range(RUNS or 2))
def test_the_command_starts_its_embedded_server_again(home, stoppable_scenes, number, tmp_path):
    """No DATABASE_URL: the server is the command's own, and nobody else brings it back."""
    draw = random.Random(SEED + number)
    scene = stoppable_scenes["first"]
    process = subprocess.Popen(
        command("import", str(scene.path), "--json", "--batch-rows", "1000"),
        env=environment(CP_HOME=home),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stops = 0
    while stops < 2 and batch_is_committed(home, process):
        kill(embedded.status(home).pid or 0, draw.choice([signal.SIGQUIT, signal.SIGKILL]))
        stops += 1
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 3), err.decode()
    assert stops
    print(f"seed {SEED + number}: {stops} stops; {err.decode()}")
    result = json.loads(out)
    processed, inserted, _, _, known, skipped, _, warnings = scene.counts
    assert result["rowsProcessed"] == processed
    assert result["rowsInserted"] == inserted
    assert result["rowsUnchanged"] + result["rowsDuplicate"] == known
    assert result["rowsSkipped"] == skipped
    assert result["warnings"] == warnings


def batch_is_committed(home: Path, process: subprocess.Popen[bytes]) -> bool:
    """Waits for a batch; False when the process ended before."""
    while process.poll() is None:
        dsn = embedded.status(home).dsn
        if dsn is None:
            continue
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute("LISTEN customer_panel")
                for _ in conn.notifies(timeout=0.5, stop_after=1):
                    return True
        except psycopg.OperationalError:
            continue
    return False
