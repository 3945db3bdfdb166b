"""What the parts of a running server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from customer_panel.settings import Settings

if TYPE_CHECKING:
    from litestar import Request

    from customer_panel.api.events import Hub
    from customer_panel.customers.lookup import Lookup
    from customer_panel.db.pool import Pool
    from customer_panel.imports.worker import Worker


class AppState:
    """Made with the app, filled by its lifespan before the first request."""

    pool: Pool
    worker: Worker
    hub: Hub
    lookup: Lookup
    dsn: str

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


def panel(request: Request[Any, Any, Any]) -> AppState:
    """The state of the app that answers `request`."""
    state: AppState = request.app.state.panel
    return state
