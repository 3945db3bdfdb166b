"""A runner whose imports can be killed, and databases in the state before the import."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest

from customer_panel import _native
from customer_panel.db import embedded
from customer_panel.imports import ImportResult
from support.compare import digest, rejects, run, settled
from support.databases import Databases, environment, make_home
from support.reference import Reject

RUNS = int(os.environ.get("CHAOS_RUNS", "0"))
ROWS = 300_000
PATIENCE_S = 60.0


class Ended(NamedTuple):
    """How a child of the runner ended; `exit` is negative for a signal."""

    exit: int
    answer: dict[str, Any]

    @property
    def result(self) -> ImportResult:
        assert "result" in self.answer, self
        return msgspec.convert(self.answer["result"], ImportResult)


class Runner:
    """Starts imports in processes of their own, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "runner.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        )

    def start(self, path: Path, dsn: str, **job: Any) -> int:
        """Starts an import; its process number."""
        assert self.process.stdin
        self.answer = self.folder / "answer.json"
        self.answer.unlink(missing_ok=True)
        job |= {"path": str(path), "dsn": dsn, "answer": str(self.answer)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self._answer()["pid"])

    def wait(self) -> Ended:
        code = self._answer()["exit"]
        is_answered = self.answer.exists() and code == 0
        return Ended(code, json.loads(self.answer.read_text()) if is_answered else {})

    def run(self, path: Path, dsn: str, kill_after_s: float | None = None, **job: Any) -> Ended:
        pid = self.start(path, dsn, **job)
        if kill_after_s is None:
            return self.wait()
        # The runner has not reaped it before `wait`, so the number is still this child's.
        timer = threading.Timer(kill_after_s, lambda: kill(pid))
        timer.start()
        try:
            return self.wait()
        finally:
            timer.cancel()
            timer.join()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the runner is gone"
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout
        self.process.stdout.close()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def stoppable() -> Iterator[Databases]:
    """A PostgreSQL that may be stopped at any moment; nobody else uses it."""
    home = make_home()
    server = embedded.up(home)
    yield Databases(server)
    embedded.stop(home, force=True)
    shutil.rmtree(home)


@dataclass
class Scene:
    """An import that can be repeated from the same state, and its result when nobody disturbs it."""

    path: Path
    before: str  # the database to copy
    job_id: int
    table: tuple[int, str]
    counts: tuple[int, ...]
    rejects: list[Reject]
    seconds: float

    def newest(self, dsn: str) -> int | None:
        """The number of the import, once it is completed; a kill may have cost some numbers."""
        with psycopg.connect(dsn) as conn:
            row = conn.execute("SELECT id, status FROM imports ORDER BY id DESC").fetchone()
        return row[0] if row and row[0] >= self.job_id and row[1] == "COMPLETED" else None

    def check(self, dsn: str) -> None:
        """The result is that of an import that nobody disturbs."""
        job = self.newest(dsn)
        assert job is not None
        assert settled(dsn, job) == self.counts
        assert digest(dsn) == self.table
        assert rejects(dsn, job) == self.rejects
        with psycopg.connect(dsn) as conn:
            left = conn.execute(
                "SELECT (SELECT count(*) FROM import_parked),"
                " (SELECT sum(rows_pending) FROM import_lanes)::int,"
                " (SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass"
                "   AND indisvalid),"
                " (SELECT sum(delta) FROM customer_totals)"
                "   = (SELECT count(*) FROM customers WHERE deleted_at IS NULL)"
            ).fetchone()
        assert left == (0, 0, 3, True)


def scene(databases: Databases, path: Path, before: str) -> Scene:
    with databases.copy(before) as dsn:
        began = time.monotonic()
        result = run(path, dsn, lanes=2)
        seconds = time.monotonic() - began
        job = result.job_id
        assert job is not None
        counts, set_aside = settled(dsn, job), rejects(dsn, job)
        return Scene(path, before, job, digest(dsn), counts, set_aside, seconds)


def scenes(databases: Databases, template: str, folder: Path, rows: int) -> dict[str, Scene]:
    """A first load, and the night after it: a tenth changed, others among the duplicates."""
    common = {"rows": rows, "seed": 20, "duplicates": 0.02, "dirty": 0.01}
    _native.generate(str(folder / "first.csv"), **common)
    _native.generate(str(folder / "again.csv"), **common | {"changed": 0.1, "duplicates": 0.03})
    loaded = f"loaded_{rows}"
    databases.execute(f"CREATE DATABASE {loaded} TEMPLATE {template}")
    run(folder / "first.csv", databases.dsn(loaded))
    return {
        "first": scene(databases, folder / "first.csv", template),
        "again": scene(databases, folder / "again.csv", loaded),
    }


@pytest.fixture(scope="session")
def large(databases, template, tmp_path_factory) -> dict[str, Scene]:
    return scenes(databases, template, tmp_path_factory.mktemp("large"), ROWS)


@pytest.fixture(scope="session")
def small(databases, template, tmp_path_factory) -> dict[str, Scene]:
    return scenes(databases, template, tmp_path_factory.mktemp("small"), 3000)
