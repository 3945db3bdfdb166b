"""The request for an import, and the callbacks of its caller."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from customer_panel.db.connect import Connection
from customer_panel.imports.model import Options, Progress, Tuning
from customer_panel.imports.sources import Source


def _ignore(*_: object) -> None:
    """The callback of a caller that gave none."""


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An import of `source`: resumes an interrupted import of the same file, else begins a new one.

    restarts: cancels interrupted imports first.
    leaves_others: interrupted imports of other files stay as they are; else they raise Interrupted.
    resumes: resumes this import and no other; ClaimLost when it has ended.
    heeds_pause: obeys an earlier request to pause, because no user has asked for this run.
    """

    source: Source
    options: Options = Options()
    tuning: Tuning = Tuning()
    restarts: bool = False
    leaves_others: bool = False
    resumes: int | None = None
    heeds_pause: bool = False


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks of an import; its own threads call them.

    on_note: gets a sentence for people.
    on_claimed: gets the job's number when it is claimed.
    on_created: may write in the transaction that creates a new job.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_note: Callable[[str], None] = _ignore
    on_claimed: Callable[[int], None] = _ignore
    on_created: Callable[[Connection, int], None] = _ignore
