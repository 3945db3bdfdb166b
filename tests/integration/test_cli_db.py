"""The commands around the database, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from conftest import Run
from customer_panel.cli.main import _of_the_database
from customer_panel.db import embedded
from customer_panel.db.migrate import known
from customer_panel.errors import DatabaseError, DatabaseLost, DiskFull, NotAllowed
from support.databases import environment


def test_up_keeps_the_server_until_down(run: Run, home: Path) -> None:
    up = run("db", "up", CP_HOME=home)
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("postgresql://")
    assert run("db", "url", CP_HOME=home).stdout == up.stdout
    asked = run("db", "psql", "-Atc", "SELECT count(*) FROM customers", CP_HOME=home)
    assert asked.stdout == "0\n"
    assert embedded.status(home).pid is not None
    again = run("db", "up", CP_HOME=home)
    assert "already running" in again.stderr
    assert again.stdout == up.stdout
    assert run("db", "down", CP_HOME=home).stdout == "stopped\n"
    assert run("db", "down", CP_HOME=home).stdout == "it was not running\n"
    assert embedded.status(home).pid is None


def test_command_that_starts_the_server_stops_it(run: Run, home: Path) -> None:
    assert run("db", "psql", "-c", "SELECT 1", CP_HOME=home).returncode == 0
    assert embedded.status(home).pid is None


def test_psql_hands_on_its_exit_code_and_standard_input(run: Run, dsn: str) -> None:
    assert run("db", "psql", "-c", "SELECT nonsense", DATABASE_URL=dsn).returncode == 1
    assert run("db", "psql", "-v", "ON_ERROR_STOP=1", "-f", "/none", DATABASE_URL=dsn).returncode


def test_status_starts_nothing(run: Run, home: Path) -> None:
    status = json.loads(run("db", "status", "--json", CP_HOME=home).stdout)
    assert status["running"] is False
    assert list(home.iterdir()) == []


def test_status_tells_version_and_schema(run: Run, dsn: str) -> None:
    status = json.loads(run("db", "status", "--json", DATABASE_URL=dsn).stdout)
    assert status["running"] is True
    assert status["version"].startswith("18.")
    assert status["schema"] == known()[-1].version
    assert status["pending"] == 0
    assert "pending    0" in run("db", "status", DATABASE_URL=dsn).stdout


def test_migrate_says_what_it_did(run: Run, empty_dsn: str) -> None:
    first = run("db", "migrate", DATABASE_URL=empty_dsn)
    assert first.stdout == "".join(f"applied {m.version}\n" for m in known())
    assert run("db", "migrate", DATABASE_URL=empty_dsn).stdout == "the schema is up to date\n"


def test_two_commands_at_once_on_a_new_home_both_succeed(home: Path, tmp_path: Path) -> None:
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "customer_panel", "db", "psql", "-Atc", "SELECT 1"],
            env=environment(CP_HOME=home),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for command in commands:
        out, err = command.communicate()
        assert (command.returncode, out) == (0, "1\n"), err
    assert embedded.status(home).pid is None


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_server_of_ones_own_is_not_started_or_stopped(run: Run, dsn: str, verb: str) -> None:
    refused = run("db", verb, DATABASE_URL=dsn)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: DATABASE_URL is set")


def test_error_is_two_lines_and_exit_1(run: Run, home: Path) -> None:
    failed = run("db", "url", CP_HOME=home)
    assert failed.returncode == 1
    assert failed.stdout == ""
    error, hint = failed.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("server closed the connection"), DatabaseLost),
        (psycopg.errors.AdminShutdown("terminating connection"), DatabaseLost),
        (psycopg.errors.DiskFull("could not extend file"), DiskFull),
        (psycopg.errors.TooManyConnections("sorry"), DatabaseError),
        (psycopg.errors.ReadOnlySqlTransaction("a standby"), DatabaseError),
        (psycopg.errors.InsufficientPrivilege("not yours"), NotAllowed),
        (ValueError("a bug of ours keeps its traceback"), type(None)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_trouble_of_the_database_is_no_traceback(error: Exception, kind: type) -> None:
    assert type(_of_the_database(error)) is kind


def test_a_direct_url_alone_names_the_database_everywhere(run: Run, dsn: str) -> None:
    assert run("db", "url", CP_DIRECT_URL=dsn).stdout.strip() == dsn
    assert json.loads(run("db", "status", "--json", CP_DIRECT_URL=dsn).stdout)["kind"] == "server"
    refused = run("db", "down", CP_DIRECT_URL=dsn)
    assert refused.returncode == 1
    assert "CP_DIRECT_URL is set" in refused.stderr
    report = run("doctor", CP_DIRECT_URL=dsn).stdout
    assert "server, PostgreSQL 18" in report
    assert "PostgreSQL programs" not in report


def test_wrong_usage_is_exit_2(run: Run) -> None:
    assert run("db", "nonsense").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("db", "up", "--nonsense").returncode == 2


def test_misspelt_setting_is_named(run: Run) -> None:
    failed = run("db", "status", CP_HOEM="x")
    assert failed.returncode == 1
    assert "unknown setting CP_HOEM; did you mean CP_HOME?" in failed.stderr


def test_unreachable_server_is_an_error_without_its_password(run: Run) -> None:
    failed = run("db", "migrate", DATABASE_URL="postgresql://me:secret@localhost:1/x")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: the database cannot be reached")
    assert "secret" not in failed.stderr


def test_settings_come_from_the_env_file_too(run: Run, tmp_path: Path, dsn: str) -> None:
    (tmp_path / ".env").write_text(f'DATABASE_URL="{dsn}"\n')
    assert run("db", "url").stdout == f"{dsn}\n"


def test_doctor_finds_nothing_wrong_here(run: Run, home: Path) -> None:
    examined = run("doctor", "--json", CP_HOME=home)
    report = json.loads(examined.stdout)
    assert report["ok"], report
    assert examined.returncode == 0
    names = {finding["name"] for finding in report["findings"]}
    assert {"python", "extension", "database", "free disk space", "open files allowed"} <= names
    assert embedded.status(home).pid is None


def test_doctor_says_what_is_wrong_and_fails(run: Run, home: Path, tmp_path: Path) -> None:
    examined = run("doctor", CP_HOME=home, CP_PG_BIN=tmp_path)
    assert examined.returncode == 1
    assert f"CP_PG_BIN: there is no program {tmp_path / 'initdb'}" in examined.stdout
    assert "hint:" in examined.stdout


def test_doctor_shows_no_password(run: Run, tmp_path: Path) -> None:
    url = "postgresql://me:secret@localhost:1/x"
    examined = run("doctor", DATABASE_URL=url, CP_HOME=tmp_path)
    assert examined.returncode == 1
    assert "me:***@localhost" in examined.stdout
    assert "secret" not in examined.stdout + examined.stderr


def test_generate_writes_the_same_bytes_for_the_same_seed(run: Run, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        done = run("generate", name, "--rows", "1000", "--seed", "5")
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    first, second = (tmp_path / name for name in ("a.csv", "b.csv"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().count(b"\n") == 1001


def test_generate_names_the_file_it_cannot_write(run: Run) -> None:
    failed = run("generate", "none/a.csv", "--rows", "1")
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: none{os.sep}a.csv cannot be written")


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout.strip() == "customer-panel, version 0.1.0"
