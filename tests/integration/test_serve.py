"""`customer-panel serve` as a process: how it starts, refuses to, is watched, and ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psycopg
import pytest

import customer_panel
from customer_panel.db import embedded
from customer_panel.settings import SETTINGS
from support.api import Api, free_port, serving
from support.customers import csv, customer_body
from support.databases import command, environment
from support.envelope import failed, ok
from support.waiting import held, wait_until

ROOT = Path(__file__).parents[2]
FIRST_S, LATER_S = 2.0, 1.0  # to the first answer, on an idle machine
BUSY = 4  # times as long where two workers and their servers share two cores
STOPPED_S = 5.0

# -- the start ------------------------------------------------------------------------------------


def first_answer(api: Api) -> float:
    """Seconds from the start of the process to its first answer."""
    began = time.monotonic()
    api.start()
    request = b"GET /api/v1/customers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    def is_answered() -> bool:
        assert api.process.poll() is None, api.output
        try:
            answer = api.raw(request, timeout=20)
        except ConnectionRefusedError:
            return False
        assert answer.startswith(b"HTTP/1.1 200 ")
        return True

    wait_until("the first request is answered", is_answered, 30, lambda: api.output)
    return time.monotonic() - began


def test_an_empty_folder_is_all_it_takes(home, tmp_path):
    """No DATABASE_URL: it brings its PostgreSQL, and takes it away again."""
    api = Api(tmp_path, CP_HOME=home)
    try:
        took = first_answer(api)
        print(f"first answer on an empty folder: {took:.2f} s")
        assert took < FIRST_S * BUSY
        made = ok(api.post("/customers", customer_body()), 201)
        assert api.terminate() < STOPPED_S
        took = first_answer(api)
        print(f"first answer of a later start: {took:.2f} s")
        assert took < LATER_S * BUSY
        assert ok(api.get(f"/customers/{made['id']}")) == made
        line = api.line("^Customer Panel: ")
        assert f"http://localhost:{api.port}/api/v1" in line
        assert f"http://localhost:{api.port}/api/docs" in line
    finally:
        api.close()


def test_who_connects_while_it_starts_is_answered(dsn, tmp_path):
    """The socket listens before the server does."""
    api = Api(tmp_path, DATABASE_URL=dsn).start()
    try:
        wait_until("the port is open", lambda: is_open(api.port), 20)
        assert httpx.get(f"http://127.0.0.1:{api.port}/health/live", timeout=20).is_success
    finally:
        api.close()


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "panel.example"])
def test_an_open_address_without_a_key_is_refused(run, host):
    done = run("serve", HOST=host, PORT=0, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.returncode == 1
    assert f"error: {host} can be reached from other machines" in done.stderr
    for way in ("CP_API_KEYS", "127.0.0.1", "CP_ALLOW_NO_AUTH=1"):
        assert way in done.stderr.partition("hint:")[2]


@pytest.mark.parametrize(
    "setting", [{"CP_ALLOW_NO_AUTH": "1"}, {"CP_API_KEYS": "somebody-0123456789"}]
)
def test_who_says_so_may_serve_everybody(serve, dsn, setting):
    api = serve(DATABASE_URL=dsn, HOST="0.0.0.0", **setting)
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        assert connection
    # An address is no name that could be pointed somewhere.
    for name, status in (("192.0.2.7:80", 200), ("evil.example", 400)):
        assert api.root.get("/health/live", headers={"host": name}).status_code == status
    status = api.get("/customers").status_code
    assert status == (200 if "CP_ALLOW_NO_AUTH" in setting else 401)


def test_options_win_over_settings(dsn, tmp_path):
    port = free_port()
    root = tmp_path / "inbox"
    root.mkdir()
    path = csv(root / "few.csv", 10)
    process = subprocess.Popen(
        command("serve", "--host", "localhost", "--port", str(port), "--root", str(root)),
        env=environment(DATABASE_URL=dsn, HOST="192.0.2.1", PORT=1, IMPORT_ROOTS="/nowhere"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until("the port is open", lambda: is_open(port), 20)
        base = f"http://127.0.0.1:{port}/api/v1"
        answer = httpx.post(f"{base}/customers/sync", json={"filePath": str(path)}, timeout=20)
        assert answer.status_code == 200, answer.text
        with contextlib.suppress(OSError), socket.create_connection(("::1", port)) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_a_port_that_is_taken_is_named(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", PORT=port, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.returncode == 1
    assert f"error: another program listens on port {port} of 127.0.0.1" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_here_is_named(run, host):
    done = run("serve", HOST=host, CP_ALLOW_NO_AUTH=1, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.returncode == 1
    assert f"{host}" in done.stderr.partition("hint:")[0]
    assert "HOST" in done.stderr.partition("hint:")[2]


def test_a_schema_from_the_future_ends_the_start(run, dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO schema_migrations VALUES ('29990101000000')")
    done = run("serve", PORT=0, DATABASE_URL=dsn)
    assert done.returncode == 1
    assert "error: the database has migration 29990101000000" in done.stderr
    assert "hint: Upgrade Customer Panel" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_embedded_server_that_cannot_start_ends_the_start(run, tmp_path):
    (tmp_path / "home").write_text("a file")
    done = run("serve", PORT=0, CP_HOME=tmp_path / "home")
    assert done.returncode == 1
    assert "error: CP_HOME cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_streams_open_and_a_job_running(
    databases, template, tmp_path, number
):
    with databases.copy(template) as dsn:
        path = csv(tmp_path / "many.csv", 60_000)
        settings = {"DATABASE_URL": dsn, "IMPORT_ROOTS": tmp_path, "IMPORT_BATCH_SIZE": 1000}
        with serving(tmp_path, **settings) as api, contextlib.ExitStack() as stack:
            api.sync(path)
            streams = [stack.enter_context(api.stream()) for _ in range(5)]
            for stream in streams:
                stream.message()
            began = time.monotonic()
            api.process.send_signal(number)
            api.process.send_signal(number)  # impatience changes nothing
            api.process.wait(20)
            assert time.monotonic() - began < STOPPED_S
            assert api.process.returncode == 0
            for stream in streams:
                stream.rest()
                assert stream.is_ended
        with psycopg.connect(dsn) as conn:
            (status,) = conn.execute("SELECT status FROM imports").fetchone()
        assert status in ("INTERRUPTED", "COMPLETED")
        assert "Traceback" not in api.output


@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.6, 1.0])
def test_a_signal_during_the_start_leaves_nothing_running(home, tmp_path, after_s):
    """In the middle of initdb, of the imports, of the first connections."""
    api = Api(tmp_path, CP_HOME=home).start()
    time.sleep(after_s)  # each is a moment in another part of the start
    assert api.terminate() < STOPPED_S
    # Before it could know what to do with a signal, or after.
    assert api.process.returncode in (-signal.SIGTERM, 0), api.output
    wait_until("PostgreSQL is gone", lambda: embedded.status(home).pid is None, 20)
    assert "Traceback" not in api.output
    api.close()


def test_it_ends_in_time_whatever_hangs(databases, template, tmp_path):
    """A transaction of somebody else's holds the import; it is cut off, and goes on later."""
    with databases.copy(template) as dsn:
        path = csv(tmp_path / "few.csv", 2000)
        with serving(tmp_path, DATABASE_URL=dsn, IMPORT_ROOTS=tmp_path) as api:
            with held(dsn):
                api.sync(path)
                assert api.terminate() < STOPPED_S
                assert api.process.returncode == 0
            api.start().wait_ready().until("COMPLETED")


