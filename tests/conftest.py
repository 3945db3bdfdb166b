"""Fixtures: a real embedded PostgreSQL for the session, a fresh database for each test.

Each xdist worker has a server of its own, so workers share nothing and clean up alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from customer_panel.settings import SETTINGS

# What the developer has set must not reach the tests, and least of all a DATABASE_URL.
for _name in [name for name in os.environ if name.startswith(("CP_", "PG"))]:
    del os.environ[_name]
for _setting in SETTINGS:
    os.environ.pop(_setting.name, None)

_numbers = itertools.count(1)

Run = Callable[..., subprocess.CompletedProcess[str]]


def make_home() -> Path:
    """An empty CP_HOME; not tmp_path, whose name is too long for a socket."""
    home = Path(tempfile.mkdtemp(prefix="cp-"))
    # As root the server is run by `nobody`, who has to walk through.
    home.chmod(0o711)
    return home


@pytest.fixture
def home() -> Iterator[Path]:
    """A CP_HOME of this test's own. Whatever still runs there is stopped at the end."""
    home = make_home()
    yield home
    embedded.stop(home, force=True)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    """One embedded PostgreSQL for all tests of this process."""
    home = make_home()
    server = embedded.ensure_running(home)
    yield server
    embedded.release(server)
    embedded.stop(home, force=True)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def template(server: embedded.Server) -> str:
    """The name of a migrated database, to be copied; nobody may be connected to it."""
    _admin(server, "CREATE DATABASE template_migrated")
    migrate(named(server.dsn, "template_migrated"))
    return "template_migrated"


@pytest.fixture
def empty_dsn(server: embedded.Server) -> Iterator[str]:
    """A database with nothing in it."""
    yield from _database(server, "template1")


@pytest.fixture
def dsn(server: embedded.Server, template: str) -> Iterator[str]:
    """A migrated database of this test's own; dropped at the end, whoever is connected."""
    yield from _database(server, template)


@pytest.fixture
def database(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection to `dsn`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `customer-panel ARGS`, settings as keywords, and returns the finished process."""

    def run(*args: str, timeout: float = 120, **settings: object) -> Any:
        return subprocess.run(
            command(*args),
            env=environment(**settings),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def command(*args: str) -> list[str]:
    """The argv of `customer-panel ARGS`."""
    return [sys.executable, "-m", "customer_panel", *args]


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with the settings given."""
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def named(dsn: str, name: str) -> str:
    """`dsn`, but of the database `name` of the same server."""
    return dsn.replace(f"/{embedded.DATABASE}?", f"/{name}?")


def _database(server: embedded.Server, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _admin(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield named(server.dsn, name)
    _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


def _admin(server: embedded.Server, statement: str) -> None:
    with psycopg.connect(named(server.dsn, "postgres"), autocommit=True) as connection:
        connection.execute(statement.encode())
