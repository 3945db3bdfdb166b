"""The files of an embedded PostgreSQL, and how its programs are run.

Makes a data folder, starts a server on it and explains a failed start. When this happens is decided
in embedded.py, under its locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

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
    SocketTrouble,
)

DATABASE = "customer_panel"
PORT = 5432  # names the socket file only; nothing listens on the network
POLL_S = 0.005  # a start takes 0.1 s: a shorter interval gains nothing, a longer one is noticed
FULL_BYTES = 16 << 20  # one segment of WAL: a start may need this much
SOCKET_PATH_BYTES = 103  # macOS allows 104 with the final NUL, Linux 108


def tuning() -> dict[str, str]:
    """Settings that differ from PostgreSQL's defaults; none of them changes durability."""
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        # A quarter of the memory as PostgreSQL advises; above 1 GB a load gains nothing.
        "shared_buffers": f"{min(_memory_bytes() // 4, 1 << 30) >> 20}MB",
        # No checkpoint in the middle of a load: after each, full pages go into the WAL again.
        "max_wal_size": "8GB",
        "checkpoint_timeout": "30min",
        # No replica connects to a private socket; without replicas new tables need less WAL.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        # The key of 2,000,000 customers is sorted in memory, not on disk.
        "maintenance_work_mem": "256MB",
        # Our statements handle a batch or a page: compiling a plan costs more than running it.
        "jit": "off",
        # The backend of a killed client must end within a second, not at its next reply.
        "client_connection_check_interval": "500ms",
        # The log is read after a crash; it must not hold values of customers.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
    }


class Place:
    """The paths below CP_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.lock = self.folder / "lock"
        self.users = self.folder / "users"
        self.running = self.folder / "running"
        self.kept = self.folder / "kept"

    def make(self) -> None:
        """Raises HomeUnusable or DiskFull."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            if not self.folder.exists():
                self.folder.mkdir(exist_ok=True)
                # Other users may pass through it, not list it; what is inside has its own rights.
                self.folder.chmod(0o711)
        except OSError as error:
            raise unusable(self.folder, error) from None

    def pid_file(self) -> tuple[str, str, str]:
        """(process id, socket folder, state) as the server wrote them; empty until it has."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return "", "", ""
        except OSError as error:
            raise unusable(self.data, error) from None
        lines += [""] * 8
        return lines[0].strip(), lines[4].strip(), lines[7].strip()


# -- locks ----------------------------------------------------------------------------------------


def opened(path: Path) -> int:
    """A descriptor of a lock file. Raises HomeUnusable or DiskFull."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from None


def is_held(path: Path, kind: int = fcntl.LOCK_SH) -> bool:
    """Whether a lock is held that conflicts with `kind`. Checks with LOCK_SH do not conflict."""
    descriptor = opened(path)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def unusable(path: Path, error: OSError) -> CustomerPanelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk is full: {path}")
    return HomeUnusable(f"CP_HOME cannot be used: {path}: {error.strerror}")


# -- start ----------------------------------------------------------------------------------------


def start(place: Place, pg_bin: Path | None) -> None:
    """Starts a server on `place`, with a new data folder if there is none; returns when it is ready.

    Raises EmbeddedError or DiskFull. The caller holds `place.lock` and has checked that
    `place.running` is free. Waits for the recovery after a crash, which may take a while.
    """
    account = account_for(place.data, place.home)
    binaries = within_reach(find_binaries(pg_bin), account)
    _check_data_folder(place)
    if not (place.data / "PG_VERSION").exists():
        _initdb(place, binaries, account)
    _clear_stale(place)
    socket = _make_socket_folder(place, account)
    command = [binaries.program("postgres"), "-D", _usable_path(place.data, account)]
    command += ["-k", str(socket), "-p", str(PORT)]
    for name, value in tuning().items():
        command += ["-c", f"{name}={value}"]
    running = opened(place.running)
    try:
        fcntl.flock(running, fcntl.LOCK_EX)
        with _new_log(place) as log:
            # The shell starts it in the background and ends, so it is not our child: a kill of our
            # process group does not reach it, and its end leaves no zombie here.
            _run(["/bin/sh", "-c", '"$@" &', "sh", *command], place.data, account, log, running)
    finally:
        os.close(running)  # the server has inherited the lock
    while place.pid_file()[2] != "ready":
        if not is_held(place.running):
            if shutil.disk_usage(place.folder).free < FULL_BYTES:
                raise DiskFull  # the log may lack the line that reports it
            raise _explained(place.log.read_text(errors="replace"))
        time.sleep(POLL_S)


