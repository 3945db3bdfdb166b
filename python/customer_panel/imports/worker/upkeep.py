"""What an idle worker keeps in order: the indexes of the table, and which files cannot be read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import psycopg

from customer_panel.db.connect import is_loss
from customer_panel.errors import AlreadyRunning, SourceError
from customer_panel.imports.engine import indexes
from customer_panel.imports.engine.ending import repair
from customer_panel.imports.job import ledger
from customer_panel.imports.worker.backoff import Backoff
from customer_panel.imports.worker.inbox import Session
from customer_panel.redaction import log_text

KEYS = 0  # stands for the indexes among the imports whose attempts are delayed

logger = logging.getLogger("customer_panel.imports")


class Unreadable:
    """Files that could be opened, but not read to their end: their imports block no other one."""

    def __init__(self) -> None:
        self._errors: dict[str, SourceError] = {}

    def check(self, path: str) -> None:
        """Raises the SourceError of the last attempt to read the file."""
        if path in self._errors:
            raise self._errors[path]

    @contextlib.contextmanager
    def noticing(self, path: str) -> Iterator[None]:
        """Inside `with` the file is read."""
        self._errors.pop(path, None)
        try:
            yield
        except SourceError as error:
            self._errors[path] = error
            raise

    def retain(self, paths: set[str]) -> None:
        """Forgets all other files."""
        self._errors = {path: error for path, error in self._errors.items() if path in paths}


class Keys:
    """Builds the indexes that an import could not build at its end."""

    def __init__(self, session: Session, backoff: Backoff) -> None:
        self._session, self._backoff = session, backoff
        self._may_be_missing = True

    def may_be_missing(self) -> None:
        """An import has ended, perhaps without them."""
        self._may_be_missing = True

    def build_missing(self) -> None:
        """Tries it again later after an error. Raises psycopg.Error for a lost connection."""
        if not (self._may_be_missing and self._backoff.is_due(KEYS)):
            return
        conn = self._session.open()
        self._may_be_missing = False
        # A first load that has not ended will build them itself.
        if indexes.are_complete(conn) or any(
            job["keys_deferred"] for job in ledger.open_jobs(conn)
        ):
            return
        try:
            for text in repair(self._session.dsn):
                logger.info("%s", text)
        except AlreadyRunning:
            self._may_be_missing = True
        except psycopg.Error as error:
            if is_loss(error):
                raise
            self._may_be_missing = True
            self._backoff.failed(KEYS)
            logger.error("the indexes could not be built: %s", log_text(error))  # noqa: TRY400 - it quotes rows
