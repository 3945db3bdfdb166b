"""The hub: what its streams are told, whoever imports.

The form of the bytes, and all of it over HTTP: tests/contract/test_stream_bytes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.api.progress.messages import View
from customer_panel.imports.stop import Stop
from support.compare import run
from support.customers import csv
from support.hub import COMMIT, ENDED, JOB, LOCK, SOURCE, STATUS, ends, running_hub

ROWS = 3000


@pytest.fixture
def jobs(database) -> Callable[..., None]:
    """Writes rows of jobs."""
    database.execute(SOURCE)
    return database.execute


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return csv(tmp_path / "customers.csv", ROWS)


def importing(path: Path, dsn: str, **tuning: Any) -> Awaitable[Any]:
    return asyncio.create_task(asyncio.to_thread(run, path, dsn, **tuning))


def test_done_once_to_every_stream_whichever_process_ran_the_import(dsn, path, run):
    async def follow() -> None:
        async with running_hub(dsn) as first, running_hub(dsn) as second:
            pages = [(await hub.page())[0] for hub in (first, first, second) for _ in range(3)]
            command = asyncio.to_thread(run, "import", str(path), DATABASE_URL=dsn)
            assert (await command).returncode == 0
            for page in pages:
                seen = await page.until("done") + await page.quiet()
                assert ends(seen) == [("done", "1")]
                assert seen[0].payload["rowsProcessed"] == str(ROWS)

    asyncio.run(follow())


def test_a_stream_that_is_open_hears_of_the_job_that_begins(dsn, path):
    async def follow() -> None:
        async with running_hub(dsn, progress_every_ms=30_000) as running:
            page, snapshot = await running.page()
            assert snapshot.payload["status"] == "idle"
            began = time.monotonic()
            job = importing(path, dsn)
            assert (await page.message()).payload["status"] == "RUNNING"
            assert (await page.until("done"))[-1].payload["percent"] == 100
            await job
            assert time.monotonic() - began < 5, "changes of status do not wait for the interval"

    asyncio.run(follow())


def test_two_imports_in_quick_succession_end_twice(dsn, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 50, seed=seed) for seed in range(4)]

    async def follow() -> None:
        async with running_hub(dsn) as running:
            pages = [(await running.page())[0] for _ in range(3)]
            # Nobody reads meanwhile: neither end overwrites the other.
            for file in files:
                await asyncio.to_thread(run, file, dsn)
            for page in pages:
                seen = await page.quiet()
                assert ends(seen) == [("done", str(number)) for number in range(1, 5)]
                assert [m.payload["filePath"] for m in seen if m.kind == "done"] == list(
                    map(str, files)
                )

    asyncio.run(follow())


def test_progress_of_a_job_never_comes_behind_its_end(dsn, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 2000, seed=seed) for seed in range(3)]

    async def follow() -> None:
        async with running_hub(dsn, heartbeat_ms=100) as running:
            page, _ = await running.page()
            reading = asyncio.create_task(page.quiet(3))
            for file in files:
                await asyncio.to_thread(run, file, dsn, batch_rows=100)
            seen = await reading
        assert {m.kind for m in seen} == {"progress", "heartbeat", "done"}
        over: set[str] = set()
        places = []
        for message in seen:
            places.append(tuple(map(int, str(message.id).split("-"))))
            job = message.payload.get("jobId")
            assert job not in over
            if message.kind == "done":
                over.add(job)
        assert len(over) == 3
        # Who comes back with an id is told of nothing twice: it never goes back.
        assert places == sorted(places)

    asyncio.run(follow())


def test_a_job_says_how_often(dsn, jobs):
    """`progressUpdateEveryMs` of a job goes before the setting."""

    async def follow() -> list[float]:
        async with running_hub(dsn, progress_every_ms=200) as running:
            page, _ = await running.page()
            jobs(JOB, {"status": "RUNNING", "every": 700})
            hold = await asyncio.to_thread(psycopg.connect, dsn, autocommit=True)
            hold.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            hold.execute(STATUS)
            await page.message()
            times = []
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                hold.execute(COMMIT)
                times += [time.monotonic() for m in await page.quiet(0.02) if m.kind == "progress"]
            hold.close()
            return times

    times = asyncio.run(follow())
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) >= 2
    assert all(0.65 < gap < 0.95 for gap in gaps), gaps


def test_a_pause_is_progress_and_a_cancel_an_error(dsn, path):
    async def follow() -> None:
        async with running_hub(dsn) as running:
            page, _ = await running.page()
            stop = Stop()
            job = importing(path, dsn, stop=stop, batch_rows=100)
            await page.message()
            stop.ask("PAUSED")
            with contextlib.suppress(Exception):
                await job
            seen = await page.quiet()
            assert seen[-1].payload["status"] == "PAUSED"
            assert not ends(seen)
            assert seen[-1].payload["disableSync"] is False
            await asyncio.to_thread(run, path, dsn, restarts=True)
            seen = await page.until("done")
            assert ends(seen) == [("error", "1"), ("done", "2")]
            cancelled = next(m for m in seen if m.kind == "error").payload
            assert "cancelled" in cancelled["error"]
            assert cancelled["rowsInserted"] in cancelled["error"]

    asyncio.run(follow())


def test_views_differ_and_readings_are_shared(dsn, path):
    async def follow() -> None:
        async with running_hub(dsn) as running:
            await asyncio.to_thread(run, path, dsn)
            pages = [
                await running.page(view=View(recent=recent, total_rows=None))
                for recent in (1, 7, 200, 7)
            ]
            recents = [snapshot.payload["recentCustomers"] for _, snapshot in pages]
            assert [len(recent) for recent in recents] == [1, 7, 200, 7]
            assert recents[0] == recents[2][:1]
            assert recents[1] == recents[3] == recents[2][:7]

    asyncio.run(follow())


def test_the_bytes_of_a_message_are_shared(dsn, path):
    async def follow() -> None:
        async with running_hub(dsn, max_streams=500) as running:
            began = time.monotonic()
            pages = [
                page for page, _ in await asyncio.gather(*(running.page() for _ in range(500)))
            ]
            assert time.monotonic() - began < 5
            assert running.hub.stream_count == 500
            await asyncio.to_thread(run, path, dsn)
            sent = []
            for page in pages:
                while not sent or b'"type":"done"' not in sent[-1]:
                    sent.append(await page.stream.next() or b"")
                sent.append(b"next page")
            # Nobody read meanwhile: perhaps one message of progress, and the end.
            assert len({id(message) for message in sent}) <= 3
            assert sum(b'"type":"done"' in message for message in sent) == 500

    asyncio.run(follow())


# -- what was missed -------------------------------------------------------------------------------


def test_a_client_that_comes_back_hears_what_it_missed_in_order(dsn, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(5)]

    async def follow() -> None:
        async with running_hub(dsn) as first, running_hub(dsn) as second:
            page, start = await first.page()
            await asyncio.to_thread(run, files[0], dsn)
            done = (await page.until("done"))[-1]
            for file in files[1:]:
                await asyncio.to_thread(run, file, dsn)
            # Any process knows; and an id of long ago goes on from running.
            for hub in (first, second):
                for last, missed in ((start.id, "12345"), (done.id, "2345"), ("5-0", "")):
                    back, snapshot = await hub.page(last)
                    seen = await back.quiet(0.1)
                    assert ends(seen) == [("done", number) for number in missed]
                    # Whoever breaks off in between misses nothing either.
                    places = [int(str(m.id).split("-")[0]) for m in [snapshot, *seen]]
                    assert places == [5 - len(missed), *map(int, missed)]
            for odd in ("", "x", "99-1", "1", "-1-1", "9" * 40 + "-1", "1-1-1"):
                back, _ = await second.page(odd)
                assert not await back.quiet(0.05)

    asyncio.run(follow())


def test_of_a_hundred_missed_ends_and_more_the_newest_are_told(dsn, jobs):
    jobs(ENDED, {"count": 130})

    async def follow() -> None:
        async with running_hub(dsn) as running:
            page, _ = await running.page("0-0")
            numbers = [int(job) for _, job in ends(await page.quiet())]
            assert numbers == list(range(31, 131))

    asyncio.run(follow())


def test_an_end_that_commits_behind_its_successor_is_told_too(dsn, jobs):
    """Ends are numbered before they commit."""

    async def follow() -> None:
        async with running_hub(dsn) as running:
            page, _ = await running.page()
            with psycopg.connect(dsn) as late:
                late.execute(ENDED, {"count": 1})
                jobs(ENDED, {"count": 1})
                assert ends(await page.quiet()) == [("done", "2")]
                late.commit()
            assert ends(await page.quiet()) == [("done", "1")]
            jobs(ENDED, {"count": 1})
            assert ends(await page.quiet()) == [("done", "3")]

    asyncio.run(follow())
