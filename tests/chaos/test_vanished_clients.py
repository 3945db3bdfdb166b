"""A client whose network is cut says no farewell. In a network of its own, which can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.api import READY_S, Api
from support.databases import environment

NOTICED_S = 30
HEARTBEAT_MS = 13_000  # the worst: just before silence would have been noticed


def has_networks() -> bool:
    """Whether a network can be made and set up here."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    command = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("heartbeat_ms", [HEARTBEAT_MS, 3_600_000])
def test_a_vanished_client_is_noticed_within_30_seconds(dsn, tmp_path, heartbeat_ms):
    if not has_networks():
        pytest.skip("no right to make a network (unshare -n, ip)")
    # PostgreSQL is reached over a Unix socket, which no network cuts.
    ended = subprocess.run(
        ["unshare", "-n", sys.executable, __file__, str(tmp_path), dsn, str(heartbeat_ms)],
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=READY_S + NOTICED_S + 20,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    print(ended.stdout)


def cut(folder: Path, dsn: str, heartbeat_ms: str) -> None:
    """Runs in the network that is cut."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    api = Api(folder, DATABASE_URL=dsn, SSE_HEARTBEAT_MS=heartbeat_ms).start()
    try:
        stream = api.wait_ready().stream()
        assert stream.message().kind == "snapshot"
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        began = time.monotonic()
        # The line of a request is written when it ends.
        api.line('"path":"/api/v1/customers/progress/stream"', NOTICED_S)
        print(f"noticed after {time.monotonic() - began:.1f} s")
    finally:
        api.close()


if __name__ == "__main__":
    cut(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
