"""How somebody outside asks a running import to stop."""

from __future__ import annotations

import threading

from customer_panel.imports.states import Status


class Stop:
    """Asks a running import to stop at the next batch border, and says what it is then: paused or
    interrupted.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.status: Status = "INTERRUPTED"

    def ask(self, status: Status = "INTERRUPTED") -> None:
        if not self._event.is_set():
            self.status = status
            self._event.set()

    def is_asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class StopRequested(Exception):
    """Carries a stop from where it was noticed to where the job's state is written."""
