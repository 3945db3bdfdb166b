"""The files and the embedded PostgreSQL of a benchmark, both removed in the end."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from customer_panel._native import generate
from customer_panel.benchmarks.figures import Facts
from customer_panel.customer import COLUMNS
from customer_panel.db import embedded
from customer_panel.db.binaries import account_for, find_binaries, within_reach
from customer_panel.db.cluster import DATABASE
from customer_panel.db.migrate import migrate
from customer_panel.errors import CustomerPanelError
from customer_panel.settings import Settings

T = TypeVar("T")
TEMPLATE = "bench_template"
_ROW = ", ".join(column.name for column in COLUMNS)
CHECKSUM = f"SELECT count(*), sum(hashtextextended(row({_ROW})::text, 0))::text FROM customers"


class BenchBusy(CustomerPanelError):
    """Another benchmark is running."""

    code = "bench_busy"
    hint = "Two at once would measure each other; wait for it to end."


class BenchVoid(CustomerPanelError):
    """The engines did not leave the same table, so their times mean nothing."""

    code = "bench_void"
    hint = "This is a defect; please report it with the command you ran."


class Place:
    """The files and the server of one benchmark."""

    def __init__(self, home: Path, settings: Settings, report: Callable[[str], None]) -> None:
        self.home = home
        self.settings = settings
        self.report = report
        self.server = embedded.ensure_running(home / "server", settings.pg_bin)
        account = account_for(self.server.data)
        self.binaries = within_reach(find_binaries(settings.pg_bin), account)
        self._numbers = itertools.count(1)
        self._admin(f"DROP DATABASE IF EXISTS {TEMPLATE}", f"CREATE DATABASE {TEMPLATE}")
        migrate(self._dsn(TEMPLATE))

    def file(self, rows: int, *, about: bool = False, changed: float = 0.0) -> Path:
        """A generated file, made once; the same bytes for the same arguments on every machine."""
        kind = ("-about" if about else "") + (f"-changed-{changed}" if changed else "")
        path = self.home / "files" / f"customers-{rows}{kind}.csv"
        if not path.exists():
            self.report(f"generating {path.name}")
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            generate(part, rows, about=about, changed=changed)
            part.rename(path)
        return path

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A database with our schema and nothing in it; dropped at the end."""
        name = f"bench_{next(self._numbers)}"
        self._admin(
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}",
        )
        try:
            yield self._dsn(name)
        finally:
            self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    def measured(self, work: Callable[[], T]) -> tuple[T, Facts]:
        """Runs `work`: its result, its time, its bytes of WAL, and the processor time of the server."""
        # So that no run has to write what the run before it left in memory.
        self._admin("CHECKPOINT")
        os.sync()
        wal, cpu = self._wal_bytes(), self._cpu_seconds()
        began = time.perf_counter()
        result = work()
        facts: Facts = {"wall_s": time.perf_counter() - began}
        facts["wal_bytes"] = self._wal_bytes() - wal
        if cpu is not None:
            facts["server_cpu_s"] = (self._cpu_seconds() or 0.0) - cpu
        return result, facts

    def checksum(self, dsn: str) -> str:
        """The number of customers and the sum of the hashes of their twelve columns."""
        with psycopg.connect(dsn) as conn:
            rows, total = conn.execute(CHECKSUM.encode()).fetchone() or (0, None)
        return f"{rows} rows, {total}"

    def setting(self, name: str) -> str:
        return str(self._value(f"SHOW {name}"))

    def _wal_bytes(self) -> int:
        return int(self._value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

    def _cpu_seconds(self) -> float | None:
        """Of the server and all its processes, ended ones included; None without /proc."""
        ticks = 0
        with contextlib.suppress(OSError):
            for pid in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    # The fields after the name, which may contain anything: state, parent, ..., utime, stime and
                    # the children's.
                    fields = (pid / "stat").read_text().rpartition(")")[2].split()
                    if self.server.pid in (int(pid.name), int(fields[1])):
                        ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK") if ticks else None

    def _admin(self, *statements: str) -> None:
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def _value(self, query: str) -> Any:
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def _dsn(self, name: str) -> str:
        return self.server.dsn.replace(f"/{DATABASE}?", f"/{name}?")


@contextlib.contextmanager
def opened(
    settings: Settings, report: Callable[[str], None], *, keep: bool = False
) -> Iterator[Place]:
    """A place below CP_HOME; `keep` leaves its files and data folder for the next one.

    It never uses DATABASE_URL: figures of a server with other users and other settings could not be compared. Raises
    BenchBusy.
    """
    home = settings.home / "bench"
    home.mkdir(parents=True, exist_ok=True)
    # If we are root, the server runs as another user, who has to pass through this folder.
    home.chmod(0o711)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchBusy from None
        try:
            place = Place(home, settings, report)
            try:
                yield place
            finally:
                embedded.release(place.server)
        finally:
            if not keep:
                embedded.stop(home / "server", force=True)
                shutil.rmtree(home, ignore_errors=True)
