"""The hub: what its streams are told, whoever imports, and whatever happens to the database.

The form of the bytes, and all of it over HTTP: tests/contract/test_stream_bytes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api import Message, csv
from customer_panel.api.errors import ApiError
from customer_panel.api.events import Hub
from customer_panel.api.messages import View
from customer_panel.api.stream import MOST_WAITING, Stream
from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from customer_panel.db.pool import make_pool
from customer_panel.imports.stop import Stop
from customer_panel.settings import Settings
from servers import make_home
from table import run

VIEW = View(recent=20, total_rows=None)
ROWS = 3000


class Page:
    """A client of the hub, without HTTP between them."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def message(self, timeout: float = 10.0) -> Message:
        async with asyncio.timeout(timeout):
            sent = await self.stream.next()
        if sent is None:
            raise EOFError
        lines = sent.decode().removesuffix("\n\n").split("\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return Message(lines, fields["id"], json.loads(fields["data"]))

    async def until(self, *kinds: str, timeout: float = 30.0) -> list[Message]:
        seen: list[Message] = []
        async with asyncio.timeout(timeout):
            while not seen or seen[-1].kind not in kinds:
                seen.append(await self.message(timeout))
        return seen

    async def quiet(self, seconds: float = 0.3) -> list[Message]:
        """What comes in so many seconds."""
        seen: list[Message] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    seen.append(await self.message())
        return seen


class House:
    """A hub that runs, and the pages that look at it."""

    def __init__(self, hub: Hub, stack: contextlib.AsyncExitStack) -> None:
        self.hub = hub
        self._stack = stack

    async def page(self, last: str | None = None, view: View = VIEW) -> tuple[Page, Message]:
        """A new page, and its snapshot."""
        page = Page(await self._stack.enter_async_context(self.hub.opened(view, last)))
        snapshot = await page.message()
        assert snapshot.kind == "snapshot"
        return page, snapshot


@contextlib.asynccontextmanager
async def house(dsn: str, **settings: Any) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        pool = make_pool(dsn)
        await pool.open()
        stack.push_async_callback(pool.close)
        hub = Hub(dsn, pool, Settings(**{"progress_every_ms": 200, **settings}))
        await hub.start()
        stack.push_async_callback(hub.close)
        yield House(hub, stack)


def ends(messages: list[Message]) -> list[tuple[str, str]]:
    return [(m.kind, m.payload["jobId"]) for m in messages if m.kind in ("done", "error")]


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


# -- what is told -------------------------------------------------------------------------------


def test_done_once_to_every_stream_whichever_process_ran_the_import(dsn, path, run):
    async def follow() -> None:
        async with house(dsn) as here, house(dsn) as there:
            pages = [(await one.page())[0] for one in (here, here, there) for _ in range(3)]
            command = asyncio.to_thread(run, "import", str(path), DATABASE_URL=dsn)
            assert (await command).returncode == 0
            for page in pages:
                seen = await page.until("done") + await page.quiet()
                assert ends(seen) == [("done", "1")]
                assert seen[0].payload["rowsProcessed"] == str(ROWS)

    asyncio.run(follow())


def test_a_stream_that_is_open_hears_of_the_job_that_begins(dsn, path):
    async def follow() -> None:
        async with house(dsn, progress_every_ms=30_000) as there:
            page, snapshot = await there.page()
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
        async with house(dsn) as there:
            pages = [(await there.page())[0] for _ in range(3)]
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
        async with house(dsn, heartbeat_ms=100) as there:
            page, _ = await there.page()
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
        async with house(dsn, progress_every_ms=200) as there:
            page, _ = await there.page()
            jobs(JOB, {"status": "RUNNING", "every": 700})
            hold = await asyncio.to_thread(psycopg.connect, dsn, autocommit=True)
            hold.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            hold.execute(STATUS)
            await page.message()
            told = []
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                hold.execute(COMMIT)
                told += [time.monotonic() for m in await page.quiet(0.02) if m.kind == "progress"]
            hold.close()
            return told

    told = asyncio.run(follow())
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert len(gaps) >= 2
    assert all(0.65 < gap < 0.95 for gap in gaps), gaps


def test_a_pause_is_progress_and_a_cancel_an_error(dsn, path):
    async def follow() -> None:
        async with house(dsn) as there:
            page, _ = await there.page()
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
            await asyncio.to_thread(run, csv(path.parent / "next.csv", 10), dsn, restarts=True)
            seen = await page.until("done")
            assert ends(seen) == [("error", "1"), ("done", "2")]
            cancelled = next(m for m in seen if m.kind == "error").payload
            assert "cancelled" in cancelled["error"]
            assert cancelled["rowsInserted"] in cancelled["error"]

    asyncio.run(follow())


def test_views_differ_and_readings_are_shared(dsn, path):
    async def follow() -> None:
        async with house(dsn) as there:
            await asyncio.to_thread(run, path, dsn)
            pages = [
                await there.page(view=View(recent=recent, total_rows=None))
                for recent in (1, 7, 200, 7)
            ]
            recents = [snapshot.payload["recentCustomers"] for _, snapshot in pages]
            assert [len(recent) for recent in recents] == [1, 7, 200, 7]
            assert recents[0] == recents[2][:1]
            assert recents[1] == recents[3] == recents[2][:7]

    asyncio.run(follow())


def test_the_bytes_of_a_message_are_shared(dsn, path):
    async def follow() -> None:
        async with house(dsn, max_streams=500) as there:
            began = time.monotonic()
            pages = [page for page, _ in await asyncio.gather(*(there.page() for _ in range(500)))]
            assert time.monotonic() - began < 5
            assert there.hub.stream_count == 500
            await asyncio.to_thread(run, path, dsn)
            told = []
            for page in pages:
                while not told or b'"type":"done"' not in told[-1]:
                    told.append(await page.stream.next() or b"")
                told.append(b"next page")
            # Nobody read meanwhile: perhaps one message of progress, and the end.
            assert len({id(message) for message in told}) <= 3
            assert sum(b'"type":"done"' in message for message in told) == 500

    asyncio.run(follow())


# -- readers that do not read, and streams that are too many ---------------------------------------


def test_progress_is_overwritten_and_ends_are_not(dsn):
    async def fill() -> None:
        stream = Stream(VIEW, None)
        for number in range(1000):
            stream.show(b"progress %d" % number)
            stream.beat(b"beat %d" % number)
        stream.tell(b"done 1")
        for number in range(1000):
            stream.show(b"progress %d" % number)
            stream.beat(b"beat %d" % number)
        assert [await stream.next() for _ in range(3)] == [b"done 1", b"progress 999", b"beat 999"]
        # Behind a number of ends it is ended: its client comes back and asks for them.
        for number in range(MOST_WAITING + 1):
            stream.tell(b"done %d" % number)
        assert await stream.next() is None

    asyncio.run(fill())


def test_a_blocked_send_ends_with_its_stream(dsn):
    async def block() -> None:
        stream = Stream(VIEW, None)
        sending = asyncio.create_task(stream.send(asyncio.Event().wait()))
        await asyncio.sleep(0)
        stream.end()
        stream.end()
        assert await sending is False
        # A cancellation from elsewhere is none of its business.
        stream = Stream(VIEW, None)
        sending = asyncio.create_task(stream.send(asyncio.Event().wait()))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(block())


def test_no_stream_no_question(dsn, path):
    async def follow() -> None:
        async with house(dsn, heartbeat_ms=100) as there:
            asked = []
            original = there.hub.watch.read

            async def read(**how: Any) -> Any:
                asked.append(how)
                return await original(**how)

            there.hub.watch.read = read  # type: ignore[method-assign]
            await asyncio.to_thread(run, path, dsn, batch_rows=100)
            assert not asked
            async with there.hub.opened(VIEW, None):
                assert len(asked) == 1
            await asyncio.to_thread(run, csv(path.parent / "next.csv", 10), dsn)
            await asyncio.sleep(0.3)
            assert len(asked) == 1
            assert there.hub.stream_count == 0

    asyncio.run(follow())


def test_more_than_the_cap_are_refused_with_503(dsn):
    async def crowd() -> None:
        async with house(dsn, max_streams=3) as there:
            for _ in range(2):
                await there.page()
            async with there.hub.opened(VIEW, None):
                with pytest.raises(ApiError) as refused:
                    await there.page()
                assert refused.value.status == 503
                assert refused.value.headers["Retry-After"]
            await there.page()

    asyncio.run(crowd())


def test_all_streams_end_at_once_with_the_hub(dsn):
    async def leave() -> None:
        async with house(dsn) as there:
            pages = [(await there.page())[0] for _ in range(5)]
            there.hub.end_streams()
            for page in pages:
                with pytest.raises(EOFError):
                    await page.message(0.1)
            with pytest.raises(ApiError):
                await there.page()

    asyncio.run(leave())


def test_heartbeats_go_to_all(dsn):
    async def listen() -> None:
        async with house(dsn, heartbeat_ms=100) as there:
            pages = [(await there.page())[0] for _ in range(3)]
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
        told = late.until("done")
        assert told[-1].payload["jobId"] == "3"
        assert len(told) < 80
    assert server.terminate() < 5
    for stream in asleep:
        stream.close()


# -- what was missed ------------------------------------------------------------------------------


def test_a_client_that_comes_back_hears_what_it_missed_in_order(dsn, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(5)]

    async def follow() -> None:
        async with house(dsn) as here, house(dsn) as there:
            page, first = await here.page()
            await asyncio.to_thread(run, files[0], dsn)
            done = (await page.until("done"))[-1]
            for file in files[1:]:
                await asyncio.to_thread(run, file, dsn)
            # Any process knows; and an id of long ago goes on from there.
            for one in (here, there):
                for last, missed in ((first.id, "12345"), (done.id, "2345"), ("5-0", "")):
                    back, snapshot = await one.page(last)
                    seen = await back.quiet(0.1)
                    assert ends(seen) == [("done", number) for number in missed]
                    # Whoever breaks off in between misses nothing either.
                    told = [int(str(m.id).split("-")[0]) for m in [snapshot, *seen]]
                    assert told == [5 - len(missed), *map(int, missed)]
            for odd in ("", "x", "99-1", "1", "-1-1", "9" * 40 + "-1", "1-1-1"):
                back, _ = await there.page(odd)
                assert not await back.quiet(0.05)

    asyncio.run(follow())


def test_of_a_hundred_missed_ends_and_more_the_newest_are_told(dsn, jobs):
    jobs(ENDED, {"count": 130})

    async def follow() -> None:
        async with house(dsn) as there:
            page, _ = await there.page("0-0")
            numbers = [int(job) for _, job in ends(await page.quiet())]
            assert numbers == list(range(31, 131))

    asyncio.run(follow())


def test_an_end_that_commits_behind_its_successor_is_told_too(dsn, jobs):
    """Ends are numbered before they commit."""

    async def follow() -> None:
        async with house(dsn) as there:
            page, _ = await there.page()
            with psycopg.connect(dsn) as late:
                late.execute(ENDED, {"count": 1})
                jobs(ENDED, {"count": 1})
                assert ends(await page.quiet()) == [("done", "2")]
                late.commit()
            assert ends(await page.quiet()) == [("done", "1")]
            jobs(ENDED, {"count": 1})
            assert ends(await page.quiet()) == [("done", "3")]

    asyncio.run(follow())


# -- the database goes away -----------------------------------------------------------------------


def test_nothing_is_lost_or_doubled_when_the_listening_session_is_ended(dsn, database, tmp_path):
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(4)]

    async def follow() -> None:
        async with house(dsn) as there:
            page, _ = await there.page()
            for file in files:
                ended = database.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database()"
                    " AND application_name = 'customer-panel:events'"
                ).fetchone()
                assert ended == (1,)
                await asyncio.to_thread(run, file, dsn)
                await asyncio.sleep(0.2)
            assert ends(await page.quiet(1)) == [("done", number) for number in "1234"]

    asyncio.run(follow())


