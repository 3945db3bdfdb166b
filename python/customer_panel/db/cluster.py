"""The files of an embedded PostgreSQL, and how its programs are run.

Knows how to make a data folder, start a server on it and say why that failed. Takes no decision
about when: that is embedded.py's, under its locks.
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
POLL_S = 0.005  # a start takes 0.1 s: looking more often gains nothing, less often shows
FULL_BYTES = 16 << 20  # one segment of WAL, the least that a start may need
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


class Place:
    """The names of what lies below CP_HOME."""

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
                # Passable, not readable: what lies inside has its own rights.
                self.folder.chmod(0o711)
        except OSError as wrong:
            raise unusable(self.folder, wrong) from None

    def pid_file(self) -> tuple[str, str, str]:
        """(process number, socket folder, state) as the server wrote them; empty before."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return "", "", ""
        except OSError as wrong:
            raise unusable(self.data, wrong) from None
        lines += [""] * 8
        return lines[0].strip(), lines[4].strip(), lines[7].strip()


# -- locks ----------------------------------------------------------------------------------------


def opened(path: Path) -> int:
    """A handle of a lock file. Raises HomeUnusable or DiskFull."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as wrong:
        raise unusable(path, wrong) from None


def is_held(path: Path, kind: int = fcntl.LOCK_SH) -> bool:
    """Whether somebody holds a lock that `kind` does not go with. Shared: askers do not clash."""
    handle = opened(path)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def unusable(path: Path, wrong: OSError) -> CustomerPanelError:
    if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk is full: {path}")
    return HomeUnusable(f"CP_HOME cannot be used: {path}: {wrong.strerror}")


# -- start ----------------------------------------------------------------------------------------


def start(place: Place, pg_bin: Path | None) -> None:
    """A server on `place` that is ready for connections; the data folder is made if missing.

    Raises EmbeddedError or DiskFull. The caller holds `place.lock` and has seen `place.running`
    free. Recovery after a crash may take a while; it is waited for.
    """
    account = account_for(place.data, place.home)
    binaries = within_reach(find_binaries(pg_bin), account)
    _check_data_folder(place)
    if not (place.data / "PG_VERSION").exists():
        _initdb(place, binaries, account)
    _clear_stale(place)
    socket = _make_socket_folder(place, account)
    command = [binaries.program("postgres"), "-D", _seen(place.data, account)]
    command += ["-k", str(socket), "-p", str(PORT)]
    for name, value in tuning().items():
        command += ["-c", f"{name}={value}"]
    running = opened(place.running)
    try:
        fcntl.flock(running, fcntl.LOCK_EX)
        with _new_log(place) as log:
            # The shell puts it into the background and ends, so that it is nobody's child: a kill
            # of our process group does not reach it, and its end leaves us no zombie.
            _run(["/bin/sh", "-c", '"$@" &', "sh", *command], place.data, account, log, running)
    finally:
        os.close(running)  # the server has it by now
    while place.pid_file()[2] != "ready":
        if not is_held(place.running):
            if shutil.disk_usage(place.folder).free < FULL_BYTES:
                raise DiskFull  # the log may lack the line that says so
            raise _explained(place.log.read_text(errors="replace"))
        time.sleep(POLL_S)


def _initdb(place: Place, binaries: Binaries, account: Account | None) -> None:
    """A new data folder, complete or not there at all."""
    new = place.folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(mode=0o700)
        _give(new, account)
    except OSError as wrong:
        raise unusable(new, wrong) from None
    # Not C.UTF-8 on macOS: its C library lacks the name; what sorts is the builtin one anyway.
    locale = "C" if sys.platform == "darwin" else "C.UTF-8"
    command = [binaries.program("initdb"), "-D", _seen(new, account), "-A", "trust"]
    command += ["-U", "postgres", "-E", "UTF8", "--locale-provider=builtin"]
    command += [f"--locale={locale}", "--builtin-locale=C.UTF-8", "--no-instructions"]
    # Through a pipe: on a full disk a log would lack the very line that says so.
    done = _run(command, new, account, subprocess.PIPE)
    if done.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise _explained(done.stdout.decode(errors="replace"))
    if place.data.exists():
        place.data.rmdir()  # empty: _check_data_folder has seen to it
    new.rename(place.data)
    folder = os.open(place.folder, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _run(
    command: list[str], folder: Path, account: Account | None, out: IO[bytes] | int, *inherited: int
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program of PostgreSQL's in `folder`, as `account`."""
    kept = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    become: dict[str, Any] = {}
    if account is not None:
        become = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return subprocess.run(
        command,
        cwd=folder,
        # A PGDATA or PGOPTIONS of the user's must not reach this server; nor do secrets.
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
    """An empty log; the one of the start before is kept for the curious."""
    try:
        if place.log.exists():
            place.log.replace(place.log.with_suffix(".log.old"))
        return place.log.open("wb")
    except OSError as wrong:
        raise unusable(place.log, wrong) from None


def _seen(folder: Path, account: Account | None) -> str:
    """The name of the working folder for a program that may not walk there.

    Root's home is closed to `nobody`, but the working folder, entered before root's rights are
    dropped, is not; PostgreSQL names everything relative to it.
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
    except OSError as wrong:
        raise unusable(place.data, wrong) from None
    if found != str(MAJOR):
        raise DataFolderVersion(
            f"{place.data} was made by PostgreSQL {found}, the binaries are PostgreSQL {MAJOR}"
        )


def is_server(pid: str, data: Path) -> bool:
    """Whether process `pid` is a PostgreSQL on `data`; True where that cannot be found out."""
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
    """Removes what a killed server left: after a reboot its number may be another process's."""
    pid, socket, _ = place.pid_file()
    if not pid or not sys.platform.startswith("linux"):  # elsewhere PostgreSQL's own check must do
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
    """A folder of the server's account alone, near the data if the path is short and plain."""
    folder = place.folder / "socket"
    name = os.fsencode(folder / f".s.PGSQL.{PORT}.lock")
    # Plain: the setting is a list with commas and quotes.
    is_plain = len(name) <= SOCKET_PATH_BYTES and re.fullmatch(rb"[\w/.+-]+", name)
    if not is_plain or (account is not None and barrier(place.folder, account) is not None):
        digest = hashlib.sha256(os.fsencode(place.folder.resolve())).hexdigest()[:12]
        folder = Path(f"/tmp/customer-panel-{digest}")  # noqa: S108 - its owner is checked below
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
        raise SocketTrouble(
            f"{folder} exists and is not a private folder of the server's account",
            hint=f"Remove {folder}.",
        )
    return folder


def _explained(log: str) -> CustomerPanelError:
    """What the log of a server that did not start means. There is no other channel but text."""
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
