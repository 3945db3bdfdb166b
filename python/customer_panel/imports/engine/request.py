"""The request for an import, and the callbacks of its caller."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from customer_panel.db.connect import Connection
from customer_panel.imports.model import Options, Progress, Tuning
from customer_panel.imports.sources import FileSource, Source


def _ignore(*_: object) -> None:
    """The callback of a caller that gave none."""


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An import of `source`: resumes an interrupted import of the same file, else begins a new one.
    Interrupted imports of other files of the feed are finished first.

    restarts: cancels them, and that of the same file, instead.
    is_strict: refuses where one of another file is not finished, or the one of this file cannot go on.
    is_forced: resumes although a newer import of the feed has taken rows.
    resumes: resumes this import and no other; ClaimLost when it has ended.
    is_unasked: no user has asked for this run. It obeys an earlier request to pause, and does not
        import a file that has taken the place of the one that it was to go on with.
    finishes_others: False: raises Interrupted where one would be finished first. Its caller goes on
        with that one by itself.
    opens: opens the file of an interrupted import. Raises SourceNotFound when it is gone, another
        SourceError when this process cannot open it.
    """

    source: Source
    options: Options = Options()
    tuning: Tuning = Tuning()
    restarts: bool = False
    is_strict: bool = False
    is_forced: bool = False
    resumes: int | None = None
    is_unasked: bool = False
    finishes_others: bool = True
    opens: Callable[[str], FileSource] = FileSource


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks of an import; its own threads call them.

    on_note: gets a sentence for people.
    on_claimed: gets the job's number when it is claimed.
    on_begun: gets it when its rows are about to be read: the file is the one that it began with.
    on_created: may write in the transaction that creates a new job.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_note: Callable[[str], None] = _ignore
    on_claimed: Callable[[int], None] = _ignore
    on_begun: Callable[[int], None] = _ignore
    on_created: Callable[[Connection, int], None] = _ignore


class Notes:
    """What is said to people: at once, and once more in the result."""

    def __init__(self, hooks: Hooks) -> None:
        self.texts: list[str] = []
        self._say = hooks.on_note

    def add(self, text: str) -> None:
        self.texts.append(text)
        self._say(text)
