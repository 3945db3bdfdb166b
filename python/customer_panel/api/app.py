"""The app: its parts put together, and its life from the first connection to the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from litestar import Litestar
from litestar.datastructures import State
from litestar.routes import BaseRoute

from customer_panel.api import openapi as docs
from customer_panel.api import system
from customer_panel.api.customers import routes as customers
from customer_panel.api.guard import BODY_BYTES, guard
from customer_panel.api.http.errors import EXCEPTION_HANDLERS
from customer_panel.api.imports import routes as imports
from customer_panel.api.middleware.middleware import STREAM, Observe
from customer_panel.api.middleware.security import Tickets
from customer_panel.api.progress import routes as progress
from customer_panel.api.progress import tickets
from customer_panel.api.progress.hub import Hub
from customer_panel.api.state import AppState
from customer_panel.customers.lookup import Lookup
from customer_panel.db.database import Database
from customer_panel.db.pool import make_pool
from customer_panel.imports.worker.worker import Worker
from customer_panel.settings import Settings

ROUTERS = (
    customers.router,
    imports.router,
    progress.router,
    tickets.router,
    system.router,
    docs.router,
)
WORKER_S = 2.5  # for the running import to come to a batch border
CLOSING_S = 0.5  # for connections that are in use; they are cut off then


def create_app(settings: Settings, database: Database | None = None) -> Observe:
    """The ASGI app. Its lifespan owns the database server if that is an embedded one, connections,
    the worker and the streams; `database` may have been begun before.

    Raises CustomerPanelError from the lifespan when the database can be waited for in vain.
    """
    state = AppState(settings)
    found = database or Database(settings)
    app = Litestar(
        route_handlers=ROUTERS,
        lifespan=[lambda _: _life(state, found)],
        before_request=guard,
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        state=State(
            {"panel": state, "document": docs.Document(ROUTERS, needs_key=bool(state.keys))}
        ),
    )
    state.methods = {route.path_format: _methods(route) for route in app.routes}
    return Observe(app, state)


def _methods(route: BaseRoute) -> str:
    """As in the header Allow; HEAD is answered wherever GET is, but for streams."""
    methods = set(route.methods)
    if "GET" in methods and not route.path.endswith(STREAM):
        methods.add("HEAD")
    return ", ".join(sorted(methods))


@contextlib.asynccontextmanager
async def _life(state: AppState, database: Database) -> AsyncIterator[None]:
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
    state.worker = Worker(database.dsn, settings, told=state.metrics.moved, revive=database.revive)
    state.worker.has_schema = database.has_schema
    state.hub = Hub(
        database.dsn,
        state.pool,
        settings,
        wake=state.worker.wake,
        on_return=state.pool.check,
    )
    state.metrics.show(state)
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
