"""Starts and stops the embedded PostgreSQL: one server for each CP_HOME, shared by all its users.

Three locks in CP_HOME/postgres ensure this. The kernel releases them when a process dies, for
whatever reason:

- `lock` is held by a process while it starts or stops the server;
- `users` is held, shared, by each process that uses it: an exclusive lock means no other is left;
- `running` is inherited by the server and all its children: if it is free, none of them is left.

So no process id has to be trusted, and there are never two servers on one data folder. A process
may use a server whose starter was killed, and stops it when done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from customer_panel.db.cluster import DATABASE, POLL_S, Place, dsn, is_held, is_server, opened
from customer_panel.db.cluster import start as start_server
from customer_panel.db.connect import disk_full
from customer_panel.errors import EmbeddedError, InUse

PATIENCE_S = 60.0  # for a server that neither answers nor ends
STOPPING_S = 300.0  # the last checkpoint may have gigabytes to write
LEAVING_S = 1.0  # for a backend whose client has just closed; it ends within milliseconds


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that we use, until `release`."""

    dsn: str
    pid: int
    data: Path
    home: Path
    is_started_here: bool
    users: int = field(repr=False)  # descriptor of the shared lock


@dataclass(frozen=True, slots=True)
class Status:
    """What is known without starting the server. `pid` and `dsn` are None when it is down."""

    data: Path
    log: Path
    is_kept: bool
    pid: int | None
    dsn: str | None


def ensure_running(home: Path, pg_bin: Path | None = None) -> Server:
    """The server of `home`, started if it is down, ready for connections.

    Raises EmbeddedError or DiskFull; the hint of its subclass says what to do. Waits for a start, a
    stop or a recovery that is under way.
    """
    place = Place(home)
    place.make()
    with _locked(place):
        users = opened(place.users)
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            is_found = _is_found_running(place)
            if not is_found:
                start_server(place, pg_bin)
            pid, socket, _ = place.pid_file()
            _make_database(socket)
        except BaseException:
            os.close(users)
            raise
    return Server(dsn(socket), int(pid), place.data, home, not is_found, users)


def release(server: Server, patience_s: float = STOPPING_S) -> bool:
    """Ends our use of the server, and stops it unless others use it or it is kept; True if stopped.

    Close your connections before. After `patience_s` this returns while the server still stops.
    """
    place = Place(server.home)
    with _locked(place):
        os.close(server.users)
        if not is_held(place.running) or place.kept.exists() or _is_used(place):
            return False
        _stop(place, patience_s)
        return True


def up(home: Path, pg_bin: Path | None = None) -> Server:
    """Starts the server and keeps it running until `stop`. The result needs no `release`."""
    server = ensure_running(home, pg_bin)
    Place(home).kept.touch()
    os.close(server.users)
    return server


def stop(home: Path, *, force: bool = False) -> bool:
    """Stops the server, even one that `up` keeps; False if it was not running.

    Raises InUse while others use it, unless `force`.
    """
    place = Place(home)
    if not place.folder.is_dir():
        return False
    with _locked(place):
        is_running = is_held(place.running)
        if is_running and not force and _is_used(place):
            raise InUse
        place.kept.unlink(missing_ok=True)
        if is_running:
            _stop(place)
    return is_running


def status(home: Path) -> Status:
    """Raises HomeUnusable when `home` belongs to another user."""
    place = Place(home)
    pid, socket, state = place.pid_file()
    is_up = state == "ready" and place.running.exists() and is_held(place.running)
    return Status(
        data=place.data,
        log=place.log,
        is_kept=place.kept.exists(),
        pid=int(pid) if is_up else None,
        dsn=dsn(socket) if is_up else None,
    )


# -- under the lock -------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(place: Place) -> Iterator[None]:
    descriptor = opened(place.lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_found_running(place: Place) -> bool:
    """True when a server answers; False when none is left, perhaps after waiting for its end."""
    deadline = time.monotonic() + PATIENCE_S
    while is_held(place.running):
        _, socket, state = place.pid_file()
        if state == "ready" and _answers(socket):
            return True
        if state != "starting" and time.monotonic() > deadline:
            raise EmbeddedError(f"the server of {place.data} neither answers nor goes away")
        time.sleep(POLL_S)
    return False


def _stop(place: Place, patience_s: float = STOPPING_S) -> None:
    """A fast shutdown: disconnects all clients and writes everything to disk. Returns when all
    processes of the server have ended, or after `patience_s`.
    """
    pid = place.pid_file()[0]
    began = time.monotonic()
    if pid and is_server(pid, place.data):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGINT)
    while is_held(place.running):
        if time.monotonic() - began > STOPPING_S:
            raise EmbeddedError(f"the server (process {pid}) does not stop; see {place.log}")
        if time.monotonic() - began > patience_s:
            return
        time.sleep(POLL_S)


def _is_used(place: Place) -> bool:
    """True while another process holds `users`, or another client is connected (psql, say)."""
    if is_held(place.users, fcntl.LOCK_EX):
        return True
    deadline = time.monotonic() + LEAVING_S
    try:
        with psycopg.connect(_admin(place.pid_file()[1]), autocommit=True) as connection:
            while True:
                others = connection.execute(
                    "SELECT FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).rowcount
                if not others or time.monotonic() > deadline:
                    return bool(others)
                time.sleep(POLL_S)
    except psycopg.OperationalError:
        return False  # it is shutting down already


def _admin(socket: str) -> str:
    return dsn(socket, "postgres")


def _answers(socket: str) -> bool:
    try:
        psycopg.connect(_admin(socket), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_database(socket: str) -> None:
    try:
        with psycopg.connect(_admin(socket), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
            if not found.rowcount:
                connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    except psycopg.Error as error:
        if full := disk_full(error):
            raise full from None
        raise EmbeddedError(f"the embedded PostgreSQL cannot be used: {error}") from error
