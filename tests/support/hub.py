"""Hubs in this process, and pages that read their streams without HTTP.

Jobs are written as rows where a test needs what no import does on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from customer_panel.api.progress.hub import Hub
from customer_panel.api.progress.messages import View
from customer_panel.api.progress.stream import Stream
from customer_panel.db.pool import make_pool
from customer_panel.settings import Settings
from support.sse import Message

VIEW = View(recent=20, total_rows=None)


class Page:
    """A client of the hub."""

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
        """The messages of so many seconds, which may be none."""
        seen: list[Message] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    seen.append(await self.message())
        return seen


class RunningHub:
    """A hub that runs, and opens pages."""

    def __init__(self, hub: Hub, stack: contextlib.AsyncExitStack) -> None:
        self.hub = hub
        self._stack = stack

    async def page(self, last: str | None = None, view: View = VIEW) -> tuple[Page, Message]:
        """A new page and its first message, the snapshot. `last` is a Last-Event-ID."""
        page = Page(await self._stack.enter_async_context(self.hub.opened(view, last)))
        snapshot = await page.message()
        assert snapshot.kind == "snapshot"
        return page, snapshot


@contextlib.asynccontextmanager
async def running_hub(dsn: str, **settings: Any) -> AsyncIterator[RunningHub]:
    async with contextlib.AsyncExitStack() as stack:
        pool = make_pool(dsn)
        await pool.open()
        stack.push_async_callback(pool.close)
        hub = Hub(dsn, pool, Settings(**{"progress_every_ms": 200, **settings}))
        await hub.start()
        stack.push_async_callback(hub.close)
        yield RunningHub(hub, stack)


def ends(messages: list[Message]) -> list[tuple[str, str]]:
    return [(m.kind, m.payload["jobId"]) for m in messages if m.kind in ("done", "error")]


# -- jobs as rows ---------------------------------------------------------------------------------

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
