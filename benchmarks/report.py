"""A result as a table for people and as a JSON object for programs, with the machine it was made on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from customer_panel import __version__
from customer_panel.benchmarks.figures import ALL_ROWS, Figure, Result
from customer_panel.benchmarks.place import Place
from customer_panel.db.cluster import tuning

# The heading of a fact, its name, its unit in the table, and the digits after the point.
Column = tuple[str, str, float, int]
COLUMNS: tuple[Column, ...] = (
    ("wall s", "wall_s", 1, 2),
    ("cpu s", "server_cpu_s", 1, 2),
    ("WAL MB", "wal_bytes", 1e6, 1),
    ("peak MiB", "peak_rss_bytes", 1 << 20, 0),
    ("1/s", "requests_per_s", 1, 0),
    ("p50 ms", "p50_ms", 1, 2),
    ("p99 ms", "p99_ms", 1, 2),
)


def machine(place: Place) -> dict[str, Any]:
    """The machine and versions that the figures depend on. Call it before the first run: it contains the load
    average of the last minute.
    """
    return {
        "customer_panel": __version__,
        "python": platform.python_version(),
        "postgresql": place.binaries.version,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_average": round(os.getloadavg()[0], 2),
        "settings": {name: place.setting(name) for name in tuning()},
    }


def as_json(result: Result, machine: dict[str, Any]) -> str:
    figures = [
        {**msgspec.to_builtins(figure), "is_met": figure.is_met} for figure in result.figures
    ]
    return json.dumps({**msgspec.to_builtins(result), "figures": figures, "machine": machine})


def show(result: Result, machine: dict[str, Any], console: Console) -> None:
    """Prints runs by engine, figures with their bounds, and the machine in one line."""
    console.print(f"\n{result.scene}, {result.rows:,} rows", highlight=False)
    tables: dict[tuple[Column, ...], list[str]] = {}
    for engine in dict.fromkeys(run.engine for run in result.runs):
        known = {name for run in result.runs if run.engine == engine for name in run.facts}
        columns = tuple(column for column in COLUMNS if column[1] in known)
        tables.setdefault(columns, []).append(engine)
    for columns, engines in tables.items():
        console.print(_runs(result, columns, engines))
    figures = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    figures.add_column("figure", overflow="fold")
    for name in ("value", "runs", "aim", ""):
        figures.add_column(name, no_wrap=True)
    for figure in result.figures:
        spread = ""
        if figure.runs_below is not None and figure.runs_above is not None:
            spread = f"{_shown(figure, figure.runs_below)} to {_shown(figure, figure.runs_above)}"
        sign = "<=" if figure.kind == "at most" else ">="
        verdict = "[green]reached[/]" if figure.is_met else "[red]missed[/]"
        figures.add_row(
            figure.name,
            _shown(figure, figure.value),
            spread,
            f"{sign} {_shown(figure, figure.bound)}",
            verdict,
        )
    console.print(figures)
    if result.rows < ALL_ROWS and result.scene != "scan":
        console.print(
            f"The aims are meant for {ALL_ROWS:,} rows: of few, what is constant weighs more."
        )
    console.print(
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_bytes'] >> 30} GiB, "
        f"{machine['platform']}, PostgreSQL {machine['postgresql']}, load average {machine['load_average']}",
        highlight=False,
    )


def _runs(result: Result, columns: tuple[Column, ...], engines: list[str]) -> Table:
    """The runs of engines that have the same facts."""
    runs = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    runs.add_column("engine", overflow="fold", min_width=14)
    for name in ("runs", "min s", "median", "max", *(column[0] for column in columns)):
        runs.add_column(name, justify="right", no_wrap=True)
    for engine in engines:
        ran = [run for run in result.runs if run.engine == engine]
        seconds = [run.seconds for run in ran]
        runs.add_row(
            engine,
            str(len(ran)),
            *(f"{pick(seconds):.2f}" for pick in (min, statistics.median, max)),
            *(
                _median([run.facts.get(name) for run in ran], unit, digits)
                for _, name, unit, digits in columns
            ),
        )
    return runs


def _shown(figure: Figure, value: float) -> str:
    if figure.unit == "bytes" and abs(figure.bound) >= 1 << 20:
        return f"{value / (1 << 20):.0f} MiB"
    if figure.unit == "bytes" and abs(figure.bound) >= 1 << 10:
        return f"{value / (1 << 10):.0f} KiB"
    number = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3f}"
    return f"{number} {figure.unit}".rstrip()


def _median(values: list[Any], unit: float, digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known) / unit:,.{digits}f}" if known else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
