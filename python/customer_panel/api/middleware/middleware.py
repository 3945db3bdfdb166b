"""Around every request: its name, its line in the log, its figures, the headers of every answer.

The outermost layer, in plain ASGI, so that errors of any origin pass through it. It runs for each
request, so what can be made beforehand is.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from customer_panel.api.middleware import logs
from customer_panel.errors import described

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Send

    from customer_panel.api.middleware.security import Header
    from customer_panel.api.state import AppState

TRACE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
STREAM = "/stream"  # how the paths of streams end


# An answer of the API is data: it loads nothing, runs nothing, is in no frame and in no cache.
POLICY: Header = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NO_STORE: Header = (b"cache-control", b"no-store")
ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"origin"),
)

NOT_OURS = "This server has another name than the one in the Host header; see CP_ALLOWED_HOSTS"

logger = logging.getLogger("customer_panel.api")
_trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


def trace_id() -> str:
    """The name of the request that is being answered; a fresh one outside of any."""
    return _trace_id.get() or secrets.token_hex(8)


def current_trace_id() -> str | None:
    """The name of the request that is being answered, None outside of any."""
    return _trace_id.get()


class Observe:
    """Wraps an app. Refuses what is not for this server, answers preflights, measures the rest."""

    def __init__(
        self,
        app: ASGIApp,
        state: AppState,
        log: Callable[[logs.Line], None] = logs.write,
    ) -> None:
        self.app = app
        self.state = state
        self.log = log

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Request(self, scope, send).run(receive)


class _Request:
    """One request on its way through."""

    __slots__ = ("began", "headers", "method", "observe", "scope", "send_on", "status", "trace")

    def __init__(self, observe: Observe, scope: Any, send: Send) -> None:
        self.observe = observe
        self.scope = scope
        self.send_on = send
        self.method: str = scope["method"]
        self.status = 0
        self.began = time.perf_counter()

    async def run(self, receive: Receive) -> None:
        observe, scope = self.observe, self.scope
        host, origin, trace = b"", None, b""
        for name, value in scope["headers"]:
            if name == b"host":
                # Two of them: nobody knows which one a proxy has looked at.
                host = b" " if host else value
            elif name == b"origin":
                origin = value
            elif name == b"x-trace-id":
                trace = value
        is_named = trace and TRACE_ID.fullmatch(trace)
        self.trace = trace.decode() if is_named else secrets.token_hex(8)
        _trace_id.set(self.trace)
        self.headers = [*ALWAYS, (b"x-trace-id", self.trace.encode())]
        if origin is not None:
            self.headers += observe.state.origins.headers(origin)
        try:
            if not observe.state.hosts.allow(host):
                await self._refuse(400, NOT_OURS)
            elif origin is not None and self._is_preflight():
                await self._answer(204, observe.state.origins.preflight(origin))
            else:
                await observe.app(self._asked(), receive, self.send)
        except asyncio.CancelledError:
            # Only a server that ends cancels requests.
            if self.status:
                raise
            await self._refuse(503, "The server is shutting down", (b"retry-after", b"1"))
        except Exception as wrong:
            # Without its text, which may quote a value.
            logger.error("request failed: %s", described(wrong))  # noqa: TRY400
            if self.status:
                raise
            await self._refuse(500, "Internal server error")
        finally:
            self._told()

    def _is_preflight(self) -> bool:
        return self.method == "OPTIONS" and any(
            name == b"access-control-request-method" for name, _ in self.scope["headers"]
        )

    def _asked(self) -> Any:
        """HEAD is GET whose body the server leaves out; a stream has no end to wait for."""
        if self.method != "HEAD" or self.scope["path"].rstrip("/").endswith(STREAM):
            return self.scope
        self.scope = {**self.scope, "method": "GET"}
        return self.scope

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers") or ()
            headers = [*given, *self.headers]
            names = {name for name, _ in given}
            if b"content-security-policy" not in names:
                headers.append(POLICY)
            if b"cache-control" not in names:
                headers.append(NO_STORE)
            message["headers"] = headers
            template = self.scope.get("path_template", "")
            seconds = time.perf_counter() - self.began
            self.observe.state.metrics.answered(template, self.method, self.status, seconds)
        await self.send_on(message)

    async def _refuse(self, status: int, message: str, *headers: Header) -> None:
        from customer_panel.api.http.errors import error_bytes

        payload = error_bytes(status, message)
        more = [(b"content-type", b"application/json"), *headers]
        await self._answer(status, more, payload)

    async def _answer(self, status: int, headers: list[Header], payload: bytes = b"") -> None:
        if status != 204:
            headers = [*headers, (b"content-length", str(len(payload)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": payload, "more_body": False})

    def _told(self) -> None:
        status = self.status or 499  # nothing was answered: the client had gone
        level = "info" if status < 500 else "warning" if status == 503 else "error"
        self.observe.log(
            logs.Line(
                ts=logs.now(),
                level=level,
                event="request",
                method=self.method,
                path=self.scope["path"][: logs.PATH_CHARACTERS],
                status=status,
                ms=round((time.perf_counter() - self.began) * 1000, 2),
                traceId=self.trace,
            )
        )
