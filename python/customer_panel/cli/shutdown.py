"""How a server process comes to its end: by the first signal, in a bounded time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

LAST_S = 4.7  # from the signal to the end of the process, whatever hangs


class Ending:
    """Asked for by SIGINT, SIGTERM or SIGHUP; further signals change nothing.

    Everything that is not ended in time is cut off, which costs no more than a kill -9 would: what
    was committed stays, and an import goes on at its checkpoint.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._call: Callable[[], object] | None = None

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        def asked(_: int, __: FrameType | None) -> None:
            if not self.is_asked:
                self._begin()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)  # the terminal was closed; `nohup` ignores it
        before = {number: signal.signal(number, asked) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def calls(self, call: Callable[[], object]) -> None:
        """`call` is made in the signal handler; at once if it was asked already."""
        self._call = call
        if self.is_asked:
            call()

    def _begin(self) -> None:
        self.is_asked = True
        last = threading.Timer(LAST_S, os._exit, [0])
        last.daemon = True
        last.start()
        if self._call is not None:
            self._call()

    def leave(self) -> None:
        """Ends the process, if threads are left that hang in a statement; Python would wait."""
        left = [
            t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()
        ]
        if left:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
