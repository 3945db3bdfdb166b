"""Workers as a server runs them, and imports in the states in which they may find them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.errors import Stopped
from customer_panel.imports.job import progress
from customer_panel.imports.stop import Stop
from customer_panel.imports.worker.worker import Worker
from customer_panel.settings import Settings
from customer_panel.sql import statement
from support.compare import digest, run, settled
from support.customers import csv
from support.waiting import wait_until

ROWS = 40_000
BATCH_ROWS = 1000
PATIENCE_S = 30.0
TAKEN_UP_S = 2.0  # within this time an interrupted import goes on


@pytest.fixture
def customers_folder(tmp_path):
    """The only folder that workers may import from."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def pristine(databases, template, tmp_path_factory):
    """A file, and the digest and counts after an import that nobody disturbs."""
    path = csv(
        tmp_path_factory.mktemp("pristine") / "customers.csv",
        ROWS,
        seed=7,
        duplicates=0.02,
        dirty=0.01,
    )
    with databases.copy(template) as dsn:
        result = run(path, dsn)
        return path, digest(dsn), settled(dsn, result.job_id)


@pytest.fixture
def customers_file(pristine, customers_folder):
    """The file of `pristine`, where workers may open it."""
    path = customers_folder / "customers.csv"
    os.link(pristine[0], path)
    return path


@pytest.fixture
def check_customers(pristine, dsn):
    """The table and the counts are those of an import that nobody disturbs."""

    def check_customers(job: int = 1) -> None:
        assert digest(dsn) == pristine[1]
        assert settled(dsn, job) == pristine[2]
        assert index_count(dsn) == 3

    return check_customers


def index_count(dsn: str) -> int:
    return int(
        ask(
            dsn,
            "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid",
        )[0][0]
    )


@pytest.fixture
def start_worker(dsn, customers_folder):
    """Starts workers; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(**how: Any) -> Worker:
            return stack.enter_context(running_worker(dsn, customers_folder, **how))

        yield start


@contextlib.contextmanager
def running_worker(dsn: str, customers_folder: Path, **how: Any) -> Iterator[Worker]:
    settings = Settings(import_roots=(customers_folder,), batch_rows=BATCH_ROWS)
    worker = Worker(dsn, settings, **how)
    worker.start()
    try:
        yield worker
    finally:
        worker.ask_stop()
        assert worker.join(PATIENCE_S)


def ask(dsn: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        done = conn.execute(query.encode(), parameters)
        return done.fetchall() if done.description else []


def status(dsn: str, job: int = 1) -> str | None:
    found = ask(dsn, "SELECT status FROM imports WHERE id = %s", job)
    return found[0][0] if found else None


def until(dsn: str, wanted: str, job: int = 1, timeout: float = PATIENCE_S) -> float:
    """Seconds until the import had this status."""
    what = f"import {job} is {wanted}"
    return wait_until(
        what, lambda: status(dsn, job) == wanted, timeout, lambda: f"it is {status(dsn, job)}"
    )


def wait_idle(worker: Worker) -> None:
    wait_until("the worker runs no import", lambda: worker.running is None, PATIENCE_S)


def wait_schema(worker: Worker) -> None:
    wait_until("the worker has found the schema", lambda: worker.has_schema, PATIENCE_S)


def jobs(dsn: str) -> list[str]:
    return [row[0] for row in ask(dsn, "SELECT status FROM imports ORDER BY id")]


def request(dsn: str, job: int, what: str) -> None:
    """Asks the runner of the import for `what`, as the API does."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement("ask_import"), {"import_id": job, "requested": what})


def request_cancel(dsn: str, job: int) -> None:
    """Cancels an import that nobody runs, as the API does."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.execute(statement("ask_waiting_import"), {"import_id": job}).fetchone()


def interrupt(path: Path, dsn: str, status: str = "INTERRUPTED", batches: int = 3) -> None:
    """Leaves an import that was stopped after some batches; RUNNING: its runner is gone."""
    stop = Stop()

    def on_progress(progress):
        if progress.counts.inserted > batches * BATCH_ROWS:
            stop.ask("PAUSED" if status == "PAUSED" else "INTERRUPTED")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "EVERY_S", 0)
        with pytest.raises(Stopped):
            run(path, dsn, on_progress=on_progress, stop=stop, batch_rows=BATCH_ROWS, lanes=2)
    if status == "RUNNING":
        ask(dsn, "UPDATE imports SET status = 'RUNNING'")


def wait_for_looks(idle: Worker, times: int = 3) -> None:
    """Returns when the worker has looked for imports so many times."""
    has_looked = threading.Semaphore(0)
    look = idle._look

    def counted() -> float:
        wait_s = look()
        has_looked.release()
        return wait_s

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(idle, "_look", counted)
        for _ in range(times):
            idle.wake()
            assert has_looked.acquire(timeout=PATIENCE_S)