def _initdb(place: Place, binaries: Binaries, account: Account | None) -> None:
    """Makes the data folder, completely or not at all."""
    new = place.folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(mode=0o700)
        _give(new, account)
    except OSError as error:
        raise unusable(new, error) from None
    # The C library of macOS has no C.UTF-8. The order of text is the builtin locale's in any case.
    locale = "C" if sys.platform == "darwin" else "C.UTF-8"
    command = [binaries.program("initdb"), "-D", _usable_path(new, account), "-A", "trust"]
    command += ["-U", "postgres", "-E", "UTF8", "--locale-provider=builtin"]
    command += [f"--locale={locale}", "--builtin-locale=C.UTF-8", "--no-instructions"]
    # Through a pipe: on a full disk a log file would lack the line that reports it.
    done = _run(command, new, account, subprocess.PIPE)
    if done.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise _explained(done.stdout.decode(errors="replace"))
    if place.data.exists():
        place.data.rmdir()  # empty: _check_data_folder has made sure of it
    new.rename(place.data)
    folder = os.open(place.folder, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _run(
    command: list[str], folder: Path, account: Account | None, out: IO[bytes] | int, *inherited: int
) -> subprocess.CompletedProcess[bytes]:
    """Runs a PostgreSQL program in `folder`, as `account`."""
    kept = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    become: dict[str, Any] = {}
    if account is not None:
        become = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return subprocess.run(
        command,
        cwd=folder,
        # The user's PGDATA and PGOPTIONS must not reach this server; nor must secrets.
        env={name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        pass_fds=inherited,
        start_new_session=True,
        check=False,
        **become,
    )


def _new_log(place: Place) -> IO[bytes]:
    """An empty log; the log of the previous start is kept as server.log.old."""
    try:
        if place.log.exists():
            place.log.replace(place.log.with_suffix(".log.old"))
        return place.log.open("wb")
    except OSError as error:
        raise unusable(place.log, error) from None


def _usable_path(folder: Path, account: Account | None) -> str:
    """A path of the working folder `folder` that `account` can use.

    Root's home is closed to `nobody`, but the working folder is not: it is entered before root's
    rights are dropped, and PostgreSQL's own paths are relative to it.
    """
    closed = None if account is None else barrier(folder, account)
    if closed is None:
        return str(folder)
    if not sys.platform.startswith("linux"):
        raise HomeUnusable(f"{closed} is closed to the account that PostgreSQL runs as")
    return "/proc/self/cwd"


def _check_data_folder(place: Place) -> None:
    try:
        found = (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if place.data.exists() and any(place.data.iterdir()):
            raise DataFolderInvalid(f"{place.data} is not a data folder of PostgreSQL's") from None
        return
    except OSError as error:
        raise unusable(place.data, error) from None
    if found != str(MAJOR):
        raise DataFolderVersion(
            f"{place.data} was made by PostgreSQL {found}, the binaries are PostgreSQL {MAJOR}"
        )


def is_server(pid: str, data: Path) -> bool:
    """Whether process `pid` is a PostgreSQL on `data`; True where that cannot be checked."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        # Empty for a zombie, which a container without an init keeps forever.
        if b"postgres" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except PermissionError:
        return True
    except OSError:
        return False


def _clear_stale(place: Place) -> None:
    """Removes the files of a killed server: after a reboot its id may be another process's."""
    pid, socket, _ = place.pid_file()
    if not pid or not sys.platform.startswith("linux"):  # elsewhere PostgreSQL checks this itself
        return
    if is_server(pid, place.data):
        raise EmbeddedError(
            f"process {pid}, not started by Customer Panel, is a server on {place.data}",
            hint=f"Stop it: kill -INT {pid}.",
        )
    (place.data / "postmaster.pid").unlink(missing_ok=True)
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        Path(socket, name).unlink(missing_ok=True)


def _make_socket_folder(place: Place, account: Account | None) -> Path:
    """A folder that only the server's account can use; beside the data if that path can be used."""
    folder = place.folder / "socket"
    name = os.fsencode(folder / f".s.PGSQL.{PORT}.lock")
    # In the setting, a list of folders, commas and quotes have a meaning.
    is_plain = len(name) <= SOCKET_PATH_BYTES and re.fullmatch(rb"[\w/.+-]+", name)
    if not is_plain or (account is not None and barrier(place.folder, account) is not None):
        digest = hashlib.sha256(os.fsencode(place.folder.resolve())).hexdigest()[:12]
        folder = Path(f"/tmp/customer-panel-{digest}")  # noqa: S108 - its owner is checked below
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            _give(folder, account)
        found = folder.lstat()
    except OSError as error:
        raise SocketTrouble(f"{folder}: {error.strerror}") from None
    # In /tmp another user could have made it before us.
    owner = os.geteuid() if account is None else account.uid
    if folder.is_symlink() or found.st_uid != owner or found.st_mode & 0o077:
        raise SocketTrouble(
            f"{folder} exists and is not a private folder of the server's account",
            hint=f"Remove {folder}.",
        )
    return folder


def _explained(log: str) -> CustomerPanelError:
    """The error of a server that did not start, from its log: it reports the reason only as text."""
    lines = [line for line in log.splitlines() if re.search("FATAL|PANIC|ERROR|error:", line)]
    reason = re.sub(r"^.*?(?:FATAL|PANIC|ERROR|error):\s*", "", lines[-1]) if lines else log[-300:]
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return DiskFull(f"the disk is full: {reason}")
    if re.search("Unix.domain socket|Unix address", log):
        return SocketTrouble(f"the embedded PostgreSQL could not open its socket: {reason}")
    return EmbeddedError(f"the embedded PostgreSQL did not start: {reason or 'it said nothing'}")


# -- small things ---------------------------------------------------------------------------------


def dsn(socket: str, database: str = DATABASE) -> str:
    return f"postgresql://postgres@/{database}?host={quote(socket, safe='')}&port={PORT}"


def _give(folder: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _memory_bytes() -> int:
    """The machine's memory, or the container's share of it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
