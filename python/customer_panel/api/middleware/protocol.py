"""HTTP/1.1 on a connection: uvicorn's protocol, with limits on the head of a request.

uvicorn itself waits for the rest of a head for ever, and takes one of any size.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from customer_panel.api.http.errors import error_bytes
from customer_panel.api.middleware.middleware import ALWAYS, NO_STORE, POLICY

HEAD_S = 10.0  # from the first byte of a request to the end of its headers
HEAD_BYTES = 64 << 10  # browsers send a tenth of it at most


class Protocol(HttpToolsProtocol):
    """Closes connections whose requests do not arrive; answers unreadable ones in the envelope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_in_head = False
        self._head_bytes = 0
        # A new connection that sends nothing is closed like one that is idle after an answer.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        self._head_timer: TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_head:
            return
        # A head that arrives in one piece, as most do, needs no timer.
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(f"The head of the request is larger than {HEAD_BYTES >> 10} KiB")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(
                HEAD_S, self._refuse, "The head of the request did not arrive", 408
            )

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """No warning: the request is answered as plain HTTP/1.1."""

    def send_400_response(self, msg: str) -> None:
        self._refuse(msg.rstrip("."))

    def _refuse(self, message: str, status: int = 400) -> None:
        self._stop_timer()
        self._is_in_head = False
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The answer to an earlier request is still being sent: a second one would mix with it.
            self.transport.close()
            return
        payload = error_bytes(status, message)
        headers: list[tuple[bytes, bytes]] = [
            *self.server_state.default_headers,
            *ALWAYS,
            POLICY,
            NO_STORE,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(payload)).encode()),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", payload]))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
