"""The import as a function, for scripts and pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from customer_panel.db.database import located
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.model import (
    Blank,
    Buffers,
    DateOrder,
    ImportResult,
    Options,
    Progress,
    Tuning,
)
from customer_panel.imports.sources import opened
from customer_panel.imports.stop import Stop
from customer_panel.settings import Settings

if TYPE_CHECKING:
    from customer_panel.imports.parsed import ParsedBatch


def import_customers(
    source: str | os.PathLike[str] | Buffers,
    dsn: str | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    date_order: DateOrder | None = None,
    blank: Blank | None = None,
    feed: str | None = None,
    lanes: int | None = None,
    batch_rows: int | None = None,
    settle: float | None = None,
    restart: bool = False,
    strict: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
    noted: Callable[[str], None] | None = None,
    settings: Settings | None = None,
) -> ImportResult:
    """Imports a customer CSV into PostgreSQL, each row exactly once; returns when the last one is
    in.

    An interrupted import of the same file is resumed at its checkpoint (`restart` cancels it
    instead). May be called from any thread; needs no running `customer-panel serve`.

    source: a path; or a binary file object, or an iterable of buffers. The last two cannot be
        resumed.
    dsn: a PostgreSQL 18 or newer. None: CP_DIRECT_URL, else DATABASE_URL, else the embedded server,
        which is stopped again at the end.
    mapping: headers to fields, for headers that are not recognised; an empty field leaves a column
        out.
    date_order: "mdy" or "dmy", for dates that can be read both ways.
    blank: "keep" (default): a blank cell keeps the old value. "clear": it erases it.
    feed: the name of the source ("main").
    lanes: connections that write at once (default 2, on more than four cores 4).
    batch_rows: rows in a commit, at most.
    settle: seconds for which a file must have stood still before it is read; by default
        IMPORT_SETTLE_SEC, else it is read at once.
    dry_run: reads the whole file and counts what the import would do; writes nothing.
    progress: called with a Progress every 0.2 s or so, from the import's threads.
    stop: its `ask()` ends the import at the next batch border, with Stopped.
    noted: called with a sentence for people, such as that an import is resumed.

    Raises SourceError and MappingError before anything is written, but SourceChanged when a resumed
    file is verified, or when a file changes while it is read; AlreadyRunning, Interrupted (of another
    file), Stopped, DatabaseError. Bad rows are not errors: they are counted and stored in
    `import_rejects`.
    """
    settings = settings or Settings.load()
    tuning = Tuning(
        lanes=lanes,
        batch_rows=batch_rows or settings.batch_rows,
        memory_bytes=settings.memory,
        settle_s=settings.settle_s if settle is None else settle,
    )
    on_note = noted or (lambda _: None)
    with opened(source) as found, located(settings, dsn) as location:
        request = ImportRequest(
            source=found,
            options=Options(
                mapping=tuple((mapping or {}).items()),
                delimiter=delimiter,
                date_order=date_order,
                blank=blank,
                source=feed,
            ),
            tuning=tuning,
            restarts=restart,
            is_strict=strict,
            is_forced=force,
        )
        if dry_run:
            from customer_panel.imports.dry_run import dry_run as run_dry

            return run_dry(request, location.dsn, progress, on_note=on_note, stop=stop)
        return run_import(
            request,
            location.dsn,
            Hooks(on_progress=progress, on_note=on_note),
            stop=stop,
            revive=location.revive,
        )


def iter_batches(
    source: str | os.PathLike[str] | Buffers,
    *,
    mapping: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    date_order: DateOrder | None = None,
    batch_rows: int = 50_000,
) -> Iterator[ParsedBatch]:
    """The parsed batches of a file, in file order, for a sink of your own. Needs no database, and
    keeps duplicates.

    Raises SourceError and MappingError at the first batch; SourceChanged behind the last one, when
    the file has changed while it was read.
    """
    from customer_panel.imports.parsed import parsed_batches

    options = Options(
        mapping=tuple((mapping or {}).items()), delimiter=delimiter, date_order=date_order
    )
    with opened(source) as found:
        yield from parsed_batches(found, options, batch_rows)
