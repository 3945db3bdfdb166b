"""Imports over HTTP: started, watched, paused, resumed, cancelled; and what they set aside."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
from litestar import Request, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, Operation, RequestBody
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from customer_panel.api.customers.shapes import JsonBody, read_whole, whole
from customer_panel.api.http import idempotency
from customer_panel.api.http.envelope import Answer, ok
from customer_panel.api.http.errors import ApiError, invalid, responses, unavailable
from customer_panel.api.imports.shapes import (
    JobPage,
    JobPageResponse,
    JobResponse,
    Nothing,
    RejectPage,
    RejectPageResponse,
    StartImport,
    job_of,
    pagination,
    reject_of,
)
from customer_panel.api.state import AppState, panel
from customer_panel.db.pool import connection
from customer_panel.errors import AlreadyRunning, Stopped
from customer_panel.imports.queries import jobs, rejects

LIMIT = 100  # a page
EFFECT_S = 2.0  # how long an answer waits for what was asked
LOOK_S = 0.05  # how often it looks meanwhile
BEGIN_S = 30.0  # for an import to begin; somebody may hold the whole table
BUSY_S = 5.0  # for a worker that is through with an import, or begins one
SAME_S = 0.5  # for an import that runs to become that of the same request at the same moment

AnyRequest = Request[Any, Any, Any]


@dataclass
class BodyOptional(Operation):
    """An operation whose body may be left away."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


Id = Annotated[
    str,
    PathParameter(
        name="id", description="The number of an import.", schema_extra=whole(0, jobs.LARGEST)
    ),
]
# Litestar would take "1.0" for a number: pages are read by `read_whole`.
Page = Annotated[str, QueryParameter(schema_extra=whole(1, jobs.LARGEST, default=1))]
Limit = Annotated[str, QueryParameter(schema_extra=whole(1, LIMIT, default=10))]
# What all operations share that do something to an import.
STEERS: dict[str, Any] = {
    "operation_class": BodyOptional,
    "return_dto": None,
    "status_code": 200,
    "opt": {"scope": "import"},
}
DEFAULTS, NOTHING = StartImport(), Nothing()


# -- handlers ------------------------------------------------------------------------------------


@post(
    "/customers/sync",
    dto=JsonBody[StartImport],
    **STEERS,
    operation_id="startImport",
    summary="Start an import",
    responses=responses(400, 409, 413, 415, 503),
)
async def start_import(
    request: AnyRequest,
    data: StartImport = DEFAULTS,
    idempotency_key: idempotency.Header = None,  # noqa: ARG001 - `key_of` sees if there are two
) -> Answer[JobResponse]:
    """Answers as soon as the job exists. An import of the same file that was paused or interrupted
    goes on instead.
    """
    state = panel(request)
    path = data.file_path or state.settings.csv_path
    if path is None:
        raise invalid("filePath", "is required: CSV_PATH is not set")
    key = idempotency.key_of(request, "startImport", await request.body())
    import_id = await _started(state, path, data, key)
    return await _shown(state, import_id, "Import started")


@get(
    "/imports",
    operation_id="listImports",
    summary="List imports, newest first",
    responses=responses(400, 503),
)
async def list_imports(
    request: AnyRequest, page: Page = "1", limit: Limit = "10"
) -> Answer[JobPageResponse]:
    number, size = _window(page, limit)
    async with connection(panel(request).pool) as conn:
        found, total = await jobs.page(conn, number, size)
    return ok("Imports", JobPage([job_of(job) for job in found], pagination(number, size, total)))


@get(
    "/imports/{id:str}",
    operation_id="getImport",
    summary="Read an import",
    responses=responses(400, 404, 503),
)
async def get_import(request: AnyRequest, job: Id) -> Answer[JobResponse]:
    return await _shown(panel(request), _id(job), "Import")


