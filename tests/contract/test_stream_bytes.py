"""GET /customers/progress/stream, down to the bytes that a browser reads."""

from __future__ import annotations

import itertools
import re
import subprocess
import time

import pytest
from test_snapshot import SNAPSHOT, is_whole

from support.customers import csv
from support.databases import command, environment
from support.envelope import TIME
from support.waiting import held_midway

ROWS = 60_000
PROGRESS = {
    *("jobId", "rowsProcessed", "rowsInserted", "bytesRead", "rate", "elapsedSec", "lastRowHash")
}
BEAT_MS = 300


@pytest.fixture
def own(serve, dsn, files):
    """A server with a database of its own, small batches and a quick heart."""
    return serve(
        DATABASE_URL=dsn,
        IMPORT_ROOTS=files,
        IMPORT_BATCH_SIZE=200,
        IMPORT_PROGRESS_EVERY_MS=200,
        SSE_HEARTBEAT_MS=BEAT_MS,
    )


@pytest.fixture(scope="module")
def path(files):
    return csv(files / "streamed.csv", ROWS)


def test_the_form_of_the_bytes(own, path):
    """
    > `GET /customers/progress/stream` -> `text/event-stream`. Clients read it with
    > `EventSource.onmessage`, so messages carry **no `event:` line**;
    > the kind is the `type` field of the JSON data:
    >
    > Each message has an `id:`, so that a reconnecting client misses nothing.
    """
    with own.stream() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert (
            "no-cache" in stream.headers["cache-control"]
            or "no-store" in stream.headers["cache-control"]
        )
        assert "content-length" not in stream.headers
        own.sync(path)
        seen = stream.until("done")
        seen += stream.quiet(2 * BEAT_MS / 1000)
    assert b"event:" not in stream.raw
    assert b"\r" not in stream.raw
    # Blocks of the three forms that EventSource takes: `id:`, `data:`, a comment.
    for block in stream.raw.decode().split("\n\n")[:-1]:
        for line in block.split("\n"):
            assert re.match(r"id: |data: |retry: \d+$|:", line), line
    for message in seen:
        assert sum(line.startswith("data: ") for line in message.lines) == 1
        assert message.id
        assert "\0" not in message.id
        assert isinstance(message.payload["type"], str)
    assert {message.kind for message in seen} == {"snapshot", "progress", "done", "heartbeat"}
    ids = [message.id for message in seen]
    assert len(set(ids)) == len(ids)


def test_the_snapshot_comes_first_and_at_once(own, path, dsn):
    """
    > - `snapshot` at once on connect: all fields of the progress snapshot (a page that reloads
    > restores itself from it);
    """

    def first():
        began = time.monotonic()
        with own.stream() as stream:
            message = stream.message()
            assert time.monotonic() - began < 1
        assert message.kind == "snapshot"
        payload = dict(message.payload)
        del payload["type"]
        assert is_whole(payload)
        return payload

    assert first() == own.progress()
    assert first()["status"] == "idle"
    with held_midway(dsn, lambda: own.sync(path)):
        running, asked = first(), own.progress()
        assert running["status"] == "RUNNING"
        assert {**running, "elapsedSec": 0, "etaSec": 0, "rateRowsPerSec": 0} == {
            **asked,
            "elapsedSec": 0,
            "etaSec": 0,
            "rateRowsPerSec": 0,
        }
    own.until("COMPLETED")
    assert first() == own.progress()
    with own.stream("?recentLimit=2&totalRows=5") as stream:
        assert len(stream.message().payload["recentCustomers"]) == 2
    for query in ("?recentLimit=0", "?recentLimit=201", "?totalRows=x"):
        with own.stream(query) as stream:
            assert stream.status == 400
            assert b"VALIDATION_ERROR" in stream.body()


def test_progress_while_it_runs(own, path):
    """
    > - `progress` while running: `jobId`, `rowsProcessed`, `rowsInserted`, `bytesRead`, `rate`,
    > `elapsedSec`, `lastRowHash`, and the snapshot's other figures;
    """
    with own.stream() as stream:
        stream.message()
        job = own.sync(path, progressUpdateEveryMs=200)
        seen = stream.until("done")
    steps = [message.payload for message in seen if message.kind == "progress"]
    assert len(steps) > 2
    for step in steps:
        assert set(step) >= PROGRESS | SNAPSHOT
        assert step["jobId"] == job["id"]
        for name in ("rowsProcessed", "rowsInserted", "bytesRead"):
            assert step[name].isdecimal()
        assert step["rate"] >= 0
    for name in ("rowsProcessed", "bytesRead"):
        values = [int(step[name]) for step in steps]
        assert values == sorted(values)
    percents = [step["percent"] for step in steps]
    assert percents == sorted(percents)
    assert any(0 < percent < 100 for percent in percents)


