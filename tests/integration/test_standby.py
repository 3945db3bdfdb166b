"""A server that is away in its own way: a standby, which answers and takes no changes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from customer_panel.api.http.errors import as_api_error
from customer_panel.db import cluster, embedded
from customer_panel.db.binaries import account_for, find_binaries, within_reach
from customer_panel.db.connect import connect, is_loss
from customer_panel.db.migrate import migrate
from customer_panel.errors import DatabaseUnreachable
from customer_panel.imports import import_customers
from support.customers import csv
from support.databases import is_accepting, make_home
from support.store import create, with_pool
from support.waiting import wait_until
from support.workers import TAKEN_UP_S, interrupt, running_worker, until

READY_S = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder with the file of the interrupted import."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def standby(files) -> Iterator[str]:
    """The address of a standby, on which an import is interrupted. It waits for a primary that is gone."""
    home = make_home()
    patched = pytest.MonkeyPatch()
    tuning = cluster.tuning() | {"wal_level": "replica"}
    patched.setattr(cluster, "tuning", lambda: tuning)
    try:
        server = embedded.ensure_running(home)
        migrate(server.dsn)
        interrupt(csv(files / "customers.csv", 20_000, seed=7), server.dsn)
        dsn = server.dsn
        embedded.release(server)
        embedded.stop(home, force=True)
    finally:
        patched.undo()
    place = cluster.Place(home)
    account = account_for(place.data, place.home)
    (place.data / "standby.signal").touch()
    owner = place.data.stat()
    os.chown(place.data / "standby.signal", owner.st_uid, owner.st_gid)
    socket = psycopg.conninfo.conninfo_to_dict(dsn)["host"]
    program = within_reach(find_binaries(None), account).program("postgres")
    process = subprocess.Popen(
        [program, "-D", str(place.data), "-k", socket, "-c", "listen_addresses="],
        cwd=place.data,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **({} if account is None else {"user": account.uid, "group": account.gid}),
    )

    def answers() -> bool:
        assert process.poll() is None
        return is_accepting(dsn)

    try:
        wait_until("the standby answers", answers, READY_S)
        yield dsn
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(READY_S)
        shutil.rmtree(home)


def test_it_counts_as_away_and_can_be_read(standby, files, run):
    with pytest.raises(DatabaseUnreachable, match="standby") as refused:
        connect(standby, writes=True)
    assert is_loss(refused.value)
    with pytest.raises(DatabaseUnreachable, match="standby"):
        import_customers(files / "customers.csv", standby)
    with connect(standby) as conn:
        assert conn.execute("SELECT count(*) FROM imports").fetchone() == (1,)
        with pytest.raises(psycopg.Error) as refused:
            conn.execute("UPDATE imports SET error = 'x'")
        assert is_loss(refused.value)
    listed = run("jobs", "list", DATABASE_URL=standby)
    assert listed.returncode == 0, listed.stderr
    assert "INTERRUPTED" in listed.stdout


def test_a_write_over_the_api_is_told_to_come_again(standby):
    with pytest.raises(psycopg.Error) as refused:
        with_pool(standby, create)
    assert as_api_error(refused.value).status == 503


def test_a_worker_waits_until_it_is_the_primary(standby, files):
    with running_worker(standby, files, has_schema=True) as worker:
        wait_until("the worker has noticed", lambda: worker._is_away, READY_S)
        with psycopg.connect(standby, autocommit=True) as conn:
            conn.execute("SELECT pg_promote()")
        until(standby, "COMPLETED", timeout=READY_S + TAKEN_UP_S)