@pytest.fixture
def mortal() -> Iterator[tuple[Path, str]]:
    """The home of a server that may be stopped, and a database of it."""
    home = make_home()
    server = embedded.up(home)
    migrate(server.dsn)
    yield home, server.dsn
    embedded.stop(home, force=True)
    shutil.rmtree(home)


def test_streams_outlive_the_server(mortal, tmp_path):
    home, dsn = mortal
    files = [csv(tmp_path / f"{seed}.csv", 20, seed=seed) for seed in range(2)]
    returned = []

    async def follow() -> None:
        async with house(dsn, heartbeat_ms=100) as there:
            there.hub._on_return = lambda: noted(returned)
            page, _ = await there.page()
            await asyncio.to_thread(run, files[0], dsn)
            assert ends(await page.until("done")) == [("done", "1")]
            await asyncio.to_thread(embedded.stop, home, force=True)
            # Open ones stay and beat, new ones are refused at once.
            assert {m.kind for m in await page.quiet(0.5)} == {"heartbeat"}
            began = time.monotonic()
            with pytest.raises(ApiError) as refused:
                await there.page()
            assert refused.value.status == 503
            assert refused.value.headers["Retry-After"]
            assert time.monotonic() - began < 0.5
            await asyncio.to_thread(embedded.up, home)
            back = time.monotonic()
            await asyncio.to_thread(run, files[1], dsn)
            assert ends(await page.until("done")) == [("done", "2")]
            assert time.monotonic() - back < 3
            assert returned
            await there.page()
            assert not ends(await page.quiet())

    asyncio.run(follow())