# -- how it is ------------------------------------------------------------------------------------


def test_live_and_ready(api):
    live = api.root.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    ready = api.root.get("/health/ready")
    checks = {"database": "ok", "migrations": "ok", "worker": "ok"}
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": checks})


def is_served(api: Api) -> bool:
    return api.get("/customers").status_code == 200


def test_health_while_the_database_is_away(databases, template, tmp_path):
    """It starts without it, tells what is missing, and mends itself."""
    with databases.copy(template) as dsn:
        name = dsn.partition("?")[0].rpartition("/")[2]
        databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        api = Api(tmp_path, DATABASE_URL=dsn).start()
        try:
            api.wait_ready("/health/live")
            ready = api.root.get("/health/ready")
            assert ready.status_code == 503
            assert int(ready.headers["retry-after"]) >= 1
            assert ready.json()["checks"] == {
                "database": "unavailable",
                "migrations": "unavailable",
                "worker": "ok",
            }
            for path in ("/customers", "/customers/1", "/customers/progress", "/imports"):
                began = time.monotonic()
                answer = api.get(path)
                failed(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
                assert time.monotonic() - began < 1
            for path in ("/metrics", "/api/docs", "/api/docs-json"):
                assert api.root.get(path).status_code == 200
            databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert wait_until("requests are answered", lambda: is_served(api), 20) < 2
            api.wait_ready()
            databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            databases.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            for path in ("/customers", "/customers/1"):
                began = time.monotonic()
                failed(api.get(path), 503)
                assert time.monotonic() - began < 3
            assert api.root.get("/health/ready").json()["checks"]["database"] == "unavailable"
            databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert wait_until("requests are answered", lambda: is_served(api), 20) < 2
            api.wait_ready()
        finally:
            api.close()


def test_metrics_count_what_happens(serve, dsn, tmp_path):
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=tmp_path)
    ok(api.post("/customers", customer_body()), 201)
    for number in range(3):
        api.get(f"/customers/{number}")
    failed(api.get("/nothing"), 404)
    api.sync(csv(tmp_path / "rows.csv", 500))
    done = api.until("COMPLETED")
    with api.stream() as stream:
        stream.message()
        found = figures(api)
    labels = 'customer_panel_requests_total{method="%s",route="%s",status="%s"}'
    assert found[labels % ("POST", "/api/v1/customers", 201)] == 1
    assert found[labels % ("GET", "/api/v1/customers/{id}", 404)] >= 1
    assert found[labels % ("GET", "unknown", 404)] == 1
    assert (
        found['customer_panel_request_seconds_count{method="GET",route="/api/v1/customers/{id}"}']
        == 3
    )
    rows = {
        outcome: int(found[f'customer_panel_import_rows_total{{outcome="{outcome}"}}'])
        for outcome in ("inserted", "updated", "unchanged", "protected", "duplicate", "skipped")
    }
    assert rows["inserted"] == int(done["rowsInserted"])
    assert sum(rows.values()) == int(done["rowsProcessed"])
    assert found["customer_panel_import_bytes_total"] == int(done["bytesTotal"])
    assert found["customer_panel_import_batches_total"] >= 1
    assert found["customer_panel_import_batch_seconds_total"] > 0
    assert found["customer_panel_streams"] == 1
    assert found['customer_panel_pool_connections{state="idle"}'] >= 1
    assert found["customer_panel_pool_waiting"] == 0
    assert found["customer_panel_import_running"] == 0
    assert found["process_resident_memory_bytes"] > 1 << 20


