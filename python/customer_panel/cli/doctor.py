"""`customer-panel doctor`: what is installed, and what its problems are."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import click
import rich_click

from customer_panel import __version__
from customer_panel.errors import AlreadyRunning, CustomerPanelError
from customer_panel.settings import Settings

FREE_BYTES = 2 << 30  # a first load of 2,000,000 rows writes 1 GB of table and WAL
FILES = 256  # PostgreSQL and this program need far fewer


class Finding(NamedTuple):
    """One line of the report; `hint` is set when it is a problem."""

    name: str
    value: str
    hint: str | None = None


@click.command(cls=rich_click.RichCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option(
    "--repair",
    "repairs",
    is_flag=True,
    help="Put in order what imports left whose process died or whose end failed.",
)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, repairs: bool) -> None:
    """Check this installation: programs, settings, database, disk. Exit 1 if something is wrong."""
    findings = list(_examine(repairs=repairs))
    problems = [finding for finding in findings if finding.hint is not None]
    if as_json:
        click.echo(json.dumps({"ok": not problems, "findings": [f._asdict() for f in findings]}))
    else:
        for finding in findings:
            mark = click.style("ok   ", fg="green")
            if finding.hint is not None:
                mark = click.style("wrong", fg="red", bold=True)
            click.echo(f"{mark} {finding.name:<24} {finding.value}")
            if finding.hint:
                click.echo(f"      {click.style('hint:', fg='cyan')} {finding.hint}")
    ctx.exit(1 if problems else 0)


def _examine(*, repairs: bool) -> Iterator[Finding]:
    yield Finding("customer-panel", __version__)
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", f"{platform.platform()}, {os.cpu_count()} cores")
    yield from _native()
    yield _server()
    try:
        settings = Settings.load()
    except CustomerPanelError as error:
        yield _problem("settings", error)
        return
    for name, value in settings.shown():
        yield Finding(name, value)
    yield from _disk(settings.home)
    yield from _files()
    from customer_panel.db.database import Location

    is_embedded = Location(settings).is_embedded
    if is_embedded:
        yield _checked("PostgreSQL programs", lambda: _programs(settings))
    database = _checked("database", lambda: _database(settings, is_embedded=is_embedded))
    yield database
    if database.hint is None:
        yield _imports(settings, repairs=repairs)


def _native() -> Iterator[Finding]:
    try:
        from customer_panel import _native as extension
    except ImportError as missing:
        yield Finding("extension", str(missing), "Install again: pip install customer-panel.")
        return
    yield Finding("extension", str(extension.__file__))


def _server() -> Finding:
    """Without the extra `api` this is no problem: the command line works."""
    try:
        found = [f"{name} {version(name)}" for name in ("litestar", "uvicorn", "prometheus-client")]
    except PackageNotFoundError as missing:
        return Finding("HTTP API", f'without {missing.name}; pip install "customer-panel[api]"')
    return Finding("HTTP API", ", ".join(found))


def _disk(home: Path) -> Iterator[Finding]:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    hint = None
    if free < FREE_BYTES:
        hint = "Make room, or set CP_HOME to a folder on a larger disk."
    yield Finding("free disk space", f"{free / 1e9:.1f} GB at {there}", hint)


def _files() -> Iterator[Finding]:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    hint = f"Raise it: ulimit -n {FILES}." if 0 <= limit < FILES else None
    yield Finding("open files allowed", "unlimited" if limit < 0 else str(limit), hint)


def _programs(settings: Settings) -> str:
    from customer_panel.db.binaries import find_binaries

    found = find_binaries(settings.pg_bin)
    return f"{found.version} in {found.folder} ({found.origin})"


def _database(settings: Settings, *, is_embedded: bool) -> str:
    """Starts the embedded server if it is down: a start may be what fails."""
    from customer_panel.db.connect import connect
    from customer_panel.db.database import database
    from customer_panel.db.migrate import applied

    began = time.perf_counter()
    with database(settings) as dsn, connect(dsn, autocommit=True) as connection:
        version = connection.info.parameter_status("server_version")
        schema = max(applied(connection))
    kind = "embedded" if is_embedded else "server"
    seconds = time.perf_counter() - began
    return f"{kind}, PostgreSQL {version}, schema {schema}, answered in {seconds:.2f} s"


def _imports(settings: Settings, *, repairs: bool) -> Finding:
    """What imports have left; with `repairs` it is put in order."""
    import psycopg

    from customer_panel.db.database import database
    from customer_panel.imports.engine import ending

    name = "imports"
    try:
        with database(settings) as dsn:
            if repairs:
                return Finding(name, "; ".join(ending.repair(dsn)) or "nothing to repair")
            if found := ending.faults(dsn):
                hint = "Run `customer-panel doctor --repair`; the next import does it too."
                return Finding(name, "; ".join(found), hint)
    except AlreadyRunning:
        return Finding(name, "one is running")
    except psycopg.Error as error:
        return Finding(name, ending.reason_of(error), "Cure the cause, and repair it again.")
    except CustomerPanelError as error:
        return _problem(name, error)
    return Finding(name, "none has left anything undone")


def _checked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, look())
    except CustomerPanelError as error:
        return _problem(name, error)


def _problem(name: str, error: CustomerPanelError) -> Finding:
    return Finding(name, error.message, error.hint or "")
