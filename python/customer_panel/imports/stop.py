"""How a running import is asked to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from customer_panel.states import Status


class Stop:
    """Asks a running import to stop at the next batch border, with a given status: paused,
    interrupted or cancelled. `ask` may be called from any thread and from a signal handler.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self.status: Status = "INTERRUPTED"

    def ask(self, status: Status = "INTERRUPTED") -> None:
        """The first call decides the status of the import."""
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
        """Inside `with`, `callback` is called when a stop is asked for; at once if it was before."""
        self._callbacks.append(callback)
        try:
            if self.is_asked():
                callback()
            yield
        finally:
            self._callbacks.remove(callback)


class StopRequested(Exception):
    """A stop, raised where it is noticed and caught where the job's state is written."""
