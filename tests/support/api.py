"""A real server process: started, asked over HTTP, read to the byte, killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.databases import Databases, command, environment
from support.envelope import ok
from support.sse import Stream
from support.waiting import wait_until

READY_S = 20.0  # the machine may run two workers and their servers
ANSWER_S = 10.0


class Api:
    """`customer-panel serve` in `folder`, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = {"PORT": self.port, **settings}
        self.log: list[str] = []
        self._has_line = threading.Condition()
        self.root = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=ANSWER_S)
        # As the existing frontends send it, with GETs too.
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            headers={"Content-Type": "application/json"},
            timeout=ANSWER_S,
        )

    def start(self) -> Api:
        """Returns at once; `wait_ready` waits."""
        self.process = subprocess.Popen(
            command("serve"),
            env=environment(**self.settings),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process], daemon=True)
        self._reader.start()
        return self

    def wait_ready(self, path: str = "/health/ready", timeout: float = READY_S) -> Api:
        """Waits until `path` is answered with 200."""

        def is_ready() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.output}"
            try:
                return self.root.get(path).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(f"the server is ready at {path}", is_ready, timeout, lambda: self.output)
        return self

    def line(self, pattern: str, timeout: float = ANSWER_S) -> str:
        """The first line of the server's output that matches, perhaps in a while."""
        with self._has_line:
            assert self._has_line.wait_for(lambda: self.lines(pattern), timeout), self.output
            return self.lines(pattern)[0]

    def lines(self, pattern: str) -> list[str]:
        return [line for line in self.log if re.search(pattern, line)]

    @property
    def output(self) -> str:
        return "".join(self.log)

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return self.http.get(path, params=query or None, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.post(path, json={} if body is None else body, headers=_names(headers))

    def patch(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.patch(path, json=body, headers=_names(headers))

    def delete(self, path: str, **headers: str) -> httpx.Response:
        return self.http.delete(path, headers=_names(headers))

    def sync(self, path: Path | None = None, **body: Any) -> dict[str, Any]:
        """Starts an import; the job as it was answered."""
        if path is not None:
            body["filePath"] = str(path)
        return dict(ok(self.post("/customers/sync", body)))

    def progress(self, **query: Any) -> dict[str, Any]:
        """The snapshot."""
        response = self.get("/customers/progress", **query)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def until(
        self, *statuses: str, timeout: float = 60.0, job: str | None = None
    ) -> dict[str, Any]:
        """The snapshot, once it shows one of the statuses (of this job)."""
        snapshot: dict[str, Any] = {}

        def is_there() -> bool:
            snapshot.clear()
            snapshot.update(self.progress())
            return snapshot["status"] in statuses and job in (None, snapshot["jobId"])

        what = f"import {job or ''} is {' or '.join(statuses)}"
        wait_until(what, is_there, timeout, lambda: f"{snapshot}\n{self.output}")
        return snapshot

    def stream(self, query: str = "", **headers: str) -> Stream:
        """A progress stream; refused ones too."""
        return Stream(self.port, f"/api/v1/customers/progress/stream{query}", _names(headers))

    def raw(self, request: bytes, timeout: float = ANSWER_S) -> bytes:
        """What comes back for these very bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(request)
            pieces = []
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(1 << 16):
                    pieces.append(piece)
            return b"".join(pieces)

    def rss_bytes(self) -> int:
        """What the server process has in memory now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """As the kernel would: no farewell."""
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def terminate(self, timeout: float = 30.0) -> float:
        """SIGTERM; how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout)
        seconds = time.monotonic() - began
        self._ended()
        return seconds

    def close(self) -> None:
        self.root.close()
        self.http.close()
        if self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def _ended(self) -> None:
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            with self._has_line:
                self.log.append(line)
                self._has_line.notify_all()


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


Serve = Callable[..., Api]


@contextlib.contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Api]:
    """A server that is ready, and ended in the end."""
    api = Api(folder, **settings).start()
    try:
        yield api.wait_ready()
    finally:
        api.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers with the settings given; all are ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(tmp_path, **settings))


@pytest.fixture(scope="module")
def shared_dsn(databases: Databases, template: str) -> Iterator[str]:
    """The database of `api`."""
    with databases.copy(template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only folder that `api` may import from."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def api(shared_dsn: str, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One server for the tests of a file, with a database of its own."""
    folder = tmp_path_factory.mktemp("api")
    with serving(folder, DATABASE_URL=shared_dsn, IMPORT_ROOTS=files) as api:
        yield api
