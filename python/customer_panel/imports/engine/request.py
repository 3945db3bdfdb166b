"""What an import is asked to do, in one piece from the caller to the last lane."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from customer_panel.db.connect import Connection
from customer_panel.imports.model import Options, Progress, Tuning
from customer_panel.imports.sources import Source


def _ignore(*_: object) -> None:
    """Nobody listens."""


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An import of `source`: it goes on with an interrupted import of the same file, else begins one.

    restarts: an interrupted one is cancelled first.
    leaves_others: an interrupted import of another file stays beside the new one; else it raises
        Interrupted.
    resumes: goes on with that import and no other; ClaimLost when it is over.
    heeds_pause: nobody asked for this run, so a pause asked of the one before still holds.
    """

    source: Source
    options: Options = Options()
    tuning: Tuning = Tuning()
    restarts: bool = False
    leaves_others: bool = False
    resumes: int | None = None
    heeds_pause: bool = False


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller of an import hears of it, from the import's own threads.

    on_note: a sentence for people.
    on_claimed: the job's number, once it is ours.
    on_created: may write into the transaction that makes a new job.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_note: Callable[[str], None] = _ignore
    on_claimed: Callable[[int], None] = _ignore
    on_created: Callable[[Connection, int], None] = _ignore
