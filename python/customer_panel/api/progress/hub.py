"""Streams of progress: one LISTEN connection a process, one reading for all streams.

Notifications only say that something is new. What is told comes from readings of the database that
follow one another, so no stream sees an older state after a newer one, and what was notified while
the connection was lost is in the next reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg

from customer_panel.api.http.errors import ApiError, unavailable
from customer_panel.api.progress.messages import Message, View, end_of, ending, heartbeat, place
from customer_panel.api.progress.stream import Stream
from customer_panel.db.connect import APPLICATION
from customer_panel.db.pool import KEEPALIVES, Pool
from customer_panel.errors import described
from customer_panel.imports.queries.snapshot import NEVER, Reading, Standing, Watch
from customer_panel.settings import Settings

logger = logging.getLogger("customer_panel.api")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5  # until the next attempt to connect
JOIN_S = 3.0  # what a new stream waits for its snapshot before it is refused
READ_S = 5.0  # for a reading, which takes milliseconds; behind a cut cable it would take minutes
FAILED_S = 0.5  # until the next reading after one that failed
# A running import that commits nothing for long (it builds an index, or was killed) is looked at
# nevertheless, for its clock goes on.
STILL_S = 1.0
# Ends are numbered before they commit: one may become visible after its successor.
LATE = 16
CONNECTION: dict[str, Any] = {
    "autocommit": True,
    "application_name": f"{APPLICATION}:events",
    "connect_timeout": 3,
    **KEEPALIVES,
    "tcp_user_timeout": 10_000,
}
LISTEN = b"SET idle_session_timeout = 0; LISTEN customer_panel; LISTEN customer_panel_requests"


class Hub:
    """All streams of this process. `wake` is called when a request for an import was notified, and
    `on_return` when the database is there again after it was lost.
    """

    def __init__(
        self,
        dsn: str,
        pool: Pool,
        settings: Settings,
        *,
        wake: Callable[[], None] = lambda: None,
        on_return: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.watch = Watch(pool)
        self._dsn = dsn
        self._settings = settings
        self._wake = wake
        self._on_return = on_return
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: set[Stream] = set()
        self._joining: set[Stream] = set()
        self._news = asyncio.Event()
        self._is_listening = self._is_away = self._is_closed = False
        self._is_urgent = self._is_dirty = self._is_running = False
        self._not_before = self._read_at = 0.0
        self._every_s = settings.progress_every_ms / 1000
        self._last: tuple[int, str] | None = None  # the job that was told of last, and its status
        self._end = 0  # the highest end that was told of
        self._base = 0  # ends up to here are told of, and of those behind it
        self._told: set[int] = set()  # these
        self._number = 0

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    # -- its life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns at once, whether or not the database can be reached."""
        self._tasks = [
            asyncio.create_task(work, name=f"cp-events-{number}")
            for number, work in enumerate((self._listen(), self._tell(), self._beat()))
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A stream that hears nothing any more is worse than one that ends.
        self.end_streams()
        if not task.cancelled() and (wrong := task.exception()) is not None:
            logger.error("the event hub has died: %s", described(wrong))

    def end_streams(self) -> None:
        """Ends all streams and refuses new ones. May be called more than once."""
        self._is_closed = True
        for stream in self._streams | self._joining:
            stream.end()
            self._refuse(stream, unavailable("The server is shutting down"))

    async def close(self) -> None:
        """`end_streams`, and gives the connection back."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- streams -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def opened(self, view: View, last_event_id: str | None) -> AsyncIterator[Stream]:
        """A stream that begins with the snapshot, and the ends that the client of this id has missed.

        Raises ApiError 503: too many streams, no database, or the server is shutting down.
        """
        if self._is_closed:
            raise unavailable("The server is shutting down")
        if len(self._streams) + len(self._joining) >= self._settings.max_streams:
            raise ApiError(
                503, "Too many streams are open; try again", headers={"Retry-After": "5"}
            )
        if self._is_away:
            raise unavailable()
        stream = Stream(view, end_of(last_event_id))
        self._joining.add(stream)
        try:
            self._is_urgent = True
            self._news.set()
            try:
                async with asyncio.timeout(JOIN_S):
                    await stream.joined
            except TimeoutError:
                raise unavailable() from None
            yield stream
        finally:
            self._joining.discard(stream)
            self._streams.discard(stream)

    @staticmethod
    def _refuse(stream: Stream, wrong: Exception) -> None:
        if not stream.joined.done():
            stream.joined.set_exception(wrong)
            stream.joined.exception()  # its client may have gone: nobody asks for it then

    # -- what is new -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        wait = FIRST_WAIT_S
        was_lost = False
        while True:
            with contextlib.suppress(psycopg.Error):
                conn = await psycopg.AsyncConnection.connect(self._dsn, **CONNECTION)
                async with conn:
                    await conn.execute(LISTEN)
                    if was_lost and self._on_return is not None:
                        await self._on_return()
                    wait = FIRST_WAIT_S
                    self._not_before = 0.0
                    self._is_listening, self._is_away = True, False
                    self._look(is_urgent=True)
                    self._wake()
                    async for notification in conn.notifies():
                        self._heard(notification)
            was_lost = True
            self._is_listening, self._is_away = False, True
            for stream in self._joining:
                self._refuse(stream, unavailable())
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _heard(self, notification: psycopg.Notify) -> None:
        if notification.channel == "customer_panel_requests":
            self._wake()
            return
        # What a lane commits, and the phases of the work, can wait for their turn.
        self._look(is_urgent='"status"' in notification.payload)

    def _look(self, *, is_urgent: bool) -> None:
        self._is_dirty = True
        self._is_urgent |= is_urgent
        if self._streams or self._joining:
            self._news.set()

    # -- what is told ------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            wait = self._wait_s()
            if wait == 0:
                await self._look_and_tell()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
            self._news.clear()

    def _wait_s(self) -> float | None:
        """Seconds until the next reading; None while none is due."""
        if not self._is_listening or not (self._streams or self._joining):
            return None
        due = self._not_before
        if not self._is_urgent:
            if not (self._is_dirty or self._is_running):
                return None
            every_s = self._every_s if self._is_dirty else max(self._every_s, STILL_S)
            due = max(due, self._read_at + every_s)
        return max(due - time.monotonic(), 0)

    async def _look_and_tell(self) -> None:
        joining = list(self._joining)
        self._is_urgent = self._is_dirty = False
        self._read_at = time.monotonic()
        known = [self._base] if self._streams else []
        known += [stream.after for stream in joining if stream.after is not None]
        try:
            async with asyncio.timeout(READ_S):
                reading = await self.watch.read(
                    recent=max(stream.view.recent for stream in self._streams | self._joining),
                    since=min(known, default=NEVER),
                )
        except (psycopg.Error, TimeoutError):
            # Open streams wait; new ones are refused.
            self._is_urgent = True
            self._not_before = time.monotonic() + FAILED_S
            for stream in joining:
                self._refuse(stream, unavailable())
            return
        self._not_before = 0.0
        self._tell_ends(reading)
        self._tell_progress(reading.shown)
        self._welcome(joining, reading)

    def _tell_ends(self, reading: Reading) -> None:
        if not self._streams or reading.highest_end < self._base:
            # Nobody was told anything, or the database is another one by now.
            self._base = self._end = reading.highest_end
            self._told.clear()
            return
        for standing in reading.ended:
            end = standing.end_number or 0
            if end <= self._base or end in self._told:
                continue
            self._told.add(end)
            self._end = max(self._end, end)
            told = Message(ending(standing), self._place(), standing)
            for stream in self._streams:
                stream.tell(told(stream.view))
        self._base = max(self._base, self._end - LATE)
        self._told = {end for end in self._told if end > self._base}

    def _tell_progress(self, shown: Standing | None) -> None:
        last = self._last
        self._last = None if shown is None else (shown.job_id, shown.status)
        self._is_running = shown is not None and shown.status == "RUNNING"
        if shown is None or shown.end_number is not None:
            return
        self._every_s = (shown.every_ms or self._settings.progress_every_ms) / 1000
        if self._streams and (self._is_running or last != self._last):
            told = Message("progress", self._place(), shown)
            for stream in self._streams:
                stream.show(told(stream.view))

    def _welcome(self, joining: list[Stream], reading: Reading) -> None:
        snapshots: dict[int, Message] = {}
        missed: dict[int, Message] = {}
        for stream in joining:
            if stream.joined.done():
                continue
            # A client that breaks off before it has heard of all that it missed hears of the rest
            # when it comes back: the id goes up with them.
            after = self._end if stream.after is None else min(stream.after, self._end)
            if after not in snapshots:
                snapshots[after] = Message("snapshot", self._place(after), reading.shown)
            stream.tell(snapshots[after](stream.view))
            for standing in reading.ended:
                end = standing.end_number or 0
                if end > after:
                    if end not in missed:
                        missed[end] = Message(ending(standing), self._place(end), standing)
                    stream.tell(missed[end](stream.view))
            self._joining.discard(stream)
            self._streams.add(stream)
            stream.joined.set_result(None)

    def _place(self, end: int | None = None) -> str:
        """The id of the next message: who knows it, knows of all up to `end`, else of all that were
        told.
        """
        self._number += 1
        return place(self._end if end is None else end, self._number)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_ms / 1000)
            if self._streams:
                beat = heartbeat(self._place())
                for stream in self._streams:
                    stream.beat(beat)
