"""Processes and databases of the tests: how they are started, named, copied and dropped."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from customer_panel.db import embedded


def make_home() -> Path:
    """An empty CP_HOME; not tmp_path, whose name is too long for a socket."""
    home = Path(tempfile.mkdtemp(prefix="cp-"))
    # As root the server is run by `nobody`, who has to walk through.
    home.chmod(0o711)
    return home


def command(*args: str) -> list[str]:
    """The argv of `customer-panel ARGS`."""
    return [sys.executable, "-m", "customer_panel", *args]


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with the settings given."""
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def named(dsn: str, name: str) -> str:
    """`dsn`, but of the database `name` of the same server."""
    return dsn.replace(f"/{embedded.DATABASE}?", f"/{name}?")


class Databases:
    """Makes and drops the databases of a server."""

    _numbers = itertools.count(1)

    def __init__(self, server: embedded.Server) -> None:
        self.server = server

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def dsn(self, name: str) -> str:
        return named(self.server.dsn, name)

    @contextlib.contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A database that is dropped at the end, whoever is connected."""
        name = f"test_{next(self._numbers)}"
        # Copied as files: their pages need not go through the log.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.dsn(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


def is_accepting(dsn: str) -> bool:
    """Whether a server takes connections at this address."""
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(dsn).close()
        return True
    return False
