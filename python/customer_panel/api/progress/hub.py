"""The hub of all progress streams of a process: one LISTEN connection, one reading for all streams.

A notification only says that something has changed. What streams are sent comes from readings of the
database, one after the other: no stream sees an older state after a newer one, and a change that was
notified while the connection was lost is in the next reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg

from customer_panel.api.http.errors import ApiError, unavailable
from customer_panel.api.progress.messages import (
    Message,
    View,
    end_kind,
    end_number_of,
    event_id,
    heartbeat,
)
from customer_panel.api.progress.stream import Stream
from customer_panel.db.connect import connect_async
from customer_panel.db.pool import Pool
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.queries.snapshot import NEVER, ImportSnapshot, Reading, Watch
from customer_panel.redaction import described
from customer_panel.settings import Settings

logger = logging.getLogger("customer_panel.api")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5  # until the next attempt to connect
JOIN_S = 3.0  # for the snapshot of a new stream, which is refused then
READ_S = 5.0  # for a reading, which takes milliseconds; over a broken network it would take minutes
FAILED_S = 0.5  # from a reading that failed to the next one
# Between two readings while the running import commits nothing (it builds an index, or was killed):
# its elapsed time grows all the same.
STILL_S = 1.0
# Ends become visible in the order of their numbers (ledger.sql, `next_end`). Should one come late all
# the same, it is still sent if the highest number is above it by this much at most.
LATE = 16
CONNECT_S = 3
LISTEN = b"LISTEN customer_panel; LISTEN customer_panel_requests"


class Hub:
    """All progress streams of this process.

    wake: called when somebody has asked for an import, or for a change to one, and at each connection.
    on_return: called when the database can be reached again.
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
        self._is_listening = self._is_lost = self._is_closed = False
        # When the next reading is due: `_wait_s`.
        self._wakeup = asyncio.Event()
        self._is_urgent = self._is_dirty = self._is_running = False
        self._not_before = self._read_at = 0.0
        self._every_s = settings.progress_every_ms / 1000
        self._last: tuple[int, str] | None = None  # the import read last, and its status
        # Every end numbered up to `_base` was sent; above it, those in `_sent`, `_end` the highest.
        self._base = self._end = 0
        self._sent: set[int] = set()
        self._number = 0  # of the last message

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    # -- start and end -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns at once, even if the database cannot be reached."""
        self._tasks = [
            asyncio.create_task(work, name=f"cp-events-{number}")
            for number, work in enumerate((self._listen(), self._send(), self._send_heartbeats()))
        ]
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        # When a stream ends, its client reconnects; one that stays silent would not be noticed.
        self.end_streams()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the event hub has died: %s", described(error))

    def end_streams(self) -> None:
        """Ends all streams and refuses new ones. May be called more than once."""
        self._is_closed = True
        for stream in self._streams | self._joining:
            stream.end()
            self._refuse(stream, unavailable("The server is shutting down"))

    async def close(self) -> None:
        """`end_streams`, and closes the LISTEN connection."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- streams -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def opened(self, view: View, last_event_id: str | None) -> AsyncIterator[Stream]:
        """A stream that starts with the snapshot and with the ends after `last_event_id`.

        Raises ApiError 503: too many streams are open, the database cannot be reached, or the server
        is shutting down.
        """
        if self._is_closed:
            raise unavailable("The server is shutting down")
        if len(self._streams) + len(self._joining) >= self._settings.max_streams:
            raise ApiError(
                503, "Too many streams are open; try again", headers={"Retry-After": "5"}
            )
        if self._is_lost:
            raise unavailable()
        stream = Stream(view, end_number_of(last_event_id))
        self._joining.add(stream)
        try:
            self._is_urgent = True
            self._wakeup.set()
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
    def _refuse(stream: Stream, error: Exception) -> None:
        if not stream.joined.done():
            stream.joined.set_exception(error)
            # Marks it as retrieved: asyncio would log it if the client has disconnected by now.
            stream.joined.exception()

    # -- notifications -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        wait = FIRST_WAIT_S
        was_lost = False
        while True:
            with contextlib.suppress(psycopg.Error, CustomerPanelError):
                conn = await connect_async(self._dsn, part="events", connect_timeout=CONNECT_S)
                async with conn:
                    await conn.execute(LISTEN)
                    if was_lost and self._on_return is not None:
                        await self._on_return()
                    wait = FIRST_WAIT_S
                    self._not_before = 0.0
                    self._is_listening, self._is_lost = True, False
                    self._read_soon(is_urgent=True)
                    self._wake()
                    async for notification in conn.notifies():
                        self._on_notification(notification)
            was_lost = True
            self._is_listening, self._is_lost = False, True
            for stream in self._joining:
                self._refuse(stream, unavailable())
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _on_notification(self, notification: psycopg.Notify) -> None:
        if notification.channel == "customer_panel_requests":
            self._wake()
            return
        # Commits of a lane and changes of the phase wait for the next regular reading.
        self._read_soon(is_urgent='"status"' in notification.payload)

    def _read_soon(self, *, is_urgent: bool) -> None:
        self._is_dirty = True
        self._is_urgent |= is_urgent
        if self._streams or self._joining:
            self._wakeup.set()

    # -- readings, and what streams are sent of them -----------------------------------------------

    async def _send(self) -> None:
        while True:
            wait = self._wait_s()
            if wait == 0:
                await self._read_and_send()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wakeup.wait()
            self._wakeup.clear()

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

    async def _read_and_send(self) -> None:
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
            # Open streams wait for the next reading; new ones are refused.
            self._is_urgent = True
            self._not_before = time.monotonic() + FAILED_S
            for stream in joining:
                self._refuse(stream, unavailable())
            return
        self._not_before = 0.0
        self._send_ends(reading)
        self._send_progress(reading.shown)
        self._admit(joining, reading)

    def _send_ends(self, reading: Reading) -> None:
        if not self._streams or reading.highest_end < self._base:
            # No stream is open, or the database was replaced by another one.
            self._base = self._end = reading.highest_end
            self._sent.clear()
            return
        for snapshot in reading.ended:
            end = snapshot.end_number or 0
            if end <= self._base or end in self._sent:
                continue
            self._sent.add(end)
            self._end = max(self._end, end)
            message = Message(end_kind(snapshot), self._next_id(), snapshot)
            for stream in self._streams:
                stream.put(message(stream.view))
        self._base = max(self._base, self._end - LATE)
        self._sent = {end for end in self._sent if end > self._base}

    def _send_progress(self, shown: ImportSnapshot | None) -> None:
        last = self._last
        self._last = None if shown is None else (shown.job_id, shown.status)
        self._is_running = shown is not None and shown.status == "RUNNING"
        if shown is None or shown.end_number is not None:
            return
        self._every_s = (shown.every_ms or self._settings.progress_every_ms) / 1000
        if self._streams and (self._is_running or last != self._last):
            message = Message("progress", self._next_id(), shown)
            for stream in self._streams:
                stream.put_progress(message(stream.view))

    def _admit(self, joining: list[Stream], reading: Reading) -> None:
        snapshots: dict[int, Message] = {}
        missed: dict[int, Message] = {}
        for stream in joining:
            if stream.joined.done():
                continue
            # The ids count up with the ends that the client missed: if it disconnects in between, it
            # gets the other ends when it reconnects.
            after = self._end if stream.after is None else min(stream.after, self._end)
            if after not in snapshots:
                snapshots[after] = Message("snapshot", self._next_id(after), reading.shown)
            stream.put(snapshots[after](stream.view))
            for snapshot in reading.ended:
                end = snapshot.end_number or 0
                if end > after:
                    if end not in missed:
                        missed[end] = Message(end_kind(snapshot), self._next_id(end), snapshot)
                    stream.put(missed[end](stream.view))
            self._joining.discard(stream)
            self._streams.add(stream)
            stream.joined.set_result(None)

    def _next_id(self, end: int | None = None) -> str:
        """The id of the next message. Its client then knows all ends up to `end`; None: all that
        were sent.
        """
        self._number += 1
        return event_id(self._end if end is None else end, self._number)

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_ms / 1000)
            if self._streams:
                message = heartbeat(self._next_id())
                for stream in self._streams:
                    stream.put_heartbeat(message)
