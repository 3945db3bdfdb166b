"""`customer-panel jobs pause` and `cancel`: heard by whoever runs the import."""

from __future__ import annotations

import threading

import psycopg
import pytest

from customer_panel._native import generate
from customer_panel.errors import ClaimLost, Stopped
from customer_panel.imports import import_customers

ROWS = 20_000
KEYS = "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid"


@pytest.fixture
def path(tmp_path):
    generate(str(tmp_path / "customers.csv"), ROWS, seed=3, duplicates=0.01)
    return tmp_path / "customers.csv"


class Running:
    """An import in a thread, which waits behind its first commit until it may go on."""

    def __init__(self, path, dsn):
        self.has_committed, self.may_go_on = threading.Event(), threading.Event()
        self.outcome = None
        self._thread = threading.Thread(target=self._work, args=(path, dsn))
        self._thread.start()
        assert self.has_committed.wait(30)

    def _work(self, path, dsn):
        try:
            self.outcome = import_customers(path, dsn, batch_rows=100, progress=self._told)
        except (ClaimLost, Stopped) as stopped:
            self.outcome = stopped

    def _told(self, progress):
        if progress.counts.inserted:
            self.has_committed.set()
            self.may_go_on.wait(30)

    def ended(self):
        self.may_go_on.set()
        self._thread.join()
        return self.outcome


def state(dsn):
    with psycopg.connect(dsn) as conn:
        return (
            *conn.execute("SELECT status FROM imports").fetchone(),
            *conn.execute("SELECT count(*) FROM customers").fetchone(),
            *conn.execute("SELECT count(*) FROM import_parked").fetchone(),
            *conn.execute("SELECT count(*) FROM import_requests").fetchone(),
            *conn.execute(KEYS).fetchone(),
        )


def asked(dsn):
    """Waits until a request is written down."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not conn.execute("SELECT count(*) FROM import_requests").fetchone()[0]:
            pass


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_running_import_obeys_at_the_next_batch_border(run, dsn, path, word):
    importing = Running(path, dsn)
    steering = []
    thread = threading.Thread(
        target=lambda: steering.append(run("jobs", word, "1", DATABASE_URL=dsn))
    )
    thread.start()
    asked(dsn)
    assert isinstance(importing.ended(), Stopped)
    thread.join()
    assert steering[0].returncode == 0, steering[0].stderr
    status, rows, parked, requests, keys = state(dsn)
    assert f"import 1 is {status}; it has written {rows:,} rows" in steering[0].stdout
    assert status == {"pause": "PAUSED", "cancel": "CANCELLED"}[word]
    assert 0 < rows < ROWS
    assert requests == 0
    if word == "cancel":
        assert (parked, keys) == (0, 3)


def test_a_paused_import_goes_on_or_is_given_up(run, dsn, path):
    importing = Running(path, dsn)
    thread = threading.Thread(target=run, args=("jobs", "pause", "1"), kwargs={"DATABASE_URL": dsn})
    thread.start()
    asked(dsn)
    importing.ended()
    thread.join()
    again = run("jobs", "pause", "1", DATABASE_URL=dsn)
    assert again.returncode == 1
    assert "import 1 is PAUSED and cannot be PAUSED" in again.stderr
    written = state(dsn)[1]
    assert run("jobs", "cancel", "1", DATABASE_URL=dsn).returncode == 0
    assert state(dsn) == ("CANCELLED", written, 0, 0, 3)
    assert run("jobs", "cancel", "1", DATABASE_URL=dsn).returncode == 1
    assert run("jobs", "cancel", "2", DATABASE_URL=dsn).returncode == 1
    result = import_customers(path, dsn)
    assert result.rows_unchanged + result.rows_updated == written


def test_a_pause_that_a_dead_runner_did_not_hear_is_not_meant_for_the_next_start(dsn, path):
    importing = Running(path, dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        # The runner dies without a word: its sessions go, its thread hears no more of it.
        conn.execute("UPDATE imports SET epoch = epoch + 1")
        conn.execute("UPDATE import_lanes SET epoch = epoch + 1")
        importing.ended()
        conn.execute("INSERT INTO import_requests SELECT id, 'PAUSED' FROM imports")
    result = import_customers(path, dsn)
    assert result.status == "COMPLETED"
    assert state(dsn)[3] == 0
