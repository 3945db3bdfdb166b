"""What a worker is asked to import, and who waits to hear that it has begun."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import psycopg

from customer_panel.errors import CustomerPanelError
from customer_panel.imports.model import Tuning

Created = Callable[[psycopg.Connection[Any], int], None]


class Order(msgspec.Struct, kw_only=True):
    """An import that somebody waits to see begin: `future` is its number."""

    path: str
    resumes: int | None
    tuning: Tuning
    progress_every_ms: int | None
    created: Created
    future: Future[int]

    def is_wanted(self) -> bool:
        """Whether somebody still waits; who has gone was told nothing, so there is no import."""
        return self.future.set_running_or_notify_cancel()

    def refuse(self, wrong: CustomerPanelError) -> None:
        """Tells who waits that it will not be begun."""
        if self.is_wanted():
            self.future.set_exception(wrong)
