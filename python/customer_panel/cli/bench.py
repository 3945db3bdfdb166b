"""`customer-panel bench`: the figures of this project, made on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import rich_click

from customer_panel.settings import Settings

ROWS = click.IntRange(100, 10**9)


@click.group(cls=rich_click.RichGroup)
def bench() -> None:
    """Measure against plain psql, on an embedded PostgreSQL of its own.

    Everything is made below CP_HOME/bench and removed in the end: with 2,000,000 rows up to 5 GB, with --about 12 GB.
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--keep", is_flag=True, help="Leave files and data folder for the next bench."
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="One JSON object on stdout, every run in it."
        ),
        click.option(
            "--runs",
            type=click.IntRange(1, 100),
            default=3,
            show_default=True,
            help="Runs of each engine.",
        ),
        click.option(
            "--rows", type=ROWS, default=2_000_000, show_default=True, help="Rows of the file."
        ),
    ):
        command = option(command)
    return command


@bench.command("first-load", cls=rich_click.RichCommand)
@_options
@click.option("--about", is_flag=True, help="With a column of about 900 bytes of text.")
def first_load(about: bool, **options: Any) -> None:
    r"""A file into an empty table, against `psql \copy` into the same table with the same indexes."""
    _run("first_load", options, about=about)


@bench.command(cls=rich_click.RichCommand)
@_options
@click.option("--about", is_flag=True, help="With a column of about 900 bytes of text.")
@click.option(
    "--changed", type=click.FloatRange(0, 1), default=0.0, help="Share of rows that differ: 0.01."
)
def resync(about: bool, changed: float, **options: Any) -> None:
    r"""The next night's file, against `\copy` and INSERT .. ON CONFLICT DO UPDATE WHERE something differs."""
    _run("resync", options, about=about, changed=changed)


@bench.command("many-rows", cls=rich_click.RichCommand)
@_options
def many_rows(**options: Any) -> None:
    """Customers with two rows each, unchanged, against the same customers with one row each."""
    _run("many_rows", options)


@bench.command(cls=rich_click.RichCommand)
@_options
def scan(**options: Any) -> None:
    """One thread, no database: from bytes to encoded and hashed rows."""
    _run("scan", options)


@bench.command(cls=rich_click.RichCommand)
@_options
def memory(**options: Any) -> None:
    """Peak memory of the importing process, also with five times the rows and with little CP_MEMORY."""
    _run("memory", options)


@bench.command(cls=rich_click.RichCommand)
@_options
def safety(**options: Any) -> None:
    """A first load with checkpoints, fence and block hashes, against the same without."""
    _run("safety", options)


@bench.command(cls=rich_click.RichCommand)
@_options
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    help="Of each load of wrk.",
)
def api(seconds: float, **options: Any) -> None:
    """The HTTP API: look-ups and pages, alone and while a file comes in; needs wrk."""
    _run("api", options, seconds=seconds)


def _run(scene: str, options: dict[str, Any], **own: Any) -> None:
    import importlib

    from rich.console import Console

    from customer_panel.benchmarks import report
    from customer_panel.benchmarks.place import opened

    console = Console()
    progress = Console(stderr=True)
    as_json, keep = options.pop("as_json"), options.pop("keep")

    def on_progress(text: str) -> None:
        if progress.is_terminal:
            progress.print(text, style="dim", highlight=False)

    with opened(Settings.load(), on_progress, keep=keep) as place:
        machine = report.machine(place)
        run = importlib.import_module(f"customer_panel.benchmarks.scenes.{scene}").run
        result = run(place, **options, **own)
    if as_json:
        click.echo(report.as_json(result, machine))
    else:
        report.show(result, machine, console)