@post(
    "/imports/{id:str}/pause",
    dto=JsonBody[Nothing],
    **STEERS,
    operation_id="pauseImport",
    summary="Pause a running import at the next batch border",
    responses=responses(400, 404, 409, 413, 415, 503),
)
async def pause_import(
    request: AnyRequest,
    job: Id,
    data: Nothing = NOTHING,  # noqa: ARG001
) -> Answer[JobResponse]:
    """It stays paused until somebody resumes it. The answer waits up to two seconds for the effect,
    then tells the state as it is.
    """
    state, import_id = panel(request), _id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
        if not await jobs.ask(conn, import_id, "PAUSED"):
            raise _conflict(found, "paused")
    await _effect(state, import_id, lambda job: job.status != "RUNNING")
    return await _shown(state, import_id, "Import paused")


@post(
    "/imports/{id:str}/cancel",
    dto=JsonBody[Nothing],
    **STEERS,
    operation_id="cancelImport",
    summary="Give an import up; what it wrote stays",
    responses=responses(400, 404, 409, 413, 415, 503),
)
async def cancel_import(
    request: AnyRequest,
    job: Id,
    data: Nothing = NOTHING,  # noqa: ARG001
) -> Answer[JobResponse]:
    """The answer waits up to two seconds for the effect, then tells the state as it is."""
    state, import_id = panel(request), _id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
        if not (
            await jobs.ask(conn, import_id, "CANCELLED")
            or await jobs.cancel_waiting(conn, import_id)
            # It went from one to the other in between.
            or await jobs.ask(conn, import_id, "CANCELLED")
        ):
            raise _conflict(found, "cancelled")
    state.worker.wake()
    await _effect(state, import_id, lambda job: job.status != "RUNNING" and not job.is_waiting)
    return await _shown(state, import_id, "Import cancelled")


@post(
    "/imports/{id:str}/resume",
    dto=JsonBody[Nothing],
    **STEERS,
    operation_id="resumeImport",
    summary="Go on with a paused or interrupted import",
    responses=responses(400, 404, 409, 413, 415, 503),
)
async def resume_import(
    request: AnyRequest,
    job: Id,
    data: Nothing = NOTHING,  # noqa: ARG001
) -> Answer[JobResponse]:
    state, import_id = panel(request), _id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
    if found.status == "RUNNING":
        raise AlreadyRunning
    if not found.is_waiting or found.requested == "CANCELLED":
        raise _conflict(found, "resumed")
    if found.standing.file_path is None:
        raise ApiError(400, "A stream cannot be read a second time")
    await _claimed(state, found.standing.file_path, resumes=import_id)
    return await _shown(state, import_id, "Import resumed")


@get(
    "/imports/{id:str}/rejects",
    operation_id="listRejects",
    summary="List what an import set aside",
    responses=responses(400, 404, 503),
)
async def list_rejects(
    request: AnyRequest, job: Id, page: Page = "1", limit: Limit = "10"
) -> Answer[RejectPageResponse]:
    """Records that were not taken, and, as warnings, values that were left empty."""
    import_id, (number, size) = _id(job), _window(page, limit)
    async with connection(panel(request).pool) as conn:
        await jobs.one(conn, import_id)
        records, total = await jobs.rejects(conn, import_id, number, size)
    found = [reject_of(record) for record in records]
    return ok("Rejects", RejectPage(found, pagination(number, size, total)))


CSV_EXAMPLE = """\
line,byte_from,byte_to,severity,code,field,message,raw,raw_base64
12,1830,1961,reject,no_identity,,neither a customer id nor an e-mail,",Ada,Lovelace",
"""


@get(
    "/imports/{id:str}/rejects.csv",
    operation_id="downloadRejects",
    summary="What an import set aside, as a CSV file",
    media_type="text/csv",
    responses=responses(400, 404, 503)
    | {
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            description="A CSV file with a header line, in UTF-8.",
            media_type="text/csv",
            examples=[Example(summary="One reject", value=CSV_EXAMPLE)],
        )
    },
)
async def download_rejects(request: AnyRequest, job: Id) -> Stream:
    state, import_id = panel(request), _id(job)
    async with connection(state.pool) as conn:
        await jobs.one(conn, import_id)
    return Stream(
        _csv(state, import_id),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="import-{import_id}-rejects.csv"',
            "Cache-Control": "no-store",
        },
    )


