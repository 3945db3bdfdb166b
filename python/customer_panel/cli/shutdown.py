"""How a server process ends: at the first signal, and within a fixed time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

LIMIT_S = 4.7  # from the signal to the end of the process, even if something hangs


class Shutdown:
    """Requested by SIGINT, SIGTERM or SIGHUP; only the first signal counts.

    Whatever has not ended in time is killed with the process. That loses no more than `kill -9` does:
    what is committed stays, and an import continues at its checkpoint.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._callback: Callable[[], object] | None = None

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """Handles the signals inside `with`; restores the old handlers after it."""

        def on_signal(_: int, __: FrameType | None) -> None:
            if not self.is_requested:
                self._request()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)  # the terminal was closed; `nohup` ignores it
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_request(self, callback: Callable[[], object]) -> None:
        """Calls `callback` when the shutdown is requested, in the signal handler; now, if it was."""
        self._callback = callback
        if self.is_requested:
            callback()

    def _request(self) -> None:
        self.is_requested = True
        limit = threading.Timer(LIMIT_S, os._exit, [0])
        limit.daemon = True
        limit.start()
        if self._callback is not None:
            self._callback()

    def exit(self) -> None:
        """Ends the process at once if other threads hang in a statement: Python would wait for them."""
        hanging = [
            thread
            for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        ]
        if hanging:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
