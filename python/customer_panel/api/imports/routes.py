"""Imports over HTTP: start, list, pause, resume and cancel them; and read their rejects."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Request, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, Operation, RequestBody
from litestar.response import Stream

from customer_panel.api.http import idempotency
from customer_panel.api.http.body import JsonBody
from customer_panel.api.http.envelope import Answer, ok
from customer_panel.api.http.errors import ApiError, invalid, responses
from customer_panel.api.http.pages import Limit, Page, numbered, read_page
from customer_panel.api.http.parameters import id_parameter, read_id
from customer_panel.api.imports.shapes import (
    JobPage,
    JobPageResponse,
    JobResponse,
    Nothing,
    RejectPage,
    RejectPageResponse,
    ResumeImport,
    StartImport,
    job_of,
    reject_of,
)
from customer_panel.api.imports.starting import LOOK_S, claim, start
from customer_panel.api.state import AppState, panel
from customer_panel.db.pool import connection
from customer_panel.errors import AlreadyRunning
from customer_panel.imports.queries import jobs, rejects

EFFECT_S = 2.0  # how long an answer waits for the effect of a request

AnyRequest = Request[Any, Any, Any]


@dataclass
class BodyOptional(Operation):
    """An operation whose body may be omitted."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


Id = Annotated[str, id_parameter("The number of an import.")]
# What all operations share that act on an import.
ACTION: dict[str, Any] = {
    "operation_class": BodyOptional,
    "return_dto": None,
    "status_code": 200,
    "opt": {"scope": "import"},
}
DEFAULTS, RESUME, NOTHING = StartImport(), ResumeImport(), Nothing()


# -- handlers ------------------------------------------------------------------------------------


@post(
    "/customers/sync",
    dto=JsonBody[StartImport],
    **ACTION,
    operation_id="startImport",
    summary="Start an import",
    responses=responses(400, 409, 413, 415, 503),
)
async def start_import(
    request: AnyRequest,
    data: StartImport = DEFAULTS,
    idempotency_key: idempotency.Header = None,  # noqa: ARG001 - `key_of` reads it
) -> Answer[JobResponse]:
    """Answers as soon as the job exists. An import of the same file that was paused or interrupted goes
    on instead, or is cancelled if the file holds something else by now. An interrupted one of another
    file of the feed is finished first: 409 until then. It is cancelled if its file is gone.
    """
    state = panel(request)
    path = data.file_path or state.settings.csv_path
    if path is None:
        raise invalid("filePath", "is required: CSV_PATH is not set")
    key = idempotency.key_of(request, "startImport", await request.body())
    import_id = await start(state, path, data, key)
    return await _job_answer(state, import_id, "Import started")


@get(
    "/imports",
    operation_id="listImports",
    summary="List imports, newest first",
    responses=responses(400, 503),
)
async def list_imports(
    request: AnyRequest, page: Page = "1", limit: Limit = "10"
) -> Answer[JobPageResponse]:
    number, size = read_page(page, limit)
    async with connection(panel(request).pool) as conn:
        found, total = await jobs.page(conn, number, size)
    return ok("Imports", JobPage([job_of(job) for job in found], numbered(number, size, total)))


@get(
    "/imports/{id:str}",
    operation_id="getImport",
    summary="Read an import",
    responses=responses(400, 404, 503),
)
async def get_import(request: AnyRequest, job: Id) -> Answer[JobResponse]:
    return await _job_answer(panel(request), read_id(job), "Import")


@post(
    "/imports/{id:str}/pause",
    dto=JsonBody[Nothing],
    **ACTION,
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
    state, import_id = panel(request), read_id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
        if not await jobs.ask(conn, import_id, "PAUSED"):
            raise _conflict(found, "paused")
    await _wait_for(state, import_id, lambda job: job.status != "RUNNING")
    return await _job_answer(state, import_id, "Import paused")


@post(
    "/imports/{id:str}/cancel",
    dto=JsonBody[Nothing],
    **ACTION,
    operation_id="cancelImport",
    summary="Cancel an import; what it wrote stays",
    responses=responses(400, 404, 409, 413, 415, 503),
)
async def cancel_import(
    request: AnyRequest,
    job: Id,
    data: Nothing = NOTHING,  # noqa: ARG001
) -> Answer[JobResponse]:
    """The answer waits up to two seconds for the effect, then tells the state as it is."""
    state, import_id = panel(request), read_id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
        if not (
            await jobs.ask(conn, import_id, "CANCELLED")
            or await jobs.cancel_waiting(conn, import_id)
            # It may have started to run between the two.
            or await jobs.ask(conn, import_id, "CANCELLED")
        ):
            raise _conflict(found, "cancelled")
    state.worker.wake()
    await _wait_for(state, import_id, lambda job: job.status != "RUNNING" and not job.is_waiting)
    return await _job_answer(state, import_id, "Import cancelled")


@post(
    "/imports/{id:str}/resume",
    dto=JsonBody[ResumeImport],
    **ACTION,
    operation_id="resumeImport",
    summary="Go on with a paused or interrupted import",
    responses=responses(400, 404, 409, 413, 415, 503),
)
async def resume_import(
    request: AnyRequest,
    job: Id,
    data: ResumeImport = RESUME,
) -> Answer[JobResponse]:
    """If its file holds something else by now, it is cancelled, and the answer is the new import of that
    file. 409 if a newer import of its feed has taken rows, unless `force` is set.
    """
    state, import_id = panel(request), read_id(job)
    async with connection(state.pool) as conn:
        found = await jobs.one(conn, import_id)
    if found.status == "RUNNING":
        raise AlreadyRunning
    if not found.is_waiting or found.requested == "CANCELLED":
        raise _conflict(found, "resumed")
    if found.snapshot.file_path is None:
        raise ApiError(400, "A stream cannot be read a second time")
    begun = await claim(state, found.snapshot.file_path, resumes=import_id, is_forced=data.force)
    message = "Import resumed" if begun == import_id else "The file has changed: import started"
    return await _job_answer(state, begun, message)


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
    import_id, (number, size) = read_id(job), read_page(page, limit)
    async with connection(panel(request).pool) as conn:
        await jobs.one(conn, import_id)
        records, total = await rejects.page(conn, import_id, **jobs.window(number, size))
    found = [reject_of(record) for record in records]
    return ok("Rejects", RejectPage(found, numbered(number, size, total)))


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
    state, import_id = panel(request), read_id(job)
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


imports_router = Router(
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


# -- parts of the handlers -----------------------------------------------------------------------


async def _job_answer(state: AppState, import_id: int, message: str) -> Answer[JobResponse]:
    async with connection(state.pool) as conn:
        return ok(message, job_of(await jobs.one(conn, import_id)))


async def _wait_for(state: AppState, import_id: int, is_done: Callable[[jobs.Job], bool]) -> None:
    """Waits until `is_done` is true of the import, two seconds at most."""
    began = time.monotonic()
    while time.monotonic() - began < EFFECT_S:
        async with connection(state.pool) as conn:
            if is_done(await jobs.one(conn, import_id)):
                return
        await asyncio.sleep(LOOK_S)


def _conflict(job: jobs.Job, wanted: str) -> ApiError:
    status = "being cancelled" if job.requested == "CANCELLED" else job.status
    return ApiError(409, f"Import {job.snapshot.job_id} is {status} and cannot be {wanted}")


async def _csv(state: AppState, import_id: int) -> AsyncIterator[str]:
    yield _lines([rejects.COLUMNS])
    async for records in rejects.every(lambda: connection(state.pool), import_id):
        yield _lines(records)


def _lines(records: list[tuple[Any, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
