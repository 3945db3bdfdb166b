"""Our server in a process of its own, and its clients: wrk, requests at a fixed rate, streams."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from customer_panel.benchmarks.figures import Run
from customer_panel.errors import CustomerPanelError
from customer_panel.settings import SETTINGS

READY_S = 30.0
DIRECT = "one query a request"
# More threads of wrk would take processor time from the server that it measures.
THREADS = 1
# Requests the path followed by a random number from 1 to `last`; without `last`, the path alone.
SCRIPT = """
local path, last
function init(arguments)
  path, last = arguments[1], tonumber(arguments[2])
  math.randomseed(1)
end
function request()
  return wrk.format("GET", last and path .. math.random(1, last) or path)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"duration":%d,"requests":%d,"failed":%d,"p50":%d,"p99":%d}\\n', summary.duration, summary.requests,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
"""


class WrkMissing(CustomerPanelError):
    """The load generator wrk is not installed."""

    code = "wrk_missing"
    hint = "Install it (Debian and Ubuntu: apt install wrk; macOS: brew install wrk)."


class ServerEnded(CustomerPanelError):
    """The server of the benchmark has ended, or does not answer."""

    code = "server_ended"
    hint = "This is a defect; please report it with the command you ran."


def wrk() -> str:
    """The path of wrk. Raises WrkMissing."""
    found = shutil.which("wrk")
    if found is None:
        raise WrkMissing
    return found


class Served:
    """A server process. Its settings are the defaults: those of the environment are removed."""

    def __init__(self, dsn: str, roots: Path, log: Path, *, module: str = "customer_panel") -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        names = {setting.name for setting in SETTINGS}
        environment = {name: value for name, value in os.environ.items() if name not in names}
        environment |= {"DATABASE_URL": dsn, "IMPORT_ROOTS": str(roots), "PORT": str(self.port)}
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "serve"],
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/health/ready")[0] == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerEnded(f"the server does not answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def get(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Status and decoded JSON; None for a body that is not JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            payload = None if body is None else json.dumps(body).encode()
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, None

    def load(self, engine: str, path: str, connections: int, seconds: float, last: int = 0) -> Run:
        """Runs wrk. With `last`, a random number from 1 to it follows the path."""
        script = self._log.with_suffix(".lua")
        script.write_text(SCRIPT)
        command = [
            *(wrk(), f"-t{THREADS}", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
            *("-s", str(script), f"http://127.0.0.1:{self.port}", "--", path),
            *([str(last)] if last else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report = json.loads(done.stdout.strip().splitlines()[-1])
        if not report["requests"]:
            raise ServerEnded(f"{path} was not answered: {self._log.read_text()[-2000:]}")
        took = report["duration"] / 1e6
        return Run(
            engine=engine,
            seconds=took,
            facts={
                "requests_per_s": report["requests"] / took,
                "p50_ms": report["p50"] / 1e3,
                "p99_ms": report["p99"] / 1e3,
                "failed": report["failed"],
                "connections": connections,
            },
        )

    def sync(self, file: Path) -> str:
        """Starts an import; returns its number."""
        status, answer = self.get("/api/v1/customers/sync", "POST", {"filePath": str(file)})
        if status != 200:
            raise ServerEnded(f"the import was not started: {answer}")
        return str(answer["data"]["id"])

    def wait(self, job: str) -> dict[str, Any]:
        """Waits for the end of the job and returns it; checks ten times a second."""
        while True:
            found = dict(self.get(f"/api/v1/imports/{job}")[1]["data"])
            if found["status"] not in ("RUNNING", "INTERRUPTED"):
                if found["status"] != "COMPLETED":
                    raise ServerEnded(f"the import ended as {found['status']}: {found['error']}")
                return found
            time.sleep(0.1)

    def peak_rss_bytes(self) -> int | None:
        """The peak memory of the process; None without /proc."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
        return None

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def serving(
    dsn: str, roots: Path, home: Path, *, module: str = "customer_panel"
) -> Iterator[Served]:
    """A server that is ready, stopped after `with`."""
    server = Served(dsn, roots, home / "server.log", module=module)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


class Paced:
    """Requests random customers, `per_second`, even while earlier answers are not there yet.

    The time of an answer counts from when its request was due, so a pause of the server shows.
    """

    CONNECTIONS = 8

    def __init__(self, server: Served, per_second: float, last: int) -> None:
        self.milliseconds: list[float] = []
        self.failed = 0
        self._server, self._last = server, last
        self._every_s = per_second and self.CONNECTIONS / per_second
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=[number]) for number in range(self.CONNECTIONS)
        ]

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        due = self._began + number * self._every_s / self.CONNECTIONS
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            connection.request("GET", f"/api/v1/customers/{draw.randint(1, self._last)}")
            answer = connection.getresponse()
            answer.read()
            self.milliseconds.append((time.perf_counter() - due) * 1000)
            self.failed += answer.status not in (200, 404)
            due += self._every_s
        connection.close()

    def percentile(self, share: float) -> float:
        times = sorted(self.milliseconds)
        return times[min(len(times) - 1, int(len(times) * share))]


class Streams:
    """Open progress streams: the first `silent` are never read, the others all the time."""

    def __init__(self, server: Served, count: int, silent: int) -> None:
        self.messages = 0
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        for number in range(count):
            stream = socket.socket()
            if number < silent:
                # The smallest buffer: otherwise the kernel would receive much that is never read.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            stream.connect(("127.0.0.1", server.port))
            stream.sendall(
                b"GET /api/v1/customers/progress/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            )
            self._sockets.append(stream)
            if number >= silent:
                if b" 200 " not in stream.recv(1 << 16).partition(b"\r\n")[0]:
                    raise ServerEnded("a stream was refused")
                self._selector.register(stream, selectors.EVENT_READ)
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                payload = key.fileobj.recv(1 << 16)
                self.messages += payload.count(b"data: ")
                if not payload:
                    self._selector.unregister(key.fileobj)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._reader.join()
        for stream in self._sockets:
            stream.close()
        self._selector.close()
