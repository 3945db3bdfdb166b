"""The app: its parts put together, and their life from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from litestar import Litestar
from litestar.datastructures import State
from litestar.routes import BaseRoute

from customer_panel.api.customers.routes import customers_router
from customer_panel.api.guard import BODY_BYTES, guard
from customer_panel.api.http.errors import EXCEPTION_HANDLERS
from customer_panel.api.imports.routes import imports_router
from customer_panel.api.middleware.middleware import STREAM, Middleware
from customer_panel.api.middleware.security import Tickets
from customer_panel.api.openapi import Document, openapi_router
from customer_panel.api.progress.hub import Hub
from customer_panel.api.progress.routes import progress_router
from customer_panel.api.state import AppState
from customer_panel.api.system import system_router
from customer_panel.customers.lookup import Lookup
from customer_panel.db.database import Database
from customer_panel.db.pool import make_pool
from customer_panel.imports.worker.worker import Worker

ROUTERS = (customers_router, imports_router, progress_router, system_router, openapi_router)
WORKER_S = 2.5  # for the running import to reach a batch border
CLOSING_S = 0.5  # for connections in use to come back to the pool; then they are closed


def create_app(state: AppState, database: Database) -> Middleware:
    """The ASGI app. Its lifespan starts and ends the database server (an embedded one), the
    connections, the worker and the streams, all of them parts of `state`.

    Raises CustomerPanelError from the lifespan when waiting for the database is no use.
    """
    app = Litestar(
        route_handlers=ROUTERS,
        lifespan=[lambda _: _lifespan(state, database)],
        before_request=guard,
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        state=State({"panel": state, "document": Document(ROUTERS, needs_key=bool(state.keys))}),
    )
    state.methods = {route.path_format: _methods(route) for route in app.routes}
    return Middleware(app, state.hosts, state.origins, state.metrics)


def _methods(route: BaseRoute) -> str:
    """The header Allow of a route: with HEAD wherever there is GET, except for streams."""
    methods = set(route.methods)
    if "GET" in methods and not route.path.endswith(STREAM):
        methods.add("HEAD")
    return ", ".join(sorted(methods))


@contextlib.asynccontextmanager
async def _lifespan(state: AppState, database: Database) -> AsyncIterator[None]:
    await asyncio.to_thread(database.wait)
    try:
        async with _parts(state, database):
            yield
    finally:
        await asyncio.to_thread(database.release)


@contextlib.asynccontextmanager
async def _parts(state: AppState, database: Database) -> AsyncIterator[None]:
    settings = state.settings
    state.dsn = database.dsn
    state.pool = make_pool(database.pool_dsn)
    state.lookup = Lookup(database.dsn)
    state.tickets = Tickets(state.pool)
    state.worker = Worker(
        database.dsn,
        settings,
        has_schema=database.has_schema,
        on_progress=state.metrics.count_progress,
        revive=database.revive,
    )
    state.hub = Hub(
        database.dsn,
        state.pool,
        settings,
        wake=state.worker.wake,
        on_return=state.pool.check,
    )
    state.metrics.show(
        pool_stats=state.pool.get_stats,
        stream_count=lambda: state.hub.stream_count,
        is_running=lambda: state.worker.running is not None,
    )
    await state.pool.open()
    await state.hub.start()
    state.worker.start()
    try:
        yield
    finally:
        state.begin_shutdown()
        await asyncio.to_thread(state.worker.join, WORKER_S)
        await state.hub.close()
        await state.lookup.close()
        await state.pool.close(CLOSING_S)
