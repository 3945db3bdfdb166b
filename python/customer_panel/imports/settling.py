"""Waits until a file stands still, before it is read: for folders that uploads arrive in."""

from __future__ import annotations

import time

from customer_panel.imports.sources import FileSource
from customer_panel.imports.stop import Stop, StopRequested

LOOK_S = 0.2


def note(source: FileSource, seconds: float) -> str:
    """What people are told while it waits."""
    return f"waiting until {source.name} has stood still for {seconds:g} s"


def wait_until_still(source: FileSource, seconds: float, stop: Stop) -> None:
    """Returns when the file, its size and its times have been the same for `seconds`; the source then
    is what has its name by now. Waits for ever for a file that never stands still.

    The clock of the file system is not asked for how long it has been so: on another machine it may
    be wrong. Raises StopRequested, or SourceError when the file cannot be opened any more.
    """
    seen, since = source.seen_now(), time.monotonic()
    while (left := since + seconds - time.monotonic()) > 0:
        if stop.wait(min(left, LOOK_S)):
            raise StopRequested
        now = source.seen_now()
        if now != seen:
            seen, since = now, time.monotonic()
    source.renew()
