"""The outermost layer of the API: for every request a trace id, a log line, metrics and headers.

It is plain ASGI, so that errors of any origin pass through it. It runs for each request, so what can
be computed beforehand is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from customer_panel.api.http.errors import error_bytes
from customer_panel.api.http.trace import start_trace
from customer_panel.api.middleware import logs
from customer_panel.api.middleware.metrics import Metrics
from customer_panel.api.middleware.security import Header, Hosts, Origins
from customer_panel.redaction import described

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Send

STREAM = "/stream"  # how the paths of streams end

# An answer of the API is only read: it loads and runs nothing, is shown in no frame, kept in no cache.
POLICY: Header = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NO_STORE: Header = (b"cache-control", b"no-store")
ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"origin"),
)

NOT_OURS = "This server has another name than the one in the Host header; see CP_ALLOWED_HOSTS"

logger = logging.getLogger("customer_panel.api")


class Middleware:
    """Wraps an app: refuses requests for other hosts, answers preflights, measures and logs the rest."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        origins: Origins,
        metrics: Metrics,
        log: Callable[[logs.Line], None] = logs.write,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = origins
        self.metrics = metrics
        self.log = log

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Request(self, scope, send).run(receive)


class _Request:
    """One request on its way through."""

    __slots__ = ("began", "headers", "method", "middleware", "scope", "send_on", "status", "trace")

    def __init__(self, middleware: Middleware, scope: Any, send: Send) -> None:
        self.middleware = middleware
        self.scope = scope
        self.send_on = send
        self.method: str = scope["method"]
        self.status = 0
        self.began = time.perf_counter()

    async def run(self, receive: Receive) -> None:
        middleware, scope = self.middleware, self.scope
        host, origin, trace = b"", None, b""
        for name, value in scope["headers"]:
            if name == b"host":
                # With two of them, a proxy may have checked the other one: this matches no name.
                host = b" " if host else value
            elif name == b"origin":
                origin = value
            elif name == b"x-trace-id":
                trace = value
        self.trace = start_trace(trace)
        self.headers = [*ALWAYS, (b"x-trace-id", self.trace.encode())]
        if origin is not None:
            self.headers += middleware.origins.headers(origin)
        try:
            if not middleware.hosts.allow(host):
                await self._refuse(400, NOT_OURS)
            elif origin is not None and self._is_preflight():
                await self._answer(204, middleware.origins.preflight(origin))
            else:
                await middleware.app(self._scope_for_app(), receive, self.send)
        except asyncio.CancelledError:
            # Requests are cancelled only when the server shuts down.
            if self.status:
                raise
            await self._refuse(503, "The server is shutting down", (b"retry-after", b"1"))
        except Exception as error:
            # Not logger.exception: the text of the exception may quote a value.
            logger.error("request failed: %s", described(error))  # noqa: TRY400
            if self.status:
                raise
            await self._refuse(500, "Internal server error")
        finally:
            self._log()

    def _is_preflight(self) -> bool:
        return self.method == "OPTIONS" and any(
            name == b"access-control-request-method" for name, _ in self.scope["headers"]
        )

    def _scope_for_app(self) -> Any:
        """HEAD becomes GET, whose body uvicorn leaves out; not for a stream, which never ends."""
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
            self.middleware.metrics.count_answer(template, self.method, self.status, seconds)
        await self.send_on(message)

    async def _refuse(self, status: int, message: str, *headers: Header) -> None:
        payload = error_bytes(status, message)
        more = [(b"content-type", b"application/json"), *headers]
        await self._answer(status, more, payload)

    async def _answer(self, status: int, headers: list[Header], payload: bytes = b"") -> None:
        if status != 204:
            headers = [*headers, (b"content-length", str(len(payload)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": payload, "more_body": False})

    def _log(self) -> None:
        status = self.status or 499  # nothing was answered: the client closed the connection
        level = "info" if status < 500 else "warning" if status == 503 else "error"
        self.middleware.log(
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
