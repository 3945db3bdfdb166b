"""When an import that failed is tried again: later after each failure."""

from __future__ import annotations

import time
from typing import NamedTuple

FIRST_S, LONGEST_S = 1.0, 60.0  # a disk that is full, say, is not emptied by haste


class Rest(NamedTuple):
    until: float
    seconds: float


class Rests:
    """The rests of all imports that wait."""

    def __init__(self) -> None:
        self._rests: dict[int, Rest] = {}

    def is_over(self, import_id: int) -> bool:
        rest = self._rests.get(import_id)
        return rest is None or time.monotonic() >= rest.until

    def begin(self, import_id: int, attempted_s: float = 0.0) -> None:
        """Twice as long as the one before, unless the attempt that failed went well for long."""
        before = None if attempted_s > LONGEST_S else self._rests.get(import_id)
        seconds = FIRST_S if before is None else min(before.seconds * 2, LONGEST_S)
        self._rests[import_id] = Rest(time.monotonic() + seconds, seconds)

    def keep(self, import_ids: set[int]) -> None:
        """Forgets all others."""
        self._rests = {one: rest for one, rest in self._rests.items() if one in import_ids}
