"""The OpenAPI document, and Swagger UI to read it with.

All of it is served from here: it works on machines without the internet.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.routes import HTTPRoute

from customer_panel import __version__
from customer_panel.api.guard import STREAM
from customer_panel.api.http.envelope import Answer, encode
from customer_panel.api.http.errors import CODES, error_bytes

FOLDER = Path(__file__).parent / "static"
# What the page loads; nothing else of the folder is served.
ASSETS = {
    "init.js": "text/javascript; charset=utf-8",
    "swagger-ui/swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui/favicon-32x32.png": "image/png",
}
# Swagger UI draws its icons from data: addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PUBLIC = {"is_public": True, "needs_schema": False}
TICKET = {
    "name": "ticket",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "Of `issueTicket`, in the place of a key.",
}
DESCRIPTION = """\
Customers: read, list, create, change, delete; and the import of a CSV file of millions of them, with
its progress as a stream.

Answers travel in an envelope; 64-bit counters are strings; times are ISO 8601 in UTC. Every error,
whatever raised it, has the same form and a `code`; the `traceId` of an answer is in the server's log.
"""


class Document:
    """The OpenAPI document of `routers`, made when it is first asked for."""

    def __init__(self, routers: Sequence[Router], *, needs_key: bool) -> None:
        self._routers = routers
        self._needs_key = needs_key

    @functools.cached_property
    def payload(self) -> bytes:
        # A separate app: Litestar serves its own pages with the document, and those load scripts
        # from other sites.
        app = Litestar(
            self._routers,
            openapi_config=_config(needs_key=self._needs_key),
            logging_config=None,
        )
        described = app.openapi_schema.to_schema()
        for route in app.routes:
            if isinstance(route, HTTPRoute) and route.path_format in described["paths"]:
                for handler in route.route_handlers:
                    self._complete(handler, described["paths"][route.path_format])
        # Relative to the document's address, so that it is right behind a proxy.
        described["servers"] = [{"url": "/"}]
        return encode(described)

    def _complete(self, handler: HTTPRouteHandler, operations: dict[str, Any]) -> None:
        """Adds what Litestar cannot know: bodies that may be omitted, keys, the ticket of streams."""
        for method in handler.http_methods:
            operation = operations.get(method.lower())
            if operation is None:
                continue
            body = handler.parsed_fn_signature.parameters.get("data")
            if body is not None and body.has_default:
                operation["requestBody"]["required"] = False
            if not self._needs_key:
                continue
            if handler.opt.get("is_public"):
                operation["security"] = []
                continue
            operation["responses"] |= {str(status): _refusal(status) for status in (401, 403)}
            if handler.operation_id == STREAM:
                operation["parameters"].append(TICKET)


def _refusal(status: int) -> dict[str, Any]:
    """The description of the answer to a caller without the right key."""
    example = msgspec.json.decode(error_bytes(status, HTTPStatus(status).phrase))
    return {
        "description": HTTPStatus(status).phrase,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ErrorResponse"},
                "examples": {"refused": {"summary": CODES[status], "value": example}},
            }
        },
    }


def _config(*, needs_key: bool) -> OpenAPIConfig:
    """The parts of the document that describe the API as a whole."""
    return OpenAPIConfig(
        title="Customer Panel",
        version=__version__,
        description=DESCRIPTION,
        use_handler_docstrings=True,
        tags=[
            Tag("Customers", "Read and written one at a time."),
            Tag("Import", "A whole file of them, and how far it is."),
            Tag("System", "For those who run the server."),
        ],
        components=Components(
            security_schemes={
                "key": SecurityScheme(
                    type="http", scheme="bearer", description="A key of CP_API_KEYS."
                )
            }
        ),
        security=[{"key": []}] if needs_key else None,
    )


@get("/docs-json", opt=PUBLIC, include_in_schema=False)
async def get_document(request: Request[Any, Any, Any]) -> Answer[Any]:
    document: Document = request.app.state.document
    # In a thread: the first time takes a tenth of a second.
    return Answer(await asyncio.to_thread(lambda: document.payload))


@get("/docs", opt=PUBLIC, include_in_schema=False)
async def get_page() -> Answer[Any]:
    return _file("index.html", "text/html; charset=utf-8")


@get("/docs/{name:path}", opt=PUBLIC, include_in_schema=False)
async def get_asset(name: str) -> Answer[Any]:
    kind = ASSETS.get(name.lstrip("/"))
    if kind is None:
        raise NotFoundException
    return _file(name.lstrip("/"), kind)


def _file(name: str, kind: str) -> Answer[Any]:
    answer: Answer[Any] = Answer(_read(name), headers={"Cache-Control": "no-cache"})
    answer.raw_headers[0] = (b"content-type", kind.encode())
    answer.raw_headers.append((b"content-security-policy", POLICY.encode()))
    return answer


@functools.cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


openapi_router = Router("/api", route_handlers=[get_document, get_page, get_asset])
