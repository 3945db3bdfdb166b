"""How a test waits: for a condition, for what the database notifies, for others to be there too.

`wait_until` is the only place where a test polls. What sends a signal (a notification, an event, the
output or the end of a process) is waited for by that signal.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

LOOK_S = 0.01
NOTIFIED_S = 30.0  # then it is a failure: batches of tests take milliseconds

Notices = Iterator[dict[str, Any]]


def wait_until(
    what: str,
    condition: Callable[[], bool],
    timeout: float,
    state: Callable[[], object] = lambda: "",
) -> float:
    """Seconds until `condition()` was true.

    Fails with `what`, which is what should have come true, and with `state()` as it was at the end.
    In a coroutine: `await asyncio.to_thread(wait_until, ...)`.
    """
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"not in {timeout:g} s: {what}\n{state()}"
        time.sleep(LOOK_S)  # the one poll
    return time.monotonic() - began


def in_parallel(number: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of `number` calls of `work`, which begin together; raises what one of them raised."""
    barrier = threading.Barrier(number)

    def call(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(call, range(number)))


# -- imports ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(dsn: str, timeout: float = NOTIFIED_S) -> Iterator[Notices]:
    """What the imports notify from now on; it ends `timeout` seconds after the first was asked for."""
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN customer_panel")
        with contextlib.closing(listener.notifies(timeout=timeout)) as notices:
            yield (json.loads(notice.payload) for notice in notices)


def wait_for_batches(notices: Notices, number: int = 1) -> None:
    """Returns when so many more batches are committed."""
    for _ in range(number):
        assert any("lane" in notice for notice in notices), "no batch was committed in time"


@contextlib.contextmanager
def held(dsn: str) -> Iterator[Callable[[], None]]:
    """Every import waits before its first row, reads go on. Yields what lets them go."""
    with psycopg.connect(dsn) as gate:
        gate.execute("LOCK TABLE customers IN SHARE MODE")
        yield gate.rollback


@contextlib.contextmanager
def held_midway(dsn: str, start: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """As `held`, but some batches of the import that `start` starts are in."""
    with listening(dsn) as notices, psycopg.connect(dsn) as gate:
        start()
        wait_for_batches(notices)
        gate.execute("LOCK TABLE customers IN SHARE MODE")
        yield gate.rollback
