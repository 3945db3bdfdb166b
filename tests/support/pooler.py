"""A real PgBouncer in front of the server of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from support.api import free_port
from support.databases import is_accepting
from support.waiting import wait_until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer"
)
READY_S = 20.0


@contextlib.contextmanager
def pooled(dsn: str, folder: Path, **settings: object) -> Iterator[str]:
    """The address of a pooler for the database of `dsn`; by default it pools transactions."""
    parts = conninfo_to_dict(dsn)
    port = free_port()
    folder.mkdir(mode=0o755)
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text('"postgres" ""\n')
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": 3,
        **settings,
    }
    lines = [f"{name} = {value}" for name, value in given.items()]
    config.write_text(
        f"[databases]\n* = host={parts['host']} port={parts['port']}\n[pgbouncer]\n"
        + "\n".join(lines)
        + "\n"
    )
    # Like the server it will not be run by root; nobody has to walk through to its files.
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    assert PROGRAM is not None
    process = subprocess.Popen(
        [PROGRAM, *account, str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"postgresql://postgres@127.0.0.1:{port}/{parts['dbname']}"

    def is_ready() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        return is_accepting(address)

    try:
        wait_until("the pooler is ready", is_ready, READY_S)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=READY_S)
