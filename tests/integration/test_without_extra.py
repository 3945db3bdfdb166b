"""Installed without the extra `api`: all but the server is there, and the server says what it lacks.

Nothing is installed for it: processes of the test do not find what pip would not have brought.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import (
    PackageNotFoundError,
    distributions,
    packages_distributions,
    requires,
)

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from customer_panel.cli.main import COMMANDS
from customer_panel.cli.serve import NEEDED
from support.databases import environment

NAME = "customer-panel"
TOO_MUCH = {"litestar", "watchfiles", "websockets"}  # "uvicorn[standard]" brought two of them

# Hides distributions from imports and from importlib.metadata, then does what it is told to.
HIDING = """
import importlib.metadata, json, re, runpy, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, context=importlib.metadata.DistributionFinder.Context()):
        for found in getattr(self.finder, "find_distributions", lambda _: ())(context):
            if re.sub(r"[-_.]+", "-", found.name).lower() not in PACKAGES:
                yield found

MODULES, PACKAGES = map(set, json.loads(sys.argv.pop(1)))
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
COMMAND = "runpy.run_module('customer_panel', run_name='__main__', alter_sys=True)"


def closure(name: str, *extras: str) -> set[str]:
    """The distributions that installing `name` brings here, itself among them."""
    found: set[str] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    done = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # for another platform
            continue
        found.add(name)
        for one in needed:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(one.name), wanted) for wanted in ("", *one.extras)]
    return found


def modules(packages: set[str]) -> set[str]:
    """The top-level modules of distributions; those that others have too are left out."""
    return {
        module
        for module, owners in packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} <= packages
    }


CORE = closure(NAME)
ALL = {canonicalize_name(found.name) for found in distributions()}


def python(code: str, *args: str, hidden: set[str] = ALL - CORE, **settings: object):
    """A finished process that does not see the distributions `hidden`."""
    names = json.dumps([sorted(modules(hidden)), sorted(hidden)])
    return subprocess.run(
        [sys.executable, "-c", HIDING + code, names, *args],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# -- what is declared -----------------------------------------------------------------------------


def test_the_core_brings_nothing_of_the_server():
    declared = [Requirement(line) for line in requires(NAME) or ()]
    server = {one.name for one in declared if one.marker and "extra ==" in str(one.marker)}
    assert {"litestar", "uvicorn", "httptools", "uvloop"} <= server
    assert not CORE & (server | TOO_MUCH), "it comes with the core"


def test_the_server_is_named_piece_by_piece():
    brought = closure(NAME, "api") - CORE
    assert not brought & {"watchfiles", "websockets"}
    assert set(NEEDED) <= modules(brought)
    declared = [Requirement(line) for line in requires(NAME) or ()]
    of_extra = {one.name for one in declared if one.marker and "extra ==" in str(one.marker)}
    # Without uvloop the loop of asyncio serves.
    assert {name.replace("-", "_") for name in of_extra} - {"uvloop"} == set(NEEDED)


@pytest.mark.parametrize("name", ["uvicorn", "psycopg", "msgspec"])
def test_what_is_leant_on_has_an_upper_bound(name):
    declared = [Requirement(line) for line in requires(NAME) or ()]
    bounds = [one.specifier for one in declared if one.name == name]
    assert bounds
    assert all(any(part.operator == "<" for part in specifier) for specifier in bounds)


# -- what runs ------------------------------------------------------------------------------------


def test_every_module_but_the_server_s_can_be_imported():
    done = python(
        "import pkgutil, importlib, customer_panel\n"
        "assert all(hasattr(customer_panel, name) for name in customer_panel.__all__)\n"
        "skipped = ('customer_panel.api', 'customer_panel.__main__')\n"
        "def walk(package):\n"
        "    for found in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        if found.name not in skipped:\n"
        "            module = importlib.import_module(found.name)\n"
        "            print(found.name)\n"
        "            if found.ispkg:\n"
        "                walk(module)\n"
        "walk(customer_panel)\n"
    )
    assert done.returncode == 0, done.stderr
    assert {"customer_panel.cli.serve", "customer_panel.db.pool"} <= set(done.stdout.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_shows_its_help(command):
    done = python(COMMAND, *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: customer-panel" in done.stdout


def test_a_file_is_imported_and_the_doctor_finds_nothing_wrong(dsn, tmp_path):
    path = tmp_path / "customers.csv"
    assert python(COMMAND, "generate", str(path), "--rows", "100").returncode == 0
    done = python(COMMAND, "import", str(path), "--json", DATABASE_URL=dsn)
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout)["rowsProcessed"] == 100
    done = python(COMMAND, "jobs", "list", DATABASE_URL=dsn)
    assert (done.returncode, done.stderr) == (0, "")
    done = python(COMMAND, "doctor", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stdout
    assert 'without litestar; pip install "customer-panel[api]"' in done.stdout


def test_serve_says_in_one_line_what_to_install(tmp_path):
    home = tmp_path / "home"
    done = python(COMMAND, "serve", PORT=0, CP_HOME=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        'error: the HTTP API needs litestar, which is missing: pip install "customer-panel[api]"'
    ]
    assert not home.exists(), "a database was started for nothing"


@pytest.mark.parametrize("missing", NEEDED)
def test_a_package_that_is_missing_is_named(missing):
    done = python(COMMAND, "serve", PORT=0, hidden={missing.replace("_", "-")})
    assert done.returncode == 1
    assert f"the HTTP API needs {missing}, which is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_uvloop_the_loop_of_asyncio_serves():
    """It is speed alone, and has no wheel for some platforms."""
    done = python(
        "import asyncio; from uvicorn import Config;"
        "print(Config('x:y').get_loop_factory() is asyncio.SelectorEventLoop)",
        hidden={"uvloop"},
    )
    assert done.stdout.split() == ["True"], done.stderr
