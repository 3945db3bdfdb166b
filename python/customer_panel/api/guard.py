"""Checks between the route and its handler: who may call it, and with what body."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from litestar import Request, Response
from litestar.exceptions import InternalServerException

from customer_panel.api.http.errors import ApiError, unavailable
from customer_panel.api.state import AppState, panel

BODY_BYTES = 1 << 20  # the largest customer takes 4 KB
BODY_S = 10.0  # for a body to arrive: 1 MiB at 840 kbit/s
BEARER = "bearer "
STREAM = "streamProgress"  # the only operation that a ticket opens

AnyRequest = Request[Any, Any, Any]


async def guard(request: AnyRequest) -> Response[None] | None:
    """Lets a request pass to its handler (None), or answers it: OPTIONS.

    Raises ApiError 401, 403, 408, 413, 415 or 503. A handler's `opt` changes what is checked:
    `"is_public": True` (no key is needed), `"scope": "import"` (instead of the scope of the method),
    `"needs_schema": False` (no database is needed).
    """
    method = request.method
    state = panel(request)
    if method == "OPTIONS":
        # Litestar's own answer omits the methods of handlers registered later.
        allowed = state.methods[request.scope["path_template"]]
        return Response(None, status_code=204, headers={"Allow": allowed})
    opt = request.route_handler.opt
    if state.keys and not opt.get("is_public"):
        await _check_key(request, state, opt.get("scope") or _scope_of(method))
    if opt.get("needs_schema", True) and not state.has_schema:
        raise unavailable()
    if method != "GET":
        await _read_body(request, method)
    return None


def _scope_of(method: str) -> str:
    return "read" if method == "GET" else "write"


async def _check_key(request: AnyRequest, state: AppState, scope: str) -> None:
    given = request.headers.get("authorization")
    if given is None:
        ticket = _ticket_of(request)
        if ticket is not None and await state.tickets.redeem(ticket):
            return
        raise _unauthorized("A key is needed: Authorization: Bearer KEY")
    if not given[: len(BEARER)].lower() == BEARER:
        raise _unauthorized("Keys are sent as Authorization: Bearer KEY")
    scopes = state.keys.scopes(given[len(BEARER) :].strip())
    if scopes is None:
        raise _unauthorized("This key is not known")
    if scope not in scopes:
        raise ApiError(403, f"This key does not allow it: the scope {scope} is needed")


def _ticket_of(request: AnyRequest) -> str | None:
    if request.route_handler.operation_id != STREAM:
        return None
    found = parse_qs(request.scope["query_string"].decode("latin-1")).get("ticket")
    return found[0] if found and len(found) == 1 else None


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})


async def _read_body(request: AnyRequest, method: str) -> None:
    """Reads the body, which stays in the request; Litestar limits its size (BODY_BYTES)."""
    kind = request.headers.get("content-type")
    # Even without a body: a form on another site's page could send such a request, and start an
    # import.
    if kind is None and method != "DELETE":
        raise ApiError(415, "Content-Type: application/json is needed")
    if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Only application/json is understood")
    try:
        async with asyncio.timeout(BODY_S):
            await request.body()
    except InternalServerException:
        # Litestar raises it when the client has closed the connection.
        raise ApiError(400, "The body ended early") from None
    except TimeoutError:
        raise ApiError(
            408, f"The body did not arrive within {BODY_S:.0f} s", headers={"Connection": "close"}
        ) from None
