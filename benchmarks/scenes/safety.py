"""Safety: a first load with checkpoints, fence and block hashes, against the same without."""

from __future__ import annotations

from customer_panel.benchmarks.engines import ours
from customer_panel.benchmarks.figures import Result, Run, ratio
from customer_panel.benchmarks.place import BenchVoid, Place
from customer_panel.imports.model import Tuning

BOUND = 1.02


def run(place: Place, *, rows: int, runs: int) -> Result:
    """The two take turns at going first, because the first run of a pair may affect the second."""
    file = place.file(rows)
    done: list[Run] = []
    for number in range(1, runs + 1):
        checksums = []
        for is_safe in (True, False) if number % 2 else (False, True):
            place.report(f"safety {number} of {runs}: {'on' if is_safe else 'off'}")
            with place.database() as dsn:
                done.append(ours.load(place, dsn, file, Tuning(is_safe=is_safe)))
                checksums.append(place.checksum(dsn))
        if len(set(checksums)) > 1:
            raise BenchVoid(f"the tables differ: {checksums}")
    return Result(
        scene="safety",
        rows=rows,
        runs=done,
        figures=[ratio("safety on / off", done, ours.NAME, ours.UNSAFE, BOUND)],
    )
