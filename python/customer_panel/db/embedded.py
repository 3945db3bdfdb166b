"""The life of the embedded PostgreSQL: one server for each CP_HOME, shared by who wants it.

Three locks in CP_HOME/postgres make it so, all of the kind that the kernel drops when a process
dies, however it dies:

- `lock` is held while somebody starts or stops the server;
- `users` is held, shared, by everyone who uses it: who gets it exclusively was the last;
- `running` is inherited by the server and all its children: who gets it knows that none is left.

So nobody trusts a process number, there are never two servers on one data folder, and who finds
a server after a kill -9 of its starter may use it, and stops it when done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg

from customer_panel.db.binaries import (
    MAJOR,
    Account,
    Binaries,
    account_for,
    barrier,
    find_binaries,
    within_reach,
)
from customer_panel.errors import (
    CustomerPanelError,
    DataFolderInvalid,
    DataFolderVersion,
    DiskFull,
    EmbeddedError,
    HomeUnusable,
    InUse,
    SocketTrouble,
)

DATABASE = "customer_panel"
PORT = 5432  # names the socket file only; nothing listens on the network
POLL_S = 0.005  # a start takes 0.1 s: looking more often gains nothing, less often shows
PATIENCE_S = 60.0  # for a server that neither answers nor goes away
LEAVING_S = 1.0  # for a backend whose client has just closed; they take milliseconds
SOCKET_PATH_BYTES = 103  # macOS allows 104 with the final NUL, Linux 108


def tuning() -> dict[str, str]:
    """What differs from PostgreSQL's defaults; durability (fsync, full pages) is untouched."""
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        # A quarter of the memory as PostgreSQL advises; above 1 GB a load gains nothing.
        "shared_buffers": f"{min(_memory_bytes() // 4, 1 << 30) >> 20}MB",
        # No checkpoint in the middle of a load: each would bring full pages into the WAL again.
        "max_wal_size": "8GB",
        "checkpoint_timeout": "30min",
        # No replica can attach to a socket of our own; new tables then need less WAL.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        # The key of 2,000,000 customers is sorted in memory, not on disk.
        "maintenance_work_mem": "256MB",
        # Compiling a plan costs more than our statements, which touch a batch or a page.
        "jit": "off",
        # A killed client's backend must notice within a second, not at its next reply.
        "client_connection_check_interval": "500ms",
        # The log is ours to read after a crash; customers' values do not belong there.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
    }


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that we use; give it back with `release`."""

    dsn: str
    pid: int
    data: Path
    home: Path
    is_started_here: bool
    users: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """What can be said without starting anything. `pid` and `dsn` are None when it is down."""

    data: Path
    log: Path
    is_kept: bool
    pid: int | None
    dsn: str | None


class _Place:
    """The files below CP_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.lock = self.folder / "lock"
        self.users = self.folder / "users"
        self.running = self.folder / "running"
        self.kept = self.folder / "kept"


def ensure_running(home: Path, pg_bin: Path | None = None) -> Server:
    """The server of `home`, started if need be, ready for connections.

    Raises EmbeddedError or DiskFull; which subclass says what to do. Waits for a start, a stop or
    a recovery that is under way.
    """
    place = _Place(home)
    _make_home(place)
    with _locked(place.lock):
        users = _opened(place.users)
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            is_found = _found_running(place)
            if not is_found:
                _start(place, pg_bin)
            pid, socket = _pid_file(place)[:2]
            _make_database(socket)
        except BaseException:
            os.close(users)
            raise
    return Server(_dsn(socket), int(pid), place.data, home, not is_found, users)


def release(server: Server) -> bool:
    """Gives the server back; True if it was stopped, because nobody else uses it or wants it kept.

    Our own connections must be closed by now.
    """
    place = _Place(server.home)
    with _locked(place.lock):
        os.close(server.users)
        if place.kept.exists() or _is_used(place):
            return False
        _stop(place)
        return True


def up(home: Path, pg_bin: Path | None = None) -> Server:
    """Starts the server and keeps it until `stop`. The result needs no `release`."""
    server = ensure_running(home, pg_bin)
    _Place(home).kept.touch()
    os.close(server.users)
    return server


def stop(home: Path, *, force: bool = False) -> bool:
    """Stops the server and no longer keeps it; False if it was not running.

    Raises InUse while others use it, unless `force`.
    """
    place = _Place(home)
    if not place.folder.is_dir():
        return False
    with _locked(place.lock):
        is_running = _is_held(place.running)
        if is_running and not force and _is_used(place):
            raise InUse
        place.kept.unlink(missing_ok=True)
        if is_running:
            _stop(place)
    return is_running


def status(home: Path) -> Status:
    place = _Place(home)
    pid, socket, state = _pid_file(place)
    is_up = state == "ready" and place.running.exists() and _is_held(place.running)
    return Status(
        place.data,
        place.log,
        place.kept.exists(),
        int(pid) if is_up else None,
        _dsn(socket) if is_up else None,
    )


