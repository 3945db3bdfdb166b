"""A ticket for a progress stream, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, post

from customer_panel.api.http.envelope import Answer, Success, ok
from customer_panel.api.http.errors import responses
from customer_panel.api.state import panel


class Ticket(msgspec.Struct, rename="camel", frozen=True):
    """Opens one progress stream: `/customers/progress/stream?ticket=...`."""

    ticket: Annotated[str, msgspec.Meta(examples=["mfTq3fUZ5jW0b2xHkTtqXv3n0cVYlq2d"])]
    expires_at: datetime


class TicketResponse(Success, kw_only=True, frozen=True):
    """The answer with a ticket."""

    data: Ticket


@post(
    "/progress/ticket",
    status_code=200,
    opt={"scope": "read"},
    operation_id="issueTicket",
    summary="Get a ticket for a progress stream",
    responses=responses(400, 413, 415, 503),
)
async def issue_ticket(request: Request[Any, Any, Any]) -> Answer[TicketResponse]:
    """An `EventSource` cannot send a key in a header. The ticket stands for it: for 30 seconds, for
    one stream.
    """
    ticket, expires_at = await panel(request).tickets.issue()
    return ok("Ticket", Ticket(ticket, expires_at))


router = Router("/api/v1/customers", route_handlers=[issue_ticket], tags=["Import"])