async def noted(times: list[float]) -> None:
    times.append(time.monotonic())


def test_a_hub_that_starts_before_its_database(mortal):
    home, dsn = mortal
    embedded.stop(home, force=True)

    async def follow() -> None:
        async with house(dsn) as there:
            with pytest.raises(ApiError):
                await there.page()
            await asyncio.to_thread(embedded.up, home)
            async with asyncio.timeout(2):
                while True:
                    with contextlib.suppress(ApiError):
                        await there.page()
                        break
                    await asyncio.sleep(0.05)

    asyncio.run(follow())


def test_requests_wake_the_worker(dsn, database):
    async def follow() -> None:
        woken = asyncio.Event()
        async with house(dsn) as there:
            there.hub._wake = woken.set
            await there.page()
            woken.clear()
            database.execute("NOTIFY customer_panel_requests, '7'")
            async with asyncio.timeout(1):
                await woken.wait()

    asyncio.run(follow())


# -- jobs as rows, for what no import does at will --------------------------------------------------

LOCK = 0x63705F696D706F72
SOURCE = "INSERT INTO sources (name) VALUES ('made by hand')"
JOB = """
WITH job AS (
    INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,
                         header_lines, rules_version, options, file_size, progress_every_ms)
    SELECT id, %(status)s, 'scanning', ',', '{}', '[]', 0, 1, 1, '{}', 1000, %(every)s
      FROM sources WHERE name = 'made by hand'
    RETURNING id)
INSERT INTO import_lanes (import_id, lane, epoch, done_to) SELECT id, 0, 0, 0 FROM job
"""
STATUS = """SELECT pg_notify('customer_panel', '{"jobId": "1", "status": "RUNNING"}')"""
COMMIT = """SELECT pg_notify('customer_panel', '{"jobId": "1", "lane": 0}')"""
ENDED = """
INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start, header_lines,
                     rules_version, options, end_number)
SELECT id, 'COMPLETED', 'done', ',', '{}', '[]', 0, 1, 1, '{}', nextval('import_ends')
  FROM sources, generate_series(1, %(count)s) WHERE name = 'made by hand'
RETURNING pg_notify('customer_panel', '{"jobId": "0", "status": "COMPLETED"}')
"""
