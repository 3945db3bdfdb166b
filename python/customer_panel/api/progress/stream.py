"""One progress stream: the messages that wait for its client, and how they are sent.

A client that reads slowly, or not at all, gets the latest progress when it reads again, and every
end of an import. Until then it occupies only the buffers of the server and of the kernel, and delays
no other client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Response
from litestar.types import Receive, Scope, Send
from litestar.types.asgi_types import HTTPResponseBodyEvent, HTTPResponseStartEvent

from customer_panel.api.progress.messages import View

MOST_WAITING = 200  # messages; with more the stream ends, and its client reconnects for the rest
FAREWELL_S = 0.5  # to send the end of the answer; the client may have stopped reading

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # No cache and no proxy may hold messages back.
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Stream:
    """The messages that wait to be sent to one client."""

    __slots__ = (
        "_blocked",
        "_has_message",
        "_heartbeat",
        "_progress",
        "_waiting",
        "after",
        "is_ended",
        "joined",
        "view",
    )

    def __init__(self, view: View, after: int | None) -> None:
        self.view = view
        self.after = after  # the last end that its client knows; None: it wants no earlier ones
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_ended = False
        self._waiting: deque[bytes] = deque()
        self._progress: bytes | None = None
        self._heartbeat: bytes | None = None
        self._has_message = asyncio.Event()
        self._blocked: asyncio.Task[Any] | None = None

    def put(self, message: bytes) -> None:
        """Adds a message that must arrive. It replaces progress that was not sent yet."""
        self._progress = self._heartbeat = None
        self._waiting.append(message)
        if len(self._waiting) > MOST_WAITING:
            self.end()
        self._has_message.set()

    def put_progress(self, message: bytes) -> None:
        """Adds progress; it replaces progress that was not sent yet."""
        self._progress = message
        self._has_message.set()

    def put_heartbeat(self, message: bytes) -> None:
        self._heartbeat = message
        self._has_message.set()

    def end(self) -> None:
        """Ends the stream at once, even if its client stopped reading in the middle of a message."""
        if not self.is_ended and self._blocked is not None:
            self._blocked.cancel()
        self.is_ended = True
        self._has_message.set()

    async def send(self, sending: Awaitable[None]) -> bool:
        """Waits for `sending`; False if the stream ended before it was done."""
        self._blocked = asyncio.current_task()
        assert self._blocked is not None
        try:
            await sending
        except asyncio.CancelledError:
            if not self.is_ended or self._blocked.uncancel():
                raise
            return False
        finally:
            self._blocked = None
        return True

    async def next(self) -> bytes | None:
        """Waits for the next message and returns it; None when the stream has ended."""
        while not self.is_ended:
            if self._waiting:
                return self._waiting.popleft()
            message, self._progress = self._progress, None
            if message is None:
                message, self._heartbeat = self._heartbeat, None
            if message is not None:
                return message
            self._has_message.clear()
            await self._has_message.wait()
        return None


class EventStream(Response[str]):
    """An answer that lasts until its client disconnects or the server shuts down."""

    __slots__ = ("_open",)

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Stream]]) -> None:
        self._open = opened

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing is sent until the snapshot is there, so that an error can still be the answer.
        async with self._open() as stream:
            watching = asyncio.create_task(_until_disconnect(receive, stream))
            try:
                if await self._run(stream, send):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FAREWELL_S):
                            await send(_part(b"", is_last=True))
            finally:
                watching.cancel()

    @staticmethod
    async def _run(stream: Stream, send: Send) -> bool:
        """Sends until the stream ends; False if that was in the middle of a message."""
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 200,
            "headers": HEADERS,
        }
        if not await stream.send(send(start)):
            return False
        while (message := await stream.next()) is not None:
            if not await stream.send(send(_part(message))):
                return False
        return True


def _part(payload: bytes, *, is_last: bool = False) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": payload, "more_body": not is_last}


async def _until_disconnect(receive: Receive, stream: Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()
