"""A progress stream, read from the socket, so that a test sees the bytes a browser would."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple, Self

import httpx

ANSWER_S = 10.0


class Message(NamedTuple):
    """One message of a stream: its lines as they came, and what they say."""

    lines: list[str]
    id: str | None
    payload: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.payload["type"])


class Stream:
    """An open progress stream, read from the socket itself."""

    def __init__(self, port: int, path: str, headers: dict[str, str] | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self._buffer = b""
        asked = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = self._upto(b"\r\n\r\n", ANSWER_S).decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = httpx.Headers([line.split(": ", 1) for line in head[1:] if line])
        self.raw = b""  # the body so far, chunks undone
        self._taken = 0  # of `raw`
        self.is_ended = False

    def message(self, timeout: float = ANSWER_S) -> Message:
        """The next message; comments are passed over. Fails when none comes in time."""
        deadline = time.monotonic() + timeout
        while True:
            block, end, _ = self.raw[self._taken :].partition(b"\n\n")
            if not end:
                if not self._more(deadline - time.monotonic()):
                    raise EOFError("the stream has ended")
                continue
            self._taken += len(block) + 2
            lines = block.decode().split("\n")
            fields = [line.partition(": ")[::2] for line in lines if not line.startswith(":")]
            if fields:
                found = dict(fields)
                return Message(lines, found.get("id"), json.loads(found["data"]))

    def until(self, *kinds: str, timeout: float = 60.0) -> list[Message]:
        """All messages up to the first of one of the kinds, which is the last of them."""
        deadline = time.monotonic() + timeout
        seen: list[Message] = []
        while not seen or seen[-1].kind not in kinds:
            seen.append(self.message(deadline - time.monotonic()))
        return seen

    def rest(self, timeout: float = ANSWER_S) -> list[Message]:
        """What comes until the server ends the stream."""
        seen: list[Message] = []
        deadline = time.monotonic() + timeout
        with contextlib.suppress(EOFError):
            while True:
                seen.append(self.message(deadline - time.monotonic()))
        return seen

    def quiet(self, seconds: float) -> list[Message]:
        """What comes in so many seconds."""
        seen: list[Message] = []
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, EOFError):
            while True:
                seen.append(self.message(deadline - time.monotonic()))
        return seen

    def body(self) -> bytes:
        """All of an answer that is not a stream."""
        length = int(self.headers["content-length"])
        while len(self._buffer) < length:
            self._receive(ANSWER_S)
        return self._buffer[:length]

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self, timeout: float) -> bool:
        """Another chunk into `raw`; False at the end."""
        if self.is_ended:
            return False
        try:
            size = int(self._upto(b"\r\n", timeout), 16)
            while len(self._buffer) < size + 2:
                self._receive(timeout)
        except (EOFError, ConnectionResetError):
            self.is_ended = True
            return False
        self.raw += self._buffer[:size]
        self._buffer = self._buffer[size + 2 :]
        self.is_ended = size == 0
        return not self.is_ended

    def _upto(self, mark: bytes, timeout: float) -> bytes:
        while mark not in self._buffer:
            self._receive(timeout)
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _receive(self, timeout: float) -> None:
        if timeout <= 0:
            raise TimeoutError("nothing more came in time")
        self._socket.settimeout(timeout)
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise EOFError("the connection was closed")
        self._buffer += piece
