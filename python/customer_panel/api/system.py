"""Health and metrics of the server."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import psycopg
from litestar import Request, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from customer_panel.api.http.envelope import Answer, encode
from customer_panel.api.http.errors import RETRY_AFTER
from customer_panel.api.state import AppState, panel
from customer_panel.db.pool import connection

DATABASE_S = 1.0  # for the database's answer; probes wait little longer themselves
Health = Annotated[Literal["ok", "unavailable"], msgspec.Meta(examples=["ok"])]


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Annotated[Literal["ok"], msgspec.Meta(examples=["ok"])] = "ok"


class Checks(msgspec.Struct, frozen=True):
    """What a server needs to be ready."""

    database: Health
    migrations: Health
    worker: Health


class Ready(msgspec.Struct, frozen=True):
    """Whether requests can be answered now."""

    status: Health
    checks: Checks


NOT_READY = Ready("unavailable", Checks("unavailable", "ok", "ok"))
PUBLIC = {"is_public": True, "needs_schema": False}


@get("/health/live", opt=PUBLIC, operation_id="getLive", summary="Whether the process answers")
async def get_live() -> Answer[Live]:
    return Answer(encode(Live()))


@get(
    "/health/ready",
    opt=PUBLIC,
    operation_id="getReady",
    summary="Whether requests can be answered",
    responses={
        503: ResponseSpec(
            data_container=Ready,
            generate_examples=False,
            description="Not now.",
            examples=[
                Example(summary="The database is away", value=msgspec.to_builtins(NOT_READY))
            ],
        )
    },
)
async def get_ready(request: Request[Any, Any, Any]) -> Answer[Ready]:
    """The database answers, its schema is up to date, and the thread that runs imports is alive."""
    state = panel(request)
    checks = Checks(
        database=_health(await _is_answering(state)),
        migrations=_health(state.has_schema),
        worker=_health(state.worker.is_alive()),
    )
    is_ready = all(value == "ok" for value in msgspec.structs.astuple(checks))
    return Answer(
        encode(Ready(_health(is_ready), checks)),
        status=200 if is_ready else 503,
        headers=None if is_ready else RETRY_AFTER,
    )


@get(
    "/metrics",
    opt={"needs_schema": False},
    operation_id="getMetrics",
    summary="Figures for Prometheus",
    media_type="text/plain",
    responses={
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            description="Prometheus' text format.",
            media_type="text/plain",
            examples=[Example(summary="A line", value="customer_panel_streams 2.0\n")],
        )
    },
)
async def get_metrics(request: Request[Any, Any, Any]) -> Answer[str]:
    answer: Answer[str] = Answer(panel(request).metrics.text())
    answer.raw_headers[0] = (b"content-type", CONTENT_TYPE_LATEST.encode())
    return answer


async def _is_answering(state: AppState) -> bool:
    try:
        async with asyncio.timeout(DATABASE_S), connection(state.pool) as conn:
            await conn.execute(b"SELECT")
    except (psycopg.Error, TimeoutError):
        return False
    return True


def _health(is_well: bool) -> Health:
    return "ok" if is_well else "unavailable"


system_router = Router("/", route_handlers=[get_live, get_ready, get_metrics], tags=["System"])