# -- start ----------------------------------------------------------------------------------------


def _found_running(place: _Place) -> bool:
    """True when a server answers; False when none is left, perhaps after waiting for it to go."""
    deadline = time.monotonic() + PATIENCE_S
    while _is_held(place.running):
        _, socket, state = _pid_file(place)
        if state == "ready" and _answers(socket):
            return True
        if state != "starting" and time.monotonic() > deadline:
            raise EmbeddedError(f"the server of {place.data} neither answers nor goes away")
        time.sleep(POLL_S)
    return False


def _start(place: _Place, pg_bin: Path | None) -> None:
    account = account_for(place.data, place.home)
    binaries = within_reach(find_binaries(pg_bin), account)
    _check_data_folder(place)
    if not place.data.exists():
        _initdb(place, binaries, account)
    _clear_stale(place)
    socket = _make_socket_folder(place, account)
    if place.log.exists():
        place.log.replace(place.log.with_suffix(".log.old"))
    command = [binaries.program("postgres"), "-D", _seen(place.data, account)]
    command += ["-k", str(socket), "-p", str(PORT)]
    for name, value in tuning().items():
        command += ["-c", f"{name}={value}"]
    running = _opened(place.running)
    try:
        fcntl.flock(running, fcntl.LOCK_EX)
        with place.log.open("wb") as log:
            # The shell puts it into the background and ends, so that it is nobody's child: a kill
            # of our process group does not reach it, and its end leaves us no zombie.
            _run(["/bin/sh", "-c", '"$@" &', "sh", *command], place.data, account, log, running)
    finally:
        os.close(running)  # the server has it by now
    while _pid_file(place)[2] != "ready":
        if not _is_held(place.running):
            raise _explained(place.log.read_text(errors="replace"))
        time.sleep(POLL_S)


