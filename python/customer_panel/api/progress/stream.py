"""One progress stream: what waits to be sent to its client, and the sending.

A client that reads slowly, or not at all, gets the latest progress when it reads again, and every
end of an import. Meanwhile it costs what the server's and the kernel's buffers hold, and slows
nobody.
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

MOST_WAITING = 200  # messages; then the stream is ended, and its client comes back for the rest
FAREWELL_S = 0.5  # for the end of the answer to a client that does not read

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # Neither a cache nor a proxy is to hold messages back.
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Stream:
    """What waits to be sent to one client."""

    __slots__ = (
        "_beat",
        "_blocked",
        "_news",
        "_progress",
        "_waiting",
        "after",
        "is_ended",
        "joined",
        "view",
    )

    def __init__(self, view: View, after: int | None) -> None:
        self.view = view
        self.after = after  # up to which end its client knows; None: it asks for none
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_ended = False
        self._waiting: deque[bytes] = deque()
        self._progress: bytes | None = None
        self._beat: bytes | None = None
        self._news = asyncio.Event()
        self._blocked: asyncio.Task[Any] | None = None

    def tell(self, message: bytes) -> None:
        """A message that nothing overwrites. What was to be said before it is old by now."""
        self._progress = self._beat = None
        self._waiting.append(message)
        if len(self._waiting) > MOST_WAITING:
            self.end()
        self._news.set()

    def show(self, message: bytes) -> None:
        """Progress: only the latest counts."""
        self._progress = message
        self._news.set()

    def beat(self, message: bytes) -> None:
        self._beat = message
        self._news.set()

    def end(self) -> None:
        """Ends it at once, though its client may have stopped reading in the middle of a message."""
        if not self.is_ended and self._blocked is not None:
            self._blocked.cancel()
        self.is_ended = True
        self._news.set()

    async def send(self, sending: Awaitable[None]) -> bool:
        """Waits for `sending`; False if the stream was ended meanwhile."""
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
        """The next message; None at the end."""
        while not self.is_ended:
            if self._waiting:
                return self._waiting.popleft()
            message, self._progress = self._progress, None
            if message is None:
                message, self._beat = self._beat, None
            if message is not None:
                return message
            self._news.clear()
            await self._news.wait()
        return None


class EventStream(Response[str]):
    """The answer that goes on until the client goes, or the server. Litestar takes it as it is."""

    __slots__ = ("_open",)

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Stream]]) -> None:
        self._open = opened

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing is sent before the snapshot is there: until then the stream can still be refused.
        async with self._open() as stream:
            watching = asyncio.create_task(_until_gone(receive, stream))
            try:
                if await self._run(stream, send):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FAREWELL_S):
                            await send(_part(b"", is_last=True))
            finally:
                watching.cancel()

    @staticmethod
    async def _run(stream: Stream, send: Send) -> bool:
        """Sends until the stream is ended; False if that was in the middle of a message."""
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


async def _until_gone(receive: Receive, stream: Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()
