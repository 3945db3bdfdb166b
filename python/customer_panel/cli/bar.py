"""The output of a running import on stderr: a bar on a terminal, and notes."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from customer_panel.imports import Progress

PHASES = {
    "settling": "waiting for it",
    "verifying": "checking the file",
    "scanning": "importing",
    "indexing": "building keys",
    "merging": "merging",
    "maintenance": "vacuum",
    "done": "done",
}


class Bar:
    """Rows, bytes, rate, time left and phase; nothing if stderr is not a terminal."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.is_quiet = is_quiet
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description:<17}"),
            BarColumn(),
            TextColumn("{task.fields[share]:>4} {task.fields[rows]} rows"),
            TextColumn("{task.fields[size]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=is_quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "starting", total=None, share="", rows="0", size="", rate="", left=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Shows how far the import is. May be called from any thread."""
        if self._bar.disable:
            return
        done, total = progress.bytes_read, progress.bytes_total
        if progress.phase not in ("settling", "verifying", "scanning"):
            done = total or done
        self._bar.update(
            self._task,
            description=PHASES[progress.phase],
            completed=done,
            total=total,
            share="" if not total else f"{done / total:.0%}",
            rows=f"{progress.counts.processed:,}",
            size=size_text(done) + ("" if total is None else f"/{size_text(total)}"),
            rate=f"{progress.rate_rows_per_sec:,.0f} rows/s",
            left="" if progress.eta_sec is None else f"{time_text(progress.eta_sec)} left",
        )

    def note(self, text: str) -> None:
        """Prints a line, above the bar if there is one. May be called from any thread and from a
        signal handler.
        """
        if self.is_quiet:
            return
        if self._bar.disable:
            click.echo(text, err=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False)


def size_text(size: int) -> str:
    """A number of bytes for people, in the decimal units of disks and of `ls --si`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def time_text(seconds: float) -> str:
    """Tenths below ten seconds, `m:ss` above a minute."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
