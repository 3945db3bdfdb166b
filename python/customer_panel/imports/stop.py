"""How somebody outside asks a running import to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from customer_panel.states import Status


class Stop:
    """Asks a running import to stop at the next batch border, and says what it is then: paused or
    interrupted. `ask` may be called from any thread and from a signal handler.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self.status: Status = "INTERRUPTED"

    def ask(self, status: Status = "INTERRUPTED") -> None:
        """The first to ask decides what the import is then."""
        if not self._event.is_set():
            self.status = status
            self._event.set()
            for callback in list(self._callbacks):
                callback()

    def is_asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While it is entered, `callback` is called when a stop is asked for, or was already."""
        self._callbacks.append(callback)
        try:
            if self.is_asked():
                callback()
            yield
        finally:
            self._callbacks.remove(callback)


class StopRequested(Exception):
    """Carries a stop from where it was noticed to where the job's state is written."""
