"""A file that changes while it is read, as users of the command line and of HTTP see it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from support.customers import csv
from support.databases import command, environment
from support.envelope import ok
from support.waiting import held_midway

ROWS = 60_000


@pytest.fixture
def long(tmp_path) -> Path:
    return csv(tmp_path / "long.csv", ROWS, seed=4)


def flip(path: Path) -> None:
    """Changes a byte that is read before the first batch is full."""
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, 5000)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), 5000)


def written(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("SELECT count(*) FROM customers").fetchone()
    assert row is not None
    return int(row[0])


def test_the_command_line_says_what_changed_and_exits_with_1(dsn, long):
    running = []

    def start() -> None:
        running.append(
            subprocess.Popen(
                command("import", long, "--batch-rows", "1000"),
                env=environment(DATABASE_URL=dsn),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    with held_midway(dsn, start) as let_go:
        flip(long)
        let_go()
        output, errors = running[0].communicate(timeout=60)
    assert (running[0].returncode, output) == (1, "")
    assert "error: file changed between byte 0 and" in errors
    assert f"while it was read; the {written(dsn)} rows that were written stay" in errors
    assert "--settle" in errors


def test_over_http_the_import_has_failed_and_the_next_one_takes_the_file(serve, dsn, long):
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=long.parent, IMPORT_BATCH_SIZE=1000)
    started = {}
    with held_midway(dsn, lambda: started.update(api.sync(long))) as let_go:
        flip(long)
        let_go()
        snapshot = api.until("FAILED", job=started["id"])
    assert "while it was read; the " in snapshot["error"]
    shown = ok(api.get(f"/imports/{started['id']}"))
    assert shown["rowsInserted"] == str(written(dsn))
    assert f"the {written(dsn)} rows that were written stay" in shown["error"]
    flip(long)
    again = api.sync(long)
    done = api.until("COMPLETED", job=again["id"])
    assert int(done["rowsProcessed"]) == ROWS
    assert written(dsn) == ROWS
