"""`customer-panel import`: a file into the database, with a bar while it runs and a summary.

The import runs in a thread of its own. The main thread only waits, so it handles a signal at once:
it asks the import to stop at the next batch border.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import rich_click

from customer_panel.errors import CustomerPanelError
from customer_panel.settings import DAY_S, Settings

if TYPE_CHECKING:
    from customer_panel.imports import ImportResult, Stop

FAILED, WITH_REJECTS = 1, 3
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}


class Delimiter(click.ParamType[str]):
    """One of the four, itself or by name: TAB and | are hard to type in a shell."""

    name = "delimiter"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[,|;|tab|pipe]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = DELIMITERS.get(value.lower(), value)
        if found not in DELIMITERS.values():
            self.fail(f"{value!r} is none of , ; tab pipe", param, ctx)
        return str(found)


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """The mapping of all `--map`. A header may contain an equals sign, a field never does."""
    mapping: dict[str, str] = {}
    for text in given:
        header, sign, field = text.rpartition("=")
        if not sign or not header.strip():
            raise click.BadParameter(f"{text!r} is not of the form Header=field")
        if header in mapping:
            raise click.BadParameter(f"the column {header!r} is given twice")
        mapping[header] = field.strip()
    return mapping


@click.command("import", cls=rich_click.RichCommand)
@click.argument("file", metavar="FILE", required=False, type=click.Path(path_type=Path))
@click.option(
    "--map",
    "mapping",
    metavar="HEADER=FIELD",
    multiple=True,
    callback=_pairs,
    help="Which field a column is, where its name does not tell; without FIELD the column is "
    "left out. Repeatable.",
)
@click.option("--delimiter", type=Delimiter(), help="Default: seen from the header.")
@click.option(
    "--date-order",
    type=click.Choice(["mdy", "dmy"]),
    help="How to read 01/02/2021. Default: only what can be read one way.",
)
@click.option("--lanes", type=click.IntRange(1, 64), help="Connections that write at once.")
@click.option(
    "--batch-rows", type=click.IntRange(100, 1_000_000), help="Rows of a commit, at most."
)
@click.option(
    "--resume/--restart",
    "resumes",
    default=True,
    help="Go on with an interrupted import of this file (default), or cancel it and begin again.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse if an import of another file of the feed is not finished, or this file is no "
    "longer the one that its import began with.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Go on even if a newer import of the feed has taken rows: older values replace them.",
)
@click.option(
    "--blank",
    type=click.Choice(["keep", "clear"]),
    help="What a blank cell does to an existing value. Default: keep it.",
)
@click.option("--source", "feed", metavar="NAME", help='The feed it belongs to. Default: "main".')
@click.option(
    "--rejects",
    metavar="OUT.csv",
    type=click.Path(path_type=Path),
    help="Write what was set aside, and warnings, into a file.",
)
@click.option(
    "--settle",
    metavar="SECONDS",
    type=click.FloatRange(0, DAY_S),
    help="Read it when it has stood still for so long. Default: IMPORT_SETTLE_SEC, else at once.",
)
@click.option("--dry-run", is_flag=True, help="Read it all, write nothing, say what would happen.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, no summary: errors and exit code only.")
@click.pass_context
def import_command(
    ctx: click.Context,
    /,
    file: Path | None,
    *,
    rejects: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Import FILE (default: CSV_PATH), each row exactly once.

    An interrupted import of the same file goes on where it stopped. Exit codes: 0 all rows are in,
    1 failed or stopped, 2 wrong usage, 3 finished and some rows were set aside.
    """
    settings = Settings.load()
    if file is None:
        if settings.csv_path is None:
            raise click.UsageError("Missing argument 'FILE': name a file, or set CSV_PATH.", ctx)
        file = Path(settings.csv_path)
    if rejects is not None and options["dry_run"]:
        raise click.UsageError("--rejects needs an import: a dry run stores nothing.", ctx)
    try:
        result = _imported(file, settings, rejects, is_quiet=quiet, **options)
    except CustomerPanelError as error:
        if as_json:
            from customer_panel.cli.summary import error_json

            click.echo(error_json(error))
        raise
    from customer_panel.cli import summary

    if as_json:
        click.echo(summary.result_json(result, is_dry=options["dry_run"]))
    elif not quiet:
        summary.show(result, file, rejects, is_dry=options["dry_run"])
    ctx.exit(WITH_REJECTS if result.rows_skipped else 0)


def _imported(
    file: Path,
    settings: Settings,
    rejects: Path | None,
    *,
    is_quiet: bool,
    resumes: bool,
    **options: Any,
) -> ImportResult:
    """Runs the import in a thread of its own, and writes its rejects."""
    from customer_panel.cli.bar import Bar
    from customer_panel.cli.rejects import Target
    from customer_panel.db.database import database
    from customer_panel.imports import Stop, import_customers

    stop, bar = Stop(), Bar(is_quiet=is_quiet)
    target = None if rejects is None else Target(rejects, source=file)
    outcome: list[ImportResult | BaseException] = []

    def work() -> None:
        try:
            outcome.append(
                import_customers(
                    file,
                    restart=not resumes,
                    progress=bar.show,
                    noted=bar.note,
                    stop=stop,
                    settings=settings,
                    **options,
                )
            )
        except BaseException as error:  # raised again by the thread that waits for this one
            outcome.append(error)

    # An embedded server must still run after the import: the rejects are read from it then.
    kept = contextlib.nullcontext() if target is None else database(settings)
    with contextlib.ExitStack() as stack:
        if target is not None:
            stack.enter_context(target)
        dsn = stack.enter_context(kept)
        with bar, _stopped_by_signals(stop, bar):
            worker = threading.Thread(target=work, name="cp-import")
            worker.start()
            worker.join()
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        if target is not None and dsn is not None and result.job_id is not None:
            target.fill(dsn, result.job_id)
    return result


@contextlib.contextmanager
def _stopped_by_signals(stop: Stop, bar: Any) -> Iterator[None]:
    """Ctrl-C pauses the import, SIGTERM interrupts it; both at the next batch border."""

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_asked():
            bar.note("already stopping, at the next batch border; nothing is lost")
            return
        stop.ask("PAUSED" if number == signal.SIGINT else "INTERRUPTED")
        bar.note("stopping at the next batch border")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
