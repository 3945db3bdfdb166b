"""Runs, the figures made from them, and the bounds of the figures."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

Facts = dict[str, int | float | str]
ALL_ROWS = 2_000_000  # the size that the targets are for


class Run(msgspec.Struct, kw_only=True):
    """One run of one engine. `facts` are all measures but the time, with units in their names."""

    engine: str
    seconds: float
    facts: Facts = msgspec.field(default_factory=dict)


class Figure(msgspec.Struct, kw_only=True):
    """A result of a scene, and the bound that it is compared with."""

    name: str
    value: float
    bound: float
    kind: Literal["at most", "at least"] = "at most"
    unit: str = ""
    runs_below: float | None = None  # of single runs, or of pairs of runs, the lowest and highest
    runs_above: float | None = None

    @property
    def is_met(self) -> bool:
        return self.value <= self.bound if self.kind == "at most" else self.value >= self.bound


class Result(msgspec.Struct, kw_only=True):
    """The result of a scene of `rows` rows. The bounds are meant for ALL_ROWS."""

    scene: str
    rows: int
    runs: list[Run]
    figures: list[Figure]


def median(runs: list[Run], engine: str) -> float:
    return statistics.median(run.seconds for run in runs if run.engine == engine)


def fact(runs: list[Run], engine: str, name: str) -> float:
    """The median of a fact over the runs of an engine."""
    return statistics.median(float(run.facts[name]) for run in runs if run.engine == engine)


def ratio(name: str, runs: list[Run], ours: str, yardstick: str, bound: float) -> Figure:
    """The ratio of the medians, and the range of the ratios of runs made one after the other."""
    pairs = [
        mine.seconds / theirs.seconds
        for mine, theirs in zip(
            (run for run in runs if run.engine == ours),
            (run for run in runs if run.engine == yardstick),
            strict=True,
        )
    ]
    return Figure(
        name=name,
        value=median(runs, ours) / median(runs, yardstick),
        bound=bound,
        runs_below=min(pairs),
        runs_above=max(pairs),
    )