def test_progress_comes_as_often_as_was_asked_for(own, path):
    """Every 200 ms is asked for: not every batch is sent, and no second goes by in silence."""
    times = []
    with own.stream() as stream:
        stream.message()
        own.sync(path, progressUpdateEveryMs=1000)
        while True:
            message = stream.message(30)
            if message.kind == "progress" and message.payload["status"] == "RUNNING":
                times.append((time.monotonic(), message.payload["rowsProcessed"]))
            if message.kind == "done":
                break
    changes = [
        at for (at, rows), (_, before) in zip(times[1:], times, strict=False) if rows != before
    ]
    gaps = [later - earlier for earlier, later in itertools.pairwise(changes)]
    assert all(gap > 0.5 for gap in gaps), gaps


def test_done_once_to_every_open_stream(own, path, dsn):
    """
    > - `done` on completion,
    >
    > once each, to every open stream,
    """
    streams = [own.stream() for _ in range(8)]
    for stream in streams:
        stream.message()
    job = own.sync(path)
    for stream in streams:
        seen = stream.until("done", "error")
        # Long enough for a second one.
        seen += stream.quiet(0.3)
        ends = [message for message in seen if message.kind in ("done", "error")]
        assert [message.kind for message in ends] == ["done"]
        done = ends[0].payload
        assert done["jobId"] == job["id"]
        assert done["rowsProcessed"] == str(ROWS)
        assert done["status"] == "COMPLETED"
        assert done["percent"] == 100
        # Nothing of the job comes behind its end.
        behind = seen[seen.index(ends[0]) + 1 :]
        assert {message.kind for message in behind} <= {"heartbeat"}
        stream.close()


def test_error_on_failure(own, dsn, files):
    """
    > `error` (with `error`: text) on failure:
    """
    path = csv(files / "failing-stream.csv", ROWS, seed=5)
    started = {}
    with own.stream() as stream:
        with held_midway(dsn, lambda: started.update(own.sync(path))) as let_go:
            # A file that changes while it is read.
            path.write_bytes(path.read_bytes()[:5000])
            let_go()
        seen = stream.until("error", "done") + stream.quiet(0.3)
    ends = [message.payload for message in seen if message.kind in ("done", "error")]
    assert [message["type"] for message in ends] == ["error"]
    assert isinstance(ends[0]["error"], str)
    assert ends[0]["error"]
    assert (ends[0]["jobId"], ends[0]["status"]) == (started["id"], "FAILED")


def test_whichever_process_ran_it(serve, dsn, files, tmp_path):
    """
    > whichever process ran the import;
    """
    path = csv(files / "elsewhere.csv", 3000, seed=3)
    settings = {"DATABASE_URL": dsn, "IMPORT_ROOTS": files}
    first, second = serve(**settings), serve(**settings)
    with first.stream() as of_first, second.stream() as of_second:
        job = first.sync(path)["id"]
        for stream in (of_first, of_second):
            assert stream.until("done")[-1].payload["jobId"] == job
        process = subprocess.run(
            command("import", str(csv(files / "elsewhere-2.csv", 3000, seed=4)), "--json"),
            env=environment(DATABASE_URL=dsn),
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        for stream in (of_first, of_second):
            seen = stream.until("done") + stream.quiet(0.3)
            ends = [m.payload["jobId"] for m in seen if m.kind == "done"]
            assert ends == [str(int(job) + 1)]


def test_heartbeats(own):
    """
    > - `heartbeat` (with `ts`) every `SSE_HEARTBEAT_MS` (15000).
    """
    from customer_panel.settings import Settings

    assert Settings.load({}, "none").heartbeat_ms == 15_000
    with own.stream() as stream:
        stream.message()
        times = []
        for _ in range(5):
            beat = stream.message(timeout=1)
            times.append(time.monotonic())
            assert beat.kind == "heartbeat"
            assert beat.id
            ts = beat.payload["ts"]
            assert TIME.fullmatch(ts) if isinstance(ts, str) else abs(ts / 1000 - time.time()) < 60
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sum(gaps) / len(gaps) == pytest.approx(BEAT_MS / 1000, rel=0.3)
