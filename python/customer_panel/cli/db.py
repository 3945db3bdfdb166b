"""`customer-panel db`: the database, embedded or your own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import click
import rich_click

from customer_panel.errors import DatabaseError
from customer_panel.redaction import redacted
from customer_panel.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@click.group(cls=rich_click.RichGroup)
def db() -> None:
    """The database: start, stop, look, migrate, psql."""


@db.command(cls=rich_click.RichCommand)
def up() -> None:
    """Start the embedded PostgreSQL and keep it until `db down`; print its URL."""
    settings = _embedded_settings("start")
    from customer_panel.db import embedded
    from customer_panel.db.migrate import migrate

    server = embedded.up(settings.home, settings.pg_bin)
    migrate(server.dsn)
    was = "started" if server.is_started_here else "already running"
    click.echo(f"{was} (process {server.pid}); it stays until `customer-panel db down`", err=True)
    click.echo(server.dsn)


@db.command(cls=rich_click.RichCommand)
@click.option("--force", is_flag=True, help="Also while others use it; their imports can resume.")
def down(force: bool) -> None:
    """Stop the embedded PostgreSQL."""
    settings = _embedded_settings("stop")
    from customer_panel.db import embedded

    click.echo("stopped" if embedded.stop(settings.home, force=force) else "it was not running")


@db.command(cls=rich_click.RichCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(as_json: bool) -> None:
    """Which database is used, whether it runs, and whether its schema is up to date."""
    settings = Settings.load()
    found = _look(settings)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        shown = "-" if value is None else value
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        click.echo(f"{name:<10} {shown}")


@db.command(cls=rich_click.RichCommand)
def url() -> None:
    """Print the connection URL, for psql and other tools."""
    from customer_panel.db import embedded
    from customer_panel.db.database import Location

    settings = Settings.load()
    location = Location(settings)
    if not location.is_embedded:
        click.echo(location.pool_dsn)
        return

    dsn = embedded.status(settings.home).dsn
    if dsn is None:
        raise DatabaseError(
            "the embedded PostgreSQL is not running", hint="Start it: customer-panel db up."
        )
    click.echo(dsn)


@db.command(cls=rich_click.RichCommand)
def migrate() -> None:
    """Bring the schema up to date. Every other command does it by itself."""
    from customer_panel.db.database import database
    from customer_panel.db.migrate import migrate as bring_up_to_date

    with database(Settings.load(), with_schema=False) as dsn:
        done = bring_up_to_date(dsn)
    for version in done:
        click.echo(f"applied {version}")
    if not done:
        click.echo("the schema is up to date")


@db.command(
    cls=rich_click.RichCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def psql(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Open psql on the database; ARGS go to psql."""
    settings = Settings.load()
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from customer_panel.db.database import database

    program = _psql(settings.pg_bin)
    with database(settings) as dsn:
        parts = conninfo_to_dict(dsn)
        env = dict(os.environ)
        # Never on the command line, where every user of the machine can read it.
        if password := parts.pop("password", None):
            env["PGPASSWORD"] = str(password)
        child = subprocess.Popen([program, make_conninfo("", **parts), *args], env=env)
        # Ctrl-C is for psql: it cancels a query there, and must not end this process.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    ctx.exit(code if code >= 0 else 128 - code)


def _embedded_settings(verb: str) -> Settings:
    from customer_panel.db.database import Location

    settings = Settings.load()
    if not Location(settings).is_embedded:
        name = "CP_DIRECT_URL" if settings.database_url is None else "DATABASE_URL"
        raise DatabaseError(
            f"{name} is set, and that server is not ours to {verb}",
            hint="Unset it to use the embedded PostgreSQL.",
        )
    return settings


def _psql(pg_bin: Path | None) -> str:
    from customer_panel.db.binaries import find_binaries
    from customer_panel.errors import EmbeddedUnavailable

    try:
        own = find_binaries(pg_bin).program("psql")
    except EmbeddedUnavailable:
        own = ""
    found = own if os.access(own, os.X_OK) else shutil.which("psql")
    if not found:
        raise DatabaseError("psql was not found", hint="Install the client of PostgreSQL.")
    return found


def _look(settings: Settings) -> dict[str, Any]:
    """What `db status` shows. Starts no server."""
    from customer_panel.db import embedded
    from customer_panel.db.connect import connect
    from customer_panel.db.database import Location
    from customer_panel.db.migrate import applied, known

    found: dict[str, Any]
    location = Location(settings)
    dsn: str | None = location.dsn
    if not location.is_embedded:
        found = {"kind": "server", "running": True, "url": redacted(location.dsn)}
    else:
        state = embedded.status(settings.home)
        dsn = state.dsn
        found = {
            "kind": "embedded",
            "running": state.pid is not None,
            "url": state.dsn,
            "process": state.pid,
            "kept": state.is_kept,
            "folder": str(state.data) if state.data.exists() else None,
            "log": str(state.log) if state.log.exists() else None,
        }
    if dsn is None:
        return found
    with connect(dsn, autocommit=True) as connection:
        done, files = applied(connection), known()
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        found["version"] = connection.info.parameter_status("server_version")
        found["schema"] = max(done, default=None)
        found["pending"] = sum(migration.version not in done for migration in files)
        found["bytes"] = size[0] if size else None
    return found
