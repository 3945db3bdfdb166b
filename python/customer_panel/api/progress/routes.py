"""How far an import is: asked for once, or as a stream."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, QueryParameter

from customer_panel.api.http.envelope import Answer, encode
from customer_panel.api.http.errors import responses
from customer_panel.api.progress.messages import Progress, View, progress_of
from customer_panel.api.progress.stream import EventStream
from customer_panel.api.state import AppState, panel
from customer_panel.imports.engine.apply import RECENT_IDS

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
    ticket: Annotated[  # noqa: ARG001 - looked at before the request comes here
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


router = Router(
    "/api/v1/customers", route_handlers=[get_progress, stream_progress], tags=["Import"]
)
