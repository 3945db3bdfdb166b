"""The database under a server: found, or started as the embedded one, and brought up to date.

Begun in a thread before the server's heavy modules are imported: they and PostgreSQL start at the
same time.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from customer_panel.errors import DatabaseUnreachable
from customer_panel.settings import Settings

if TYPE_CHECKING:
    from customer_panel.db.embedded import Server

# A server of somebody else's is not waited for longer: requests are answered with 503 meanwhile.
PATIENCE_S = 1.0
LEAVING_S = 1.5  # for the last checkpoint of the embedded server


class Database:
    """Raises nothing before `wait`."""

    def __init__(self, settings: Settings) -> None:
        self.is_embedded = not (settings.direct_url or settings.database_url)
        self.has_schema = False
        self._settings = settings
        self._dsn = settings.direct_url or settings.database_url or ""
        self._server: Server | None = None  # our hold on the embedded one
        self._wrong: Exception | None = None
        self._thread = threading.Thread(target=self._begin, name="cp-database", daemon=True)

    @property
    def dsn(self) -> str:
        """Past a pooler: for sessions that listen, lock or last."""
        return self._dsn

    @property
    def pool_dsn(self) -> str:
        return self._settings.database_url or self._dsn

    def begin(self) -> None:
        """Starts what has to be started. May be called again."""
        if self._thread.ident is None:
            self._thread.start()

    def wait(self) -> None:
        """Until it can be used, or it is clear that it has to be waited for.

        Raises CustomerPanelError when waiting cures nothing: SchemaTooNew, ServerTooOld,
        MigrationFailed, EmbeddedError.
        """
        self.begin()
        self._thread.join(None if self.is_embedded else PATIENCE_S)
        if self._wrong is not None and not isinstance(self._wrong, DatabaseUnreachable):
            raise self._wrong

    def revive(self) -> None:
        """Starts the embedded server again if it is down. Raises CustomerPanelError."""
        if self.is_embedded:
            from customer_panel.db import embedded

            again = embedded.ensure_running(self._settings.home, self._settings.pg_bin)
            os.close(again.users)  # we hold it already

    def release(self) -> None:
        """Gives the embedded server back; our connections must be closed by now."""
        if self._server is not None:
            from customer_panel.db import embedded

            embedded.release(self._server, patience_s=LEAVING_S)
            self._server = None

    def _begin(self) -> None:
        from customer_panel.db.migrate import migrate

        try:
            if self.is_embedded:
                from customer_panel.db import embedded

                self._server = embedded.ensure_running(self._settings.home, self._settings.pg_bin)
                self._dsn = self._server.dsn
            migrate(self._dsn)
        except Exception as wrong:  # raised again by the thread that waits
            self._wrong = wrong
        else:
            self.has_schema = True
