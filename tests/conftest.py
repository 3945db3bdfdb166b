"""Fixtures: a real embedded PostgreSQL for the session, a fresh database for each test.

Each xdist worker has a server of its own, so workers share nothing and clean up alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from customer_panel.settings import SETTINGS
from support.databases import Databases, command, environment, make_home

# What the developer has set must not reach the tests, and least of all a DATABASE_URL.
for _name in [name for name in os.environ if name.startswith(("CP_", "PG"))]:
    del os.environ[_name]
for _setting in SETTINGS:
    os.environ.pop(_setting.name, None)

pytest_plugins = ["support.api", "support.kill_runner", "support.sweep", "support.workers"]

Run = Callable[..., subprocess.CompletedProcess[str]]


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
    # Each copied or dropped database costs checkpoints. No test here outlives a crash of the machine.
    Databases(server).execute("ALTER SYSTEM SET fsync = off")
    Databases(server).execute("SELECT pg_reload_conf()")
    yield server
    embedded.release(server)
    embedded.stop(home, force=True)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def databases(server: embedded.Server) -> Databases:
    return Databases(server)


@pytest.fixture(scope="session")
def template(databases: Databases) -> str:
    """The name of a migrated database, to be copied; nobody may be connected to it.

    Copies share its seed, so the hashes of one file are the same in all of them.
    """
    databases.execute("CREATE DATABASE template_migrated")
    migrate(databases.dsn("template_migrated"))
    return "template_migrated"


@pytest.fixture
def empty_dsn(databases: Databases) -> Iterator[str]:
    """A database with nothing in it."""
    with databases.copy("template1") as dsn:
        yield dsn


@pytest.fixture
def dsn(databases: Databases, template: str) -> Iterator[str]:
    """A migrated database of this test's own; dropped at the end, whoever is connected."""
    with databases.copy(template) as dsn:
        yield dsn


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