def _initdb(place: _Place, binaries: Binaries, account: Account | None) -> None:
    """A new data folder, complete or not there at all."""
    new = place.folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    _give(new, account)
    # Not C.UTF-8 on macOS: its C library lacks the name; what sorts is the builtin one anyway.
    locale = "C" if sys.platform == "darwin" else "C.UTF-8"
    command = [binaries.program("initdb"), "-D", _seen(new, account), "-A", "trust", "-U"]
    command += ["postgres", "-E", "UTF8", "--locale-provider=builtin", f"--locale={locale}"]
    command += ["--builtin-locale=C.UTF-8", "--no-instructions"]
    with place.log.open("wb") as log:
        code = _run(command, new, account, log)
    if code != 0:
        said = place.log.read_text(errors="replace")
        shutil.rmtree(new, ignore_errors=True)
        raise _explained(said)
    if place.data.exists():
        place.data.rmdir()  # empty: _check_data_folder has seen to it
    new.rename(place.data)
    folder = os.open(place.folder, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _run(
    command: list[str], folder: Path, account: Account | None, log: object, *inherited: int
) -> int:
    """Runs a program of PostgreSQL's in `folder`, as `account`; its exit code."""
    kept = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return subprocess.run(
        command,
        cwd=folder,
        # A PGDATA or PGOPTIONS of the user's must not reach this server; nor do secrets.
        env={name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=log,  # type: ignore[arg-type]
        stderr=log,  # type: ignore[arg-type]
        pass_fds=inherited,
        start_new_session=True,
        check=False,
        **({} if account is None else dict(user=account.uid, group=account.gid, extra_groups=[])),  # type: ignore[call-overload]
    ).returncode


def _seen(folder: Path, account: Account | None) -> str:
    """The name of the working folder for a program that may not walk there.

    Root's home is closed to `nobody`, but the working folder, entered before root's rights are
    dropped, is not; PostgreSQL names everything relative to it.
    """
    if account is None or barrier(folder, account) is None:
        return str(folder)
    if not sys.platform.startswith("linux"):
        raise HomeUnusable(f"{barrier(folder, account)} is closed to the account of PostgreSQL")
    return "/proc/self/cwd"


def _check_data_folder(place: _Place) -> None:
    try:
        found = (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if place.data.exists() and any(place.data.iterdir()):
            raise DataFolderInvalid(f"{place.data} is not a data folder of PostgreSQL's") from None
        return
    if found != str(MAJOR):
        raise DataFolderVersion(
            f"{place.data} was made by PostgreSQL {found}, the binaries are PostgreSQL {MAJOR}"
        )


def _clear_stale(place: _Place) -> None:
    """Removes what a killed server left: after a reboot its number may be another process's."""
    pid, socket, _ = _pid_file(place)
    if not pid:
        return
    with contextlib.suppress(OSError):
        if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes() and (
            os.path.samefile(f"/proc/{pid}/cwd", place.data)
        ):
            raise EmbeddedError(f"process {pid}, not started by us, is a server on {place.data}")
    if sys.platform.startswith("linux"):  # elsewhere PostgreSQL's own check must do
        (place.data / "postmaster.pid").unlink(missing_ok=True)
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        Path(socket, name).unlink(missing_ok=True)


def _explained(log: str) -> CustomerPanelError:
    """What the log of a server that did not start means. There is no other channel but text."""
    lines = [line for line in log.splitlines() if re.search("FATAL|PANIC|error:|ERROR", line)]
    reason = re.sub(r"^.*?(?:FATAL|PANIC|ERROR|error):\s*", "", lines[-1]) if lines else log[-300:]
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return DiskFull(f"the disk is full: {reason}")
    if re.search("Unix.domain socket|Unix address", log):
        return SocketTrouble(f"the embedded PostgreSQL could not open its socket: {reason}")
    return EmbeddedError(f"the embedded PostgreSQL did not start: {reason or 'it said nothing'}")


# -- stop -----------------------------------------------------------------------------------------


def _stop(place: _Place) -> None:
    """A fast shutdown: clients are sent away, everything is on disk. Returns when all are gone."""
    pid = _pid_file(place)[0]
    deadline = time.monotonic() + PATIENCE_S * 5  # the last checkpoint may write a gigabyte
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGINT)
    while _is_held(place.running):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server (process {pid}) does not stop; see {place.log}")
        time.sleep(POLL_S)


def _is_used(place: _Place) -> bool:
    """True while somebody else holds the server, or has a client connected (a psql, say)."""
    if _is_held(place.users, fcntl.LOCK_EX):
        return True
    deadline = time.monotonic() + LEAVING_S
    try:
        with psycopg.connect(_dsn(_pid_file(place)[1], "postgres"), autocommit=True) as connection:
            while True:
                others = connection.execute(
                    "SELECT FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).rowcount
                if not others or time.monotonic() > deadline:
                    return bool(others)
                time.sleep(POLL_S)
    except psycopg.OperationalError:
        return False  # it is dying by itself


# -- small things -------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = _opened(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_held(path: Path, kind: int = fcntl.LOCK_SH) -> bool:
    """Whether somebody holds a lock that `kind` does not go with. Shared: askers do not clash."""
    handle = _opened(path)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as wrong:
        raise _unusable(path, wrong) from None


def _unusable(path: Path, wrong: OSError) -> CustomerPanelError:
    if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk is full: {path}")
    return HomeUnusable(f"CP_HOME cannot be used: {path}: {wrong.strerror}")


def _make_home(place: _Place) -> None:
    try:
        place.home.mkdir(parents=True, exist_ok=True)
        if not place.folder.exists():
            place.folder.mkdir(exist_ok=True)
            # Passable, not readable: what lies inside has its own rights.
            place.folder.chmod(0o711)
    except OSError as wrong:
        raise _unusable(place.folder, wrong) from None


def _make_socket_folder(place: _Place, account: Account | None) -> Path:
    """A folder of the server's account alone, near the data if the path is short and plain."""
    folder = place.folder / "socket"
    name = os.fsencode(folder / f".s.PGSQL.{PORT}")
    is_plain = len(name) <= SOCKET_PATH_BYTES and re.fullmatch(rb"[\w/.+-]+", name)
    if not is_plain or (account is not None and barrier(place.folder, account) is not None):
        digest = hashlib.sha256(os.fsencode(place.folder.resolve())).hexdigest()[:12]
        folder = Path(f"/tmp/customer-panel-{digest}")  # noqa: S108 - checked below
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            _give(folder, account)
        found = folder.lstat()
    except OSError as wrong:
        raise SocketTrouble(f"{folder}: {wrong.strerror}") from None
    # In /tmp anyone could have made it before us.
    owner = os.geteuid() if account is None else account.uid
    if folder.is_symlink() or found.st_uid != owner or found.st_mode & 0o077:
        raise SocketTrouble(f"{folder} exists and is not a private folder of the server's account")
    return folder


def _give(folder: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _pid_file(place: _Place) -> tuple[str, str, str]:
    """(process number, socket folder, state) as the server wrote them; empty where it did not."""
    try:
        lines = (place.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return "", "", ""
    lines += [""] * 8
    return lines[0].strip(), lines[4].strip(), lines[7].strip()


def _dsn(socket: str, database: str = DATABASE) -> str:
    return f"postgresql://postgres@/{database}?host={quote(socket, safe='')}&port={PORT}"


def _answers(socket: str) -> bool:
    try:
        psycopg.connect(_dsn(socket, "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_database(socket: str) -> None:
    with psycopg.connect(_dsn(socket, "postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
        if not found.rowcount:
            connection.execute(f"CREATE DATABASE {DATABASE}")  # type: ignore[call-overload]


def _memory_bytes() -> int:
    """The machine's memory, or the container's share of it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
