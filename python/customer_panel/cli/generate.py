"""`customer-panel generate`: a customer file of any size, the same bytes for the same seed."""

from __future__ import annotations

import time
from pathlib import Path

import click
import rich_click

from customer_panel.errors import TargetUnwritable

SHARE = click.FloatRange(0, 1)


@click.command(cls=rich_click.RichCommand)
@click.argument("out", metavar="OUT.csv", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(0, 10**12), required=True, help="How many rows.")
@click.option("--about", is_flag=True, help="A thirteenth column: about 900 bytes of free text.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=1, show_default=True)
@click.option("--duplicates", type=SHARE, default=0.0, help="Share of rows that repeat a customer.")
@click.option("--dirty", type=SHARE, default=0.0, help="Share of rows with something wrong.")
@click.option("--changed", type=SHARE, default=0.0, help="Share of rows altered: a next night.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
def generate(
    out: Path,
    rows: int,
    about: bool,
    seed: int,
    duplicates: float,
    dirty: float,
    changed: float,
    quiet: bool,
) -> None:
    """Write OUT.csv with the twelve columns of a Datablist customer file.

    The same seed gives the same bytes everywhere; --changed alters some rows and keeps the rest.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from customer_panel import _native

    began = time.perf_counter()
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    task = bar.add_task("rows", total=rows)

    def on_progress(done: int) -> None:
        bar.update(task, completed=done)

    try:
        with bar:
            size = _native.generate(
                str(out),
                rows,
                about=about,
                seed=seed,
                duplicates=duplicates,
                dirty=dirty,
                changed=changed,
                progress=on_progress,
            )
    except OSError as error:
        raise TargetUnwritable(f"{out} cannot be written: {error.strerror or error}") from None
    if not quiet:
        seconds = time.perf_counter() - began
        click.echo(f"{rows:,} rows, {size / 1e6:,.1f} MB, {seconds:.1f} s: {out}", err=True)