router = Router(
    "/api/v1",
    route_handlers=[
        start_import,
        list_imports,
        get_import,
        pause_import,
        cancel_import,
        resume_import,
        list_rejects,
        download_rejects,
    ],
    tags=["Import"],
)


# -- starting ------------------------------------------------------------------------------------


async def _started(
    state: AppState, path: str, wanted: StartImport, key: idempotency.Key | None
) -> int:
    """The number of the import once it is claimed; of the same request before or at once, the
    number that it got.
    """
    is_noted = False

    def created(conn: psycopg.Connection[Any], import_id: int) -> None:
        nonlocal is_noted
        if key is not None:
            idempotency.take(conn, key, import_id)
            is_noted = True

    try:
        import_id = await _claimed(
            state,
            path,
            key,
            batch_rows=wanted.batch_size,
            progress_every_ms=wanted.progress_update_every_ms,
            created=created,
        )
    except idempotency.Repeated as earlier:
        return earlier.created_id
    if key is not None and not is_noted:
        # One that was interrupted goes on; it was created long ago.
        async with connection(state.pool) as conn, conn.transaction():
            if await idempotency.first(conn, key) is None:
                await idempotency.keep(conn, key, import_id)
    return import_id


async def _claimed(
    state: AppState, path: str, key: idempotency.Key | None = None, **wanted: Any
) -> int:
    """The number of the import once it is claimed; or, with a key, of the same request before.

    Raises AlreadyRunning.
    """
    began = time.monotonic()
    while True:
        # Read before its state is: an import that is over by then ended before this request came.
        ending = state.worker.running
        async with connection(state.pool) as conn:
            is_running = await jobs.is_running(conn)
            # Read behind it: an import and its key are committed together.
            earlier = await idempotency.find(conn, key) if key else None
        if earlier is not None:
            return earlier
        patience_s = BUSY_S
        if is_running:
            patience_s = SAME_S if key else 0
        elif ending is None:
            try:
                async with asyncio.timeout(BEGIN_S):
                    return await asyncio.wrap_future(state.worker.submit(path, **wanted))
            except AlreadyRunning:
                patience_s = BUSY_S if key else 0
            except Stopped:
                raise unavailable("The server is shutting down; try again") from None
            except TimeoutError:
                raise unavailable("The import waits for the database; see the list") from None
        if time.monotonic() - began >= patience_s:
            raise AlreadyRunning
        await asyncio.sleep(LOOK_S)


# -- reading and showing -------------------------------------------------------------------------


def _id(text: str) -> int:
    return read_whole("id", text, 0, jobs.LARGEST)


def _window(page: str, limit: str) -> tuple[int, int]:
    return read_whole("page", page, 1, jobs.LARGEST), read_whole("limit", limit, 1, LIMIT)


async def _shown(state: AppState, import_id: int, message: str) -> Answer[JobResponse]:
    async with connection(state.pool) as conn:
        return ok(message, job_of(await jobs.one(conn, import_id)))


async def _effect(state: AppState, import_id: int, has_come: Callable[[jobs.Job], bool]) -> None:
    """Waits for it, two seconds at most."""
    began = time.monotonic()
    while time.monotonic() - began < EFFECT_S:
        async with connection(state.pool) as conn:
            if has_come(await jobs.one(conn, import_id)):
                return
        await asyncio.sleep(LOOK_S)


def _conflict(job: jobs.Job, wanted: str) -> ApiError:
    status = "being cancelled" if job.requested == "CANCELLED" else job.status
    return ApiError(409, f"Import {job.standing.job_id} is {status} and cannot be {wanted}")


async def _csv(state: AppState, import_id: int) -> AsyncIterator[str]:
    yield _lines([rejects.COLUMNS])
    async for records in jobs.all_rejects(lambda: connection(state.pool), import_id):
        yield _lines(records)


def _lines(records: list[tuple[Any, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
