"""Finds the database to use; if it is the embedded one, starts, restarts and releases its server.

The driver, the migrations and the embedded server are imported inside functions: `serve` uses this
module before it loads the heavy ones.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from customer_panel.errors import DatabaseUnreachable, PoolerInTheWay
from customer_panel.settings import Settings, parse_dsn, without_mark

if TYPE_CHECKING:
    from customer_panel.db.embedded import Server

# The longest wait for a server that is not embedded. The API then starts, and answers 503 until the
# server can be reached.
PATIENCE_S = 1.0
LEAVING_S = 1.5  # for the last checkpoint of the embedded server


class Location:
    """Decides, and nothing else does, which database is used: the address given, else CP_DIRECT_URL,
    else DATABASE_URL, else the embedded server, which does not stop between `acquire` and `release`.
    """

    def __init__(self, settings: Settings, dsn: str | None = None) -> None:
        self._settings = settings
        given = settings.direct_url or settings.database_url
        if dsn is not None:
            given = parse_dsn(dsn) if "://" in dsn else dsn
        self._dsn, self._is_pooler = without_mark(given or "")
        self.is_embedded = given is None
        self._server: Server | None = None

    @property
    def dsn(self) -> str:
        """Not through a pooler: for sessions that listen, hold locks or stay open. Empty until the
        embedded server is acquired. Raises PoolerInTheWay for an address that says that it is one.
        """
        if self._is_pooler:
            raise PoolerInTheWay("the address of the database says that it is a pooler's")
        return self._dsn

    @property
    def pool_dsn(self) -> str:
        """May go through a pooler: for short transactions."""
        return without_mark(self._settings.database_url or "")[0] or self.dsn

    def acquire(self, *, with_schema: bool = True) -> str:
        """The address to connect to. The server is started if it is the embedded one, and the schema
        is up to date. Raises DatabaseError; the hint of its subclass says what to do.
        """
        if self.is_embedded and self._server is None:
            # With another server neither this module nor a platform that it supports is needed.
            from customer_panel.db import embedded

            self._server = embedded.ensure_running(self._settings.home, self._settings.pg_bin)
            self._dsn = self._server.dsn
        if with_schema:
            from customer_panel.db.migrate import migrate

            migrate(self.dsn)
        return self.dsn

    def revive(self) -> None:
        """Starts the embedded server again if it is down. Raises CustomerPanelError."""
        if self.is_embedded:
            from customer_panel.db import embedded

            server = embedded.ensure_running(self._settings.home, self._settings.pg_bin)
            os.close(server.users)  # we hold this lock already

    def release(self, patience_s: float | None = None) -> None:
        """Ends our use of the embedded server; close your connections before."""
        if self._server is not None:
            from customer_panel.db import embedded

            server, self._server = self._server, None
            if patience_s is None:
                embedded.release(server)
            else:
                embedded.release(server, patience_s=patience_s)


@contextlib.contextmanager
def located(settings: Settings, dsn: str | None = None) -> Iterator[Location]:
    """The database to work on, its schema up to date, for as long as the context is open."""
    location = Location(settings, dsn)
    try:
        location.acquire()
        yield location
    finally:
        location.release()


@contextlib.contextmanager
def database(settings: Settings, *, with_schema: bool = True) -> Iterator[str]:
    """The address of the database to work on: close your connections before the context ends.

    Raises DatabaseError; the hint of its subclass says what to do.
    """
    location = Location(settings)
    try:
        yield location.acquire(with_schema=with_schema)
    finally:
        location.release()


class Database:
    """The database of the API: found, started and migrated in a thread while the API's modules load.

    Errors are raised by `wait`, not before.
    """

    def __init__(self, settings: Settings) -> None:
        self.has_schema = False
        self._location = Location(settings)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._begin, name="cp-database", daemon=True)

    @property
    def dsn(self) -> str:
        """That of the Location."""
        return self._location.dsn

    @property
    def pool_dsn(self) -> str:
        """That of the Location."""
        return self._location.pool_dsn

    def begin(self) -> None:
        """Starts the thread. May be called again."""
        if self._thread.ident is None:
            self._thread.start()

    def wait(self) -> None:
        """Returns when the database can be used, or when it does not answer yet.

        Raises CustomerPanelError for what does not change by waiting: SchemaTooNew, ServerTooOld,
        MigrationFailed, EmbeddedError.
        """
        self.begin()
        self._thread.join(None if self._location.is_embedded else PATIENCE_S)
        if self._error is not None and not isinstance(self._error, DatabaseUnreachable):
            raise self._error

    def revive(self) -> None:
        """Starts the embedded server again if it is down. Raises CustomerPanelError."""
        self._location.revive()

    def release(self) -> None:
        """Ends our use of the embedded server; close your connections before."""
        self._location.release(LEAVING_S)

    def _begin(self) -> None:
        try:
            self._location.acquire()
        except Exception as error:  # raised again by the thread that waits
            self._error = error
        else:
            self.has_schema = True
