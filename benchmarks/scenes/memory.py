"""Memory: the peak of the importing process, for short and long rows, few and many, and with a low CP_MEMORY."""

from __future__ import annotations

from customer_panel.benchmarks.engines import ours
from customer_panel.benchmarks.figures import Figure, Result, Run, fact
from customer_panel.benchmarks.place import Place
from customer_panel.imports.model import Tuning

MANY = 5  # times the rows: 10,000,000 for 2,000,000
BOUND_BYTES = 200 << 20
BOUND_IDENTITY_BYTES = 25
SHARE = 0.25  # of the map that the many rows need: CP_MEMORY in the last run


def run(place: Place, *, rows: int, runs: int) -> Result:
    small = f"{rows:,} rows"
    about = f"{rows:,} rows with about column"
    many = f"{rows * MANY:,} rows"
    memory_bytes = max(1 << 20, int(rows * MANY * BOUND_IDENTITY_BYTES * SHARE))
    bounded = f"{many}, CP_MEMORY {memory_bytes >> 20} MiB"
    files = {
        small: place.file(rows),
        about: place.file(rows, about=True),
        many: place.file(rows * MANY),
        bounded: place.file(rows * MANY),
    }
    done: list[Run] = []
    for number in range(1, runs + 1):
        for name, file in files.items():
            place.report(f"memory {number} of {runs}: {name}")
            tuning = Tuning(memory_bytes=memory_bytes) if name == bounded else Tuning()
            with place.database() as dsn:
                finished = ours.load(place, dsn, file, tuning)
            finished.engine = name
            done.append(finished)
    peak = {name: fact(done, name, "peak_rss_bytes") for name in files}
    figures = [
        Figure(name=f"peak memory, {name}", value=peak[name], bound=BOUND_BYTES, unit="bytes")
        for name in (small, about)
    ]
    further = (peak[many] - peak[small]) / (rows * (MANY - 1))
    figures.append(
        Figure(
            name="each further identity", value=further, bound=BOUND_IDENTITY_BYTES, unit="bytes"
        )
    )
    figures.append(
        Figure(
            name=f"peak memory, {bounded}",
            value=peak[bounded],
            bound=BOUND_BYTES,
            unit="bytes",
        )
    )
    return Result(scene="memory", rows=rows, runs=done, figures=figures)
