"""When an import that failed is tried again: later after each failure."""

from __future__ import annotations

import time
from typing import NamedTuple

FIRST_S, LONGEST_S = 1.0, 60.0  # a full disk, for example, stays full for a while


class Delay(NamedTuple):
    until: float
    seconds: float


class Backoff:
    """The delays of all imports that wait."""

    def __init__(self) -> None:
        self._delays: dict[int, Delay] = {}

    def is_due(self, import_id: int) -> bool:
        delay = self._delays.get(import_id)
        return delay is None or time.monotonic() >= delay.until

    def failed(self, import_id: int, attempted_s: float = 0.0) -> None:
        """Doubles the delay, unless the failed attempt had run for longer than LONGEST_S."""
        before = None if attempted_s > LONGEST_S else self._delays.get(import_id)
        seconds = FIRST_S if before is None else min(before.seconds * 2, LONGEST_S)
        self._delays[import_id] = Delay(time.monotonic() + seconds, seconds)

    def retain(self, import_ids: set[int]) -> None:
        """Forgets the delays of all other imports."""
        self._delays = {
            import_id: delay for import_id, delay in self._delays.items() if import_id in import_ids
        }