def figures(api: Api) -> dict[str, float]:
    answer = api.root.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_one_line_a_request(api):
    began = len(api.log)
    api.get("/customers?page=1&email=hidden@example.com", {"x-trace-id": "line-1"})
    api.get("/customers/0", {"x-trace-id": "line-2"})
    api.http.options("/customers", headers={"x-trace-id": "line-3"})
    api.line("line-3")
    lines = [json.loads(line) for line in api.log[began:] if '"line-' in line]
    assert [line.pop("traceId") for line in lines] == ["line-1", "line-2", "line-3"]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
        assert 0 < line.pop("ms") < 20_000
    common = {"level": "info", "event": "request", "path": "/api/v1/customers"}
    assert lines[0] == {**common, "method": "GET", "status": 200}
    assert lines[1] == {**common, "method": "GET", "status": 404, "path": "/api/v1/customers/0"}
    assert lines[2] == {**common, "method": "OPTIONS", "status": 204}


def test_head_is_get_without_its_body(api):
    for path in ("/api/v1/customers", "/health/live", "/api/docs", "/metrics"):
        answer = api.root.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0
    assert api.root.head("/nothing").status_code == 404
    # It would never end.
    assert api.root.head("/api/v1/customers/progress/stream").status_code == 405
    # The next request on the connection is read as such.
    ok(api.get("/customers"))


def test_options_tell_the_methods(api):
    for path, methods in (
        ("/customers", "GET, HEAD, OPTIONS, POST"),
        ("/customers/7", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/customers/progress/stream", "GET, OPTIONS"),
        ("/imports/7/pause", "OPTIONS, POST"),
    ):
        answer = api.http.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)


def test_only_our_documents_are_served(api):
    """Litestar's own pages would load their scripts from elsewhere."""
    for path in ("/schema", "/schema/openapi.json", "/schema/swagger", "/docs", "/redoc"):
        failed(api.root.get(path), 404)
    for path in (
        "nothing.js",
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/docs.py",
        "VENDORED.md",
        "index.html",
    ):
        failed(api.root.get(f"/api/docs/{path}"), 404)
    document = api.root.get("/api/docs-json").json()
    assert document["info"]["version"] == customer_panel.__version__
    assert document["servers"] == [{"url": "/"}]
    assert "security" not in document


def test_vendored_files_are_the_ones_of_the_list():
    folder = ROOT / "python" / "customer_panel" / "api" / "static"
    rows = re.findall(
        r"^\| (\S+) \| \S+ \| [\d.]+ \| \S+ \| ([0-9a-f]{64}) \|$", listed(folder), re.M
    )
    assert {name for name, _ in rows} == {
        f"swagger-ui/{path.name}" for path in (folder / "swagger-ui").iterdir()
    }
    for name, digest in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def listed(folder: Path) -> str:
    return (folder / "VENDORED.md").read_text()


def test_the_image_is_built_for_a_user_without_rights():
    """Read only: no engine runs here."""
    text = (ROOT / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root|0)\S+", last, re.M)
    assert "HEALTHCHECK" in last
    assert not re.search(r"^(ARG|ENV)\b.*(KEY|SECRET|PASSWORD)", text, re.M)
    assert ".env" in (ROOT / ".dockerignore").read_text().split()


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor_shows_every_setting_and_no_secret(run, dsn):
    secret = "somebody-0123456789"
    done = run(
        "doctor",
        "--json",
        DATABASE_URL=dsn.replace("postgres@", "postgres:hidden-password@"),
        CP_API_KEYS=f"{secret}:read",
    )
    assert done.returncode == 0, done.stdout
    found = {finding["name"]: finding["value"] for finding in json.loads(done.stdout)["findings"]}
    assert {setting.name for setting in SETTINGS} <= set(found)
    assert found["CP_API_KEYS"] == "***:read"
    assert found["CP_MEMORY"]
    assert secret not in done.stdout
    assert "hidden-password" not in done.stdout
