"""What the parts of a running server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from customer_panel.api.middleware.metrics import Metrics
from customer_panel.api.middleware.security import Hosts, Keys, Origins, Tickets
from customer_panel.settings import Settings

if TYPE_CHECKING:
    from litestar import Request

    from customer_panel.api.progress.hub import Hub
    from customer_panel.customers.lookup import Lookup
    from customer_panel.db.pool import Pool
    from customer_panel.imports.worker.worker import Worker


class AppState:
    """Made with the app. What needs the database exists once the app's lifespan has started."""

    dsn: str  # not through a pooler: for sessions that listen, lock or stay open
    pool: Pool
    worker: Worker
    hub: Hub
    lookup: Lookup
    tickets: Tickets
    methods: dict[str, str]  # by path template, as in the header Allow

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.api_keys)
        self.hosts = Hosts(settings)
        self.origins = Origins(settings.cors_origins)
        self.metrics = Metrics()

    @property
    def has_schema(self) -> bool:
        """Whether the schema is up to date, which is known once the database was reached."""
        return self.worker.has_schema

    def begin_shutdown(self) -> None:
        """Ends all streams, and the running import at its next batch border. Returns at once."""
        if hasattr(self, "hub"):
            self.hub.end_streams()
            self.worker.ask_stop()


def panel(request: Request[Any, Any, Any]) -> AppState:
    """The state of the app that answers `request`."""
    state: AppState = request.app.state.panel
    return state
