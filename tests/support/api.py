"""A real server process: started, asked over HTTP, read to the byte, killed.

`Api` is `customer-panel serve` in a process of its own. `ok` and `failed` take an answer out of its
envelope, and hold the envelope against the contract on the way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from customer_panel import _native
from support.databases import Databases, command, environment
from support.sse import Message as Message  # for those that look here
from support.sse import Stream as Stream

READY_S = 20.0  # the machine may run two workers and their servers
ANSWER_S = 10.0
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    503: "UNAVAILABLE",
}

# -- envelopes ------------------------------------------------------------------------------------


def ok(response: httpx.Response, status: int = 200) -> Any:
    """The payload of a success envelope that is as the contract has it."""
    assert response.status_code == status, response.text
    told = response.json()
    assert set(told) == {"success", "statusCode", "message", "data", "meta"}, told
    assert told["success"] is True
    assert told["statusCode"] == status
    assert isinstance(told["message"], str)
    assert told["message"]
    _meta(response, told)
    return told["data"]


def failed(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an error envelope that is as the contract has it."""
    assert response.status_code == status, response.text
    told = response.json()
    assert set(told) == {"success", "statusCode", "error", "meta"}, told
    assert told["success"] is False
    assert told["statusCode"] == status
    error: dict[str, Any] = told["error"]
    assert set(error) == {"code", "message", "details"}, error
    assert error["code"] == CODES[status]
    assert isinstance(error["message"], str)
    assert error["message"]
    if error["details"] is not None:
        assert error["details"], "null, not an empty list"
        for detail in error["details"]:
            assert set(detail) == {"field", "message"}
            assert isinstance(detail["field"], str)
            assert isinstance(detail["message"], str)
    _meta(response, told)
    return error


def _meta(response: httpx.Response, told: dict[str, Any]) -> None:
    assert response.headers["content-type"].partition(";")[0] == "application/json"
    assert set(told["meta"]) == {"timestamp", "traceId", "version"}
    assert TIME.fullmatch(told["meta"]["timestamp"])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", told["meta"]["traceId"])
    assert told["meta"]["version"] == "1"


# -- the server -----------------------------------------------------------------------------------


class Api:
    """`customer-panel serve` in `folder`, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = {"PORT": self.port, **settings}
        self.log: list[str] = []
        self._told = threading.Condition()
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

        waited_for(is_ready, timeout, lambda: f"not ready: {self.output}")
        return self

    def line(self, pattern: str, timeout: float = ANSWER_S) -> str:
        """The first line of the server's output that matches, perhaps in a while."""
        with self._told:
            assert self._told.wait_for(lambda: self.lines(pattern), timeout), self.output
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
        seen: dict[str, Any] = {}

        def is_there() -> bool:
            seen.clear()
            seen.update(self.progress())
            return seen["status"] in statuses and job in (None, seen["jobId"])

        waited_for(is_there, timeout, lambda: f"{statuses} not seen, but {seen}\n{self.output}")
        return seen

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
            with self._told:
                self.log.append(line)
                self._told.notify_all()


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def waited_for(
    is_so: Callable[[], bool], timeout: float, complaint: Callable[[], str] = lambda: "not in time"
) -> float:
    """How many seconds it took until `is_so()`; looks every 10 ms."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < timeout, complaint()
        time.sleep(0.01)
    return time.monotonic() - began


def in_parallel(number: int, work: Callable[[int], Any]) -> list[Any]:
    """What so many calls of `work` gave, all let go at once; raises what one of them raised."""
    barrier = threading.Barrier(number)

    def call(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(call, range(number)))


# -- what a test needs beside it ------------------------------------------------------------------


def csv(path: Path, rows: int, **how: Any) -> Path:
    """A generated file of customers."""
    _native.generate(str(path), rows, **how)
    return path


@contextlib.contextmanager
def held(dsn: str) -> Iterator[Callable[[], None]]:
    """Every import waits before its first row, reads go on. Yields what lets them go."""
    with psycopg.connect(dsn) as gate:
        gate.execute("LOCK TABLE customers IN SHARE MODE")
        yield gate.rollback


@contextlib.contextmanager
def held_midway(dsn: str, start: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """As `held`, but some batches of the import that `start` starts are in."""
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn) as gate:
        listener.execute("LISTEN customer_panel")
        start()
        for notice in listener.notifies(timeout=30):
            if "lane" in json.loads(notice.payload):
                break
        gate.execute("LOCK TABLE customers IN SHARE MODE")
        yield gate.rollback


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
