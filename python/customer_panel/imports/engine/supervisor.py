"""Keeps one import going from its source to its end, through lost connections and stops.

Whatever ends it leaves the job such that `run_import`, called again, goes on at its checkpoints.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import psycopg

from customer_panel.errors import (
    AlreadyRunning,
    CustomerPanelError,
    DatabaseLost,
    DiskFull,
    SourceNotResumable,
    Stopped,
)
from customer_panel.imports.engine.run import Hooks, Run
from customer_panel.imports.job.sessions import is_loss
from customer_panel.imports.model import ImportResult, Options, Progress, Tuning
from customer_panel.imports.sources import Source, StreamSource
from customer_panel.imports.stop import Stop

LOST_PATIENCE_S = 60.0  # for a server that went away while an import ran
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 1.0


def run_import(
    source: Source,
    dsn: str,
    options: Options,
    tuning: Tuning,
    *,
    told: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
    restarts: bool = False,
    revive: Callable[[], None] = lambda: None,
    noted: Callable[[str], None] = lambda _: None,
    begun: Callable[[int], None] = lambda _: None,
    created: Callable[[psycopg.Connection[Any], int], None] = lambda _, __: None,
    patience_s: float | None = LOST_PATIENCE_S,
    leaves_others: bool = False,
    resumes: int | None = None,
    heeds_pause: bool = False,
) -> ImportResult:
    """Imports `source`: goes on with an interrupted import of the same file, else begins one.

    `restarts` gives an interrupted one up first. `revive` is called when the server went away,
    before it is asked again, which ends after `patience_s` (None: never). `begun` hears the job's
    number once it is ours, `created` writes into the transaction that makes a new one.
    `leaves_others` begins a job beside an interrupted one of another file, which else raises
    Interrupted. `resumes` goes on with that import and no other; ClaimLost when it is over.
    `heeds_pause`: nobody asked for this run, so a pause asked of the one before still holds.
    Raises CustomerPanelError; after Stopped, DatabaseLost and any other failure but SourceChanged
    the job can be resumed.
    """
    run = Run(
        source,
        dsn,
        options,
        tuning,
        stop or Stop(),
        Hooks(told, noted, begun, created),
        restarts=restarts,
        leaves_others=leaves_others,
        resumes=resumes,
        heeds_pause=heeds_pause,
    )
    wait = FIRST_WAIT_S
    lost_since: float | None = None
    while True:
        try:
            return run.attempt()
        except (psycopg.Error, CustomerPanelError) as wrong:
            if not run.has_begun or not (is_loss(wrong) or isinstance(wrong, AlreadyRunning)):
                if isinstance(wrong, psycopg.errors.DiskFull):
                    raise DiskFull(
                        f"the disk of the database is full: {wrong.diag.message_primary}"
                    ) from wrong
                raise
            if isinstance(source, StreamSource):
                raise SourceNotResumable(
                    "the connection to the database was lost, and a stream cannot be read again"
                ) from wrong
            if run.tally.has_moved():
                lost_since, wait = None, FIRST_WAIT_S
            lost_since = lost_since or time.monotonic()
            if patience_s is not None and time.monotonic() - lost_since > patience_s:
                raise DatabaseLost(f"the database has been away for {patience_s:.0f} s") from wrong
            if run.stop.wait(wait):
                raise Stopped from None
            wait = min(wait * 2, LONGEST_WAIT_S)
            with contextlib.suppress(CustomerPanelError):
                revive()
