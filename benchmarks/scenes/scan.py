"""Scan: one thread, no database; from bytes in memory to encoded and hashed rows."""

from __future__ import annotations

from customer_panel._native import scan_speed
from customer_panel.benchmarks.figures import Figure, Result, Run
from customer_panel.benchmarks.place import Place

ROWS = 300_000  # the file is read into memory; a larger one gives the same speed
BOUND, BOUND_ABOUT = 500, 900


def run(place: Place, *, rows: int, runs: int) -> Result:
    rows = min(rows, ROWS)
    done, figures = [], []
    for name, about, bound in (
        ("twelve columns", False, BOUND),
        ("with about column", True, BOUND_ABOUT),
    ):
        file = place.file(rows, about=about)
        place.report(f"scan, {name}")
        found, size, seconds = scan_speed(file, runs)
        speeds = sorted(size / 1e6 / duration for duration in seconds)
        done += [
            Run(
                engine=name,
                seconds=duration,
                facts={"rows": found, "bytes": size, "mb_per_s": size / 1e6 / duration},
            )
            for duration in seconds
        ]
        figures.append(
            Figure(
                name=f"scan, {name}",
                value=speeds[len(speeds) // 2],
                bound=bound,
                kind="at least",
                unit="MB/s",
                runs_below=speeds[0],
                runs_above=speeds[-1],
            )
        )
    return Result(scene="scan", rows=rows, runs=done, figures=figures)
