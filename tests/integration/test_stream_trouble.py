"""The hub: readers that do not read, streams that are too many, a database that goes away."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.api.http.errors import ApiError
from customer_panel.api.progress.stream import MOST_WAITING, Stream
from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from support.compare import run
from support.customers import csv
from support.databases import make_home
from support.hub import ENDED, JOB, LOCK, SOURCE, STATUS, VIEW, ends, running_hub


@pytest.fixture
def jobs(database) -> Callable[..., None]:
    """Writes rows of jobs."""
    database.execute(SOURCE)
    return database.execute


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return csv(tmp_path / "customers.csv", 3000)


def test_progress_is_overwritten_and_ends_are_not(dsn):
    async def fill() -> None:
        stream = Stream(VIEW, None)
        for number in range(1000):
            stream.put_progress(b"progress %d" % number)
            stream.put_heartbeat(b"beat %d" % number)
        stream.put(b"done 1")
        for number in range(1000):
            stream.put_progress(b"progress %d" % number)
            stream.put_heartbeat(b"beat %d" % number)
        assert [await stream.next() for _ in range(3)] == [b"done 1", b"progress 999", b"beat 999"]
        # Behind a number of ends it is ended: its client comes back and asks for them.
        for number in range(MOST_WAITING + 1):
            stream.put(b"done %d" % number)
        assert await stream.next() is None

    asyncio.run(fill())


def test_a_blocked_send_ends_with_its_stream(dsn):
    async def block() -> None:
        is_sending = asyncio.Event()

        async def blocked() -> None:
            is_sending.set()
            await asyncio.Event().wait()

        stream = Stream(VIEW, None)
        sending = asyncio.create_task(stream.send(blocked()))
        await is_sending.wait()
        stream.end()
        stream.end()
        assert await sending is False
        # A cancellation from elsewhere is none of its business.
        stream = Stream(VIEW, None)
        is_sending.clear()
        sending = asyncio.create_task(stream.send(blocked()))
        await is_sending.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(block())


def test_no_stream_no_question(dsn, path):
    async def follow() -> None:
        async with running_hub(dsn, heartbeat_ms=100) as running:
            asked = []
            original = running.hub.watch.read

            async def read(**how: Any) -> Any:
                asked.append(how)
                return await original(**how)

            running.hub.watch.read = read  # type: ignore[method-assign]
            await asyncio.to_thread(run, path, dsn, batch_rows=100)
            assert not asked
            async with running.hub.opened(VIEW, None):
                assert len(asked) == 1
            await asyncio.to_thread(run, csv(path.parent / "next.csv", 10), dsn)
            await asyncio.sleep(0.3)  # longer than the 200 ms between two readings
            assert len(asked) == 1
            assert running.hub.stream_count == 0

    asyncio.run(follow())


def test_more_than_the_cap_are_refused_with_503(dsn):
    async def fill() -> None:
        async with running_hub(dsn, max_streams=3) as running:
            for _ in range(2):
                await running.page()
            async with running.hub.opened(VIEW, None):
                with pytest.raises(ApiError) as refused:
                    await running.page()
                assert refused.value.status == 503
                assert refused.value.headers["Retry-After"]
            await running.page()

    asyncio.run(fill())


def test_all_streams_end_at_once_with_the_hub(dsn):
    async def leave() -> None:
        async with running_hub(dsn) as running:
            pages = [(await running.page())[0] for _ in range(5)]
            running.hub.end_streams()
            for page in pages:
                with pytest.raises(EOFError):
                    await page.message(0.1)
            with pytest.raises(ApiError):
                await running.page()

    asyncio.run(leave())


def test_heartbeats_go_to_all(dsn):
    async def listen() -> None:
        async with running_hub(dsn, heartbeat_ms=100) as running:
            pages = [(await running.page())[0] for _ in range(3)]
            for beats in await asyncio.gather(*(page.quiet(0.55) for page in pages)):
                assert 4 <= len(beats) <= 6
                assert all(m.kind == "heartbeat" and m.payload["ts"] for m in beats)
                assert len({m.id for m in beats}) == len(beats)

    asyncio.run(listen())


def test_readers_that_never_read_cost_next_to_nothing_and_slow_nobody(serve, dsn, jobs, tmp_path):
    run(csv(tmp_path / "customers.csv", 400), dsn)
    server = serve(DATABASE_URL=dsn, SSE_HEARTBEAT_MS=60_000)
    with psycopg.connect(dsn, autocommit=True) as hold:
        hold.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        jobs(JOB, {"status": "RUNNING", "every": None})
        jobs("UPDATE import_lanes SET recent_ids = ARRAY(SELECT id FROM customers LIMIT 200)")
        asleep = [server.stream("?recentLimit=200") for _ in range(20)]
        with server.stream("?recentLimit=200") as awake:
            size = len(json.dumps(awake.message().payload))
            assert size > 50_000
            before = server.rss_bytes()
            # Far more than all buffers between the two hold.
            slowest = 0.0
            for _ in range(100):
                began = time.monotonic()
                hold.execute(STATUS)
                assert awake.message().kind == "progress"
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 1
            # The kernel has what it took; the server at most a message and its buffer for each.
            assert server.rss_bytes() - before < len(asleep) * (size + (64 << 10)) + (16 << 20)
            hold.execute(ENDED, {"count": 1})
            assert awake.until("done")[-1].payload["jobId"] == "3"
        # Whoever reads again finds the end, and only the latest progress before it.
        late = asleep.pop()
        seen = late.until("done")
        assert seen[-1].payload["jobId"] == "3"
        assert len(seen) < 80
    assert server.terminate() < 5
    for stream in asleep:
        stream.close()


# -- the database goes away ------------------------------------------------------------------------


def test_nothing_is_lost_or_doubled_when_the_listening_session_is_ended(dsn, database, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(4)]

    sessions = (
        " FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'customer-panel:events'"
    )

    async def follow() -> None:
        async with running_hub(dsn) as running:
            is_back = asyncio.Event()

            async def returned() -> None:
                is_back.set()

            running.hub._on_return = returned
            page, _ = await running.page()
            for file in files:
                is_back.clear()
                ended = database.execute("SELECT count(pg_terminate_backend(pid))" + sessions)
                assert ended.fetchone() == (1,)
                await asyncio.to_thread(run, file, dsn)
                async with asyncio.timeout(5):
                    await is_back.wait()
            assert ends(await page.quiet(1)) == [("done", number) for number in "1234"]

    asyncio.run(follow())


@pytest.fixture
def stoppable() -> Iterator[tuple[Path, str]]:
    """The home of a server that may be stopped, and a database of it."""
    home = make_home()
    server = embedded.up(home)
    migrate(server.dsn)
    yield home, server.dsn
    embedded.stop(home, force=True)
    shutil.rmtree(home)


def test_streams_outlive_the_server(stoppable, tmp_path):
    home, dsn = stoppable
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(2)]
    returned = []

    async def follow() -> None:
        async with running_hub(dsn, heartbeat_ms=100) as running:
            running.hub._on_return = lambda: note_time(returned)
            page, _ = await running.page()
            await asyncio.to_thread(run, files[0], dsn)
            assert ends(await page.until("done")) == [("done", "1")]
            await asyncio.to_thread(embedded.stop, home, force=True)
            # Open ones stay and beat, new ones are refused at once.
            assert {m.kind for m in await page.quiet(0.5)} == {"heartbeat"}
            began = time.monotonic()
            with pytest.raises(ApiError) as refused:
                await running.page()
            assert refused.value.status == 503
            assert refused.value.headers["Retry-After"]
            assert time.monotonic() - began < 0.5
            await asyncio.to_thread(embedded.up, home)
            back = time.monotonic()
            await asyncio.to_thread(run, files[1], dsn)
            assert ends(await page.until("done")) == [("done", "2")]
            assert time.monotonic() - back < 3
            assert returned
            await running.page()
            assert not ends(await page.quiet())

    asyncio.run(follow())


async def note_time(times: list[float]) -> None:
    times.append(time.monotonic())


def test_a_hub_that_starts_before_its_database(stoppable):
    home, dsn = stoppable
    embedded.stop(home, force=True)

    async def follow() -> None:
        async with running_hub(dsn) as running:
            is_back = asyncio.Event()

            async def returned() -> None:
                is_back.set()

            running.hub._on_return = returned
            with pytest.raises(ApiError):
                await running.page()
            await asyncio.to_thread(embedded.up, home)
            async with asyncio.timeout(2):
                await is_back.wait()
                await running.page()

    asyncio.run(follow())


def test_requests_wake_the_worker(dsn, database):
    async def follow() -> None:
        woken = asyncio.Event()
        async with running_hub(dsn) as running:
            running.hub._wake = woken.set
            await running.page()
            woken.clear()
            database.execute("NOTIFY customer_panel_requests, '7'")
            async with asyncio.timeout(1):
                await woken.wait()

    asyncio.run(follow())
