"""The progress of imports over HTTP: once, as a stream, and the ticket that opens one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, QueryParameter

from customer_panel.api.http.envelope import Answer, Success, encode, ok
from customer_panel.api.http.errors import responses
from customer_panel.api.progress.messages import Progress, View, progress_of
from customer_panel.api.progress.stream import EventStream
from customer_panel.api.state import AppState, panel
from customer_panel.imports.model import RECENT_IDS

AnyRequest = Request[Any, Any, Any]
TotalRows = Annotated[
    int | None,
    QueryParameter(
        name="totalRows",
        ge=1,
        le=10**15,
        description="What per cent are of while the size of the source is unknown."
        " Default: IMPORT_TOTAL_ROWS.",
    ),
]
RecentLimit = Annotated[
    int | None,
    QueryParameter(
        name="recentLimit",
        ge=1,
        le=RECENT_IDS,
        description="How many of the customers written last to show. Default: IMPORT_RECENT_LIMIT, 20.",
    ),
]


@get(
    "/progress",
    operation_id="getProgress",
    summary="How the running import stands, else the last one",
    responses=responses(400, 503),
)
async def get_progress(
    request: AnyRequest, total_rows: TotalRows = None, recent_limit: RecentLimit = None
) -> Answer[Progress]:
    """Without the envelope. Before the first import it is `idle`, and its `jobId` null; when an
    import has ended, its last figures stay.
    """
    state = panel(request)
    view = _view(state, total_rows, recent_limit)
    reading = await state.hub.watch.read(recent=view.recent)
    return Answer(encode(progress_of(reading.shown, view)))


STREAM_EXAMPLE = """\
id: 11-1
data: {"type":"snapshot","jobId":"7","status":"RUNNING","percent":12.5}

id: 11-2
data: {"type":"progress","rate":185000.0,"jobId":"7","status":"RUNNING","percent":42.1}

id: 12-3
data: {"type":"done","rate":184210.5,"jobId":"7","status":"COMPLETED","percent":100.0}

"""


@get(
    "/progress/stream",
    operation_id="streamProgress",
    summary="Follow imports as they go",
    media_type="text/event-stream",
    responses=responses(400, 503)
    | {
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            description="Messages of Server-Sent Events, without end.",
            media_type="text/event-stream",
            examples=[Example(summary="An import that ends", value=STREAM_EXAMPLE)],
        )
    },
)
async def stream_progress(
    request: AnyRequest,
    total_rows: TotalRows = None,
    recent_limit: RecentLimit = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            description="The id of the last message that was read. What ended since then is told first.",
        ),
    ] = None,
    last_event_id_query: Annotated[
        str | None,
        QueryParameter(
            name="lastEventId", description="The same, for clients that cannot send headers."
        ),
    ] = None,
    ticket: Annotated[  # noqa: ARG001 - the guard has redeemed it
        str | None,
        QueryParameter(
            description="In the place of a key, for clients that cannot send headers:"
            " see `issueTicket`. Each is good for one connection."
        ),
    ] = None,
) -> EventStream:
    """The data of each message is JSON; `type` says what it is: `snapshot` (first, the whole
    progress), `progress` (while it runs), `done`, `error` (both once, and whole), `heartbeat`.
    """
    state = panel(request)
    view = _view(state, total_rows, recent_limit)
    return EventStream(lambda: state.hub.opened(view, last_event_id or last_event_id_query))


def _view(state: AppState, total_rows: int | None, recent_limit: int | None) -> View:
    return View(
        recent=recent_limit or state.settings.recent_limit,
        total_rows=total_rows or state.settings.total_rows,
    )


# -- tickets --------------------------------------------------------------------------------------


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
async def issue_ticket(request: AnyRequest) -> Answer[TicketResponse]:
    """An `EventSource` cannot send a key in a header. The ticket stands for it: for 30 seconds, for
    one stream.
    """
    ticket, expires_at = await panel(request).tickets.issue()
    return ok("Ticket", Ticket(ticket, expires_at))


progress_router = Router(
    "/api/v1/customers",
    route_handlers=[get_progress, stream_progress, issue_ticket],
    tags=["Import"],
)
