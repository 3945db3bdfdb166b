"""Servers that are killed, stopped, started two at a time: the job goes on by itself, once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import time
from pathlib import Path

import psycopg
import pytest

from support.api import Api, serving
from support.customers import csv
from support.envelope import failed, ok
from support.kill_runner import RUNS
from support.waiting import held, held_midway, listening, wait_for_batches, wait_until

SEED = 2026
KILLS = 10
# From the start of the process until the job runs. In `make test` two workers share the cores, and
# what is promised is promised for a machine that does nothing else.
AGAIN_WITHIN_S = 2.0 if RUNS else 6.0
USUALLY_S = 2.0
STOPPED_WITHIN_S = 5.0
BATCH_ROWS = 2000


def claims(dsn: str) -> tuple[str, int]:
    """Status of the newest import, and how often it was claimed."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT status, epoch FROM imports ORDER BY id DESC LIMIT 1"
        ).fetchone() or ("none", 0)


def settings(dsn: str, path: Path, **more: object) -> dict[str, object]:
    return {
        "DATABASE_URL": dsn,
        "IMPORT_ROOTS": path.parent,
        "IMPORT_BATCH_SIZE": BATCH_ROWS,
        "IMPORT_PROGRESS_EVERY_MS": 200,
        **more,
    }


@pytest.mark.parametrize("name", ["first", "again"])
@pytest.mark.parametrize("number", range(max(1, RUNS // 20)))
def test_killed_ten_times_until_done(large, databases, tmp_path, name, number):
    """Nobody does anything but start it again."""
    draw = random.Random(SEED + number)
    scene = large[name]
    with databases.copy(scene.before) as dsn, contextlib.ExitStack() as stack:
        api = Api(tmp_path, **settings(dsn, scene.path)).start()
        stack.callback(api.close)
        api.wait_ready()
        notices = stack.enter_context(listening(dsn, timeout=120))
        job = api.sync(scene.path)["id"]
        kills, waits = [], []
        for _ in range(KILLS):
            # An unchanged stretch commits rarely: the second night has few batches.
            batches = draw.randint(1, 4 if name == "first" else 1)
            wait_for_batches(notices, batches)
            time.sleep(draw.uniform(0, 0.05))  # any moment of the next batch
            api.kill()
            kills.append(batches)
            if claims(dsn)[0] == "COMPLETED":
                break
            began = time.monotonic()
            epoch = claims(dsn)[1]
            api.start()
            wait_until("claimed again", lambda epoch=epoch: claims(dsn)[1] > epoch, 20)
            waits.append(round(time.monotonic() - began, 2))
            shown = api.wait_ready("/health/live").until("RUNNING", "COMPLETED", job=job)
            assert shown["disableSync"] is (shown["status"] == "RUNNING")
        print(f"seed {SEED + number}: killed after batches {kills}; ran again after {waits} s")
        assert len(kills) == KILLS or name == "again"
        assert max(waits) < AGAIN_WITHIN_S
        assert statistics.median(waits) < USUALLY_S
        with api.stream() as stream:
            if api.progress()["status"] == "RUNNING":
                assert stream.until("done", "error")[-1].payload["type"] == "done"
        api.until("COMPLETED", job=job)
        scene.check(dsn)
        with psycopg.connect(dsn) as conn:
            assert conn.execute(
                "SELECT count(*) FROM imports WHERE id >= %s", [int(job)]
            ).fetchone() == (1,)


def test_sigterm_leaves_the_job_to_the_next_start(large, databases, tmp_path):
    scene = large["first"]
    with databases.copy(scene.before) as dsn, contextlib.ExitStack() as stack:
        api = Api(tmp_path, **settings(dsn, scene.path)).start()
        stack.callback(api.close)
        api.wait_ready()
        started = {}
        notices = stack.enter_context(listening(dsn, timeout=120))
        started.update(api.sync(scene.path))
        streams = [stack.enter_context(api.stream()) for _ in range(20)]
        for stream in streams[:10]:
            stream.message()  # the others never read
        # Half a request, and a connection that says nothing.
        for words in (b"GET /api/v1/cust", b"", b"POST /api/v1/customers HTTP/1.1\r\nHost: x\r\n"):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            half.sendall(words)
        wait_for_batches(notices, 2)
        assert api.terminate() < STOPPED_WITHIN_S
        assert api.process.returncode in (0, -signal.SIGTERM)
        for stream in streams[:10]:
            stream.rest()
            assert stream.is_ended
        assert claims(dsn)[0] == "INTERRUPTED"
        began = time.monotonic()
        api.start()
        wait_until("it runs again", lambda: claims(dsn)[0] == "RUNNING", 20)
        assert time.monotonic() - began < AGAIN_WITHIN_S
        api.wait_ready().until("COMPLETED", job=started["id"])
        scene.check(dsn)


def test_sigterm_ends_a_server_whose_import_waits_for_somebody(small, databases, tmp_path):
    """Every lane hangs in a statement behind a lock that is not ours."""
    scene = small["first"]
    with databases.copy(scene.before) as dsn, held(dsn):
        with serving(tmp_path, **settings(dsn, scene.path)) as api:
            api.sync(scene.path)
            with psycopg.connect(dsn, autocommit=True) as conn:
                waiting = (
                    "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    " AND relation = 'customers'::regclass"
                )
                wait_until(
                    "a lane waits for the lock",
                    lambda: conn.execute(waiting).fetchone() != (0,),
                    20,
                )
            with api.stream() as stream:
                stream.message()
                assert api.terminate() < STOPPED_WITHIN_S
        assert claims(dsn)[0] in ("INTERRUPTED", "RUNNING")  # what it could still write


# -- several servers ------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [2, 4])
def test_of_several_started_at_once_one_runs(large, databases, tmp_path, servers):
    scene = large["first"]
    with databases.copy(scene.before) as dsn, contextlib.ExitStack() as stack:
        first = Api(tmp_path, **settings(dsn, scene.path)).start()
        stack.callback(first.close)
        first.wait_ready()
        started = {}
        with held_midway(dsn, lambda: started.update(first.sync(scene.path))):
            first.kill()
        job = started["id"]
        _, epoch = claims(dsn)
        apis = [Api(tmp_path, **settings(dsn, scene.path)) for _ in range(servers)]
        began = time.monotonic()
        for api in apis:
            api.start()
            stack.callback(api.close)
        wait_until("claimed again", lambda: claims(dsn)[1] > epoch, 20)
        # Several interpreters start on few cores, at the same time.
        assert time.monotonic() - began < AGAIN_WITHIN_S * max(1, servers / (os.cpu_count() or 1))
        streams = []
        for api in apis:
            api.wait_ready("/health/live")
            assert api.until("RUNNING", "COMPLETED", timeout=10)["jobId"] == job
            streams.append(stack.enter_context(api.stream()))
        holders = set()
        with psycopg.connect(dsn, autocommit=True) as conn:
            while claims(dsn)[0] == "RUNNING":
                holders.update(
                    conn.execute(
                        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
                        " AND mode = 'ExclusiveLock' AND database ="
                        " (SELECT oid FROM pg_database WHERE datname = current_database())"
                        " AND pid IN (SELECT pid FROM pg_stat_activity"
                        " WHERE application_name LIKE 'customer-panel:import%')"
                    ).fetchall()
                )
        assert claims(dsn) == ("COMPLETED", epoch + 1)
        assert len(holders) == 1
        for api, stream in zip(apis, streams, strict=True):
            seen = stream.until("done", "error") + stream.quiet(0.3)
            ends = [(m.kind, m.payload["jobId"]) for m in seen if m.kind in ("done", "error")]
            assert ends == [("done", job)]
            assert api.progress()["status"] == "COMPLETED"
        scene.check(dsn)


def test_when_the_runner_dies_another_server_goes_on(large, databases, tmp_path):
    """All of them are started already; streams of the others stay open and hear the end."""
    scene = large["again"]
    with databases.copy(scene.before) as dsn, contextlib.ExitStack() as stack:
        apis = [
            stack.enter_context(serving(tmp_path, **settings(dsn, scene.path))) for _ in range(3)
        ]
        streams = [stack.enter_context(api.stream()) for api in apis]
        started = {}
        with held_midway(dsn, lambda: started.update(apis[0].sync(scene.path))):
            _, epoch = claims(dsn)
            apis[0].kill()
            # Its sessions are behind a lock of ours, and notice only then.
        began = time.monotonic()
        wait_until("claimed again", lambda: claims(dsn)[1] > epoch, 20)
        print(f"taken over after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < AGAIN_WITHIN_S
        for stream in streams[1:]:
            seen = stream.until("done", "error")
            assert (seen[-1].kind, seen[-1].payload["jobId"]) == ("done", started["id"])
        assert claims(dsn) == ("COMPLETED", epoch + 1)
        scene.check(dsn)


def test_what_this_process_may_not_open_stays_and_blocks_nothing(databases, template, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    long = csv(there / "long.csv", 60_000)
    with databases.copy(template) as dsn, contextlib.ExitStack() as stack:
        first = Api(tmp_path, **settings(dsn, long)).start()
        stack.callback(first.close)
        first.wait_ready()
        started = {}
        with held_midway(dsn, lambda: started.update(first.sync(long))):
            first.kill()
        second = stack.enter_context(serving(tmp_path, **settings(dsn, here / "x")))
        shown = second.until("INTERRUPTED", timeout=10)
        assert (shown["jobId"], shown["disableSync"]) == (started["id"], False)
        assert ok(second.get(f"/imports/{started['id']}"))["status"] == "INTERRUPTED"
        failed(second.post(f"/imports/{started['id']}/resume"), 400)
        job = second.sync(csv(here / "short.csv", 500, seed=5))["id"]
        second.until("COMPLETED", job=job)
        assert ok(second.get(f"/imports/{started['id']}"))["status"] == "INTERRUPTED"
        # Nor does it block the one that may open it: there is a newer one of the feed by now,
        # so it goes on only when it is asked to.
        first.start().wait_ready()
        assert ok(first.get(f"/imports/{started['id']}"))["status"] == "INTERRUPTED"
        failed(first.post(f"/imports/{started['id']}/resume"), 409)
        ok(first.post(f"/imports/{started['id']}/resume", {"force": True}))
        first.until("COMPLETED", job=started["id"])
