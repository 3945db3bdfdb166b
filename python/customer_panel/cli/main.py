"""The command `customer-panel`: the list of its commands, and how an error is shown.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an import that is finished with rejects.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import rich_click

from customer_panel import __version__
from customer_panel.errors import CustomerPanelError, DatabaseError, DatabaseLost, NotAllowed

# Where each command is. Only the command that runs is imported: that keeps the start fast.
COMMANDS = {
    "import": "customer_panel.cli.import_:import_command",
    "serve": "customer_panel.cli.serve:serve",
    "generate": "customer_panel.cli.generate:generate",
    "jobs": "customer_panel.cli.jobs:jobs",
    "db": "customer_panel.cli.db:db",
    "bench": "customer_panel.cli.bench:bench",
    "doctor": "customer_panel.cli.doctor:doctor",
}


class Commands(rich_click.RichGroup):
    """Loads a command when it is used. A known error becomes two lines on stderr and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CustomerPanelError as error:
            show_error(error)
        except Exception as error:
            known = _of_the_database(error)
            if known is None:
                raise
            show_error(known)
        return ctx.exit(1)


def show_error(error: CustomerPanelError) -> None:
    """Prints the error and its hint on stderr."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)


def _of_the_database(error: Exception) -> CustomerPanelError | None:
    """The error to show for what psycopg raises when the server is away or refuses; None for any other
    exception.

    psycopg is not imported here: a command without a database must start fast.
    """
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    from customer_panel.db.connect import AWAY, disk_full, first_line, is_loss

    if full := disk_full(error):
        return full
    if is_loss(error) and error.sqlstate not in AWAY:
        return DatabaseLost(f"the connection to the database was lost: {first_line(error)}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return NotAllowed(f"the database refused: {first_line(error)}")
    if not (isinstance(error, psycopg.OperationalError) or is_loss(error)):
        return None
    return DatabaseError(
        f"the database refused: {first_line(error)}", hint="The log of the server says more."
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="customer-panel")
def cli() -> None:
    """Imports a customer CSV of millions of rows into PostgreSQL, fast and exactly once.

    Without DATABASE_URL it brings its own PostgreSQL: `customer-panel import FILE` is all it takes.
    """


def main() -> None:
    cli(prog_name="customer-panel")


if __name__ == "__main__":
    main()
