"""What the server refuses, and to whom: by default, and with keys."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import psycopg
import pytest

from customer_panel.api.middleware import security
from customer_panel.settings import Settings
from support.api import Api, serving
from support.customers import csv, customer_body
from support.envelope import failed, ok
from support.sse import Stream
from support.waiting import in_parallel

ROOT = Path(__file__).parents[2]
KEYS = {
    "reader": "reader-0123456789",
    "writer": "writer-0123456789",
    "importer": "importer-0123456789",
    "all": "everything-0123456789",
}
SETTING = (
    f"{KEYS['reader']}:read,{KEYS['writer']}:read+write,{KEYS['importer']}:import,{KEYS['all']}"
)
SECRET = re.compile("|".join(KEYS.values()))


@pytest.fixture(scope="module")
def keyed(databases, template, tmp_path_factory):
    """A server that asks for keys."""
    with databases.copy(template) as dsn:
        folder = tmp_path_factory.mktemp("keyed")
        with serving(folder, DATABASE_URL=dsn, CP_API_KEYS=SETTING, IMPORT_ROOTS=folder) as api:
            yield api


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


# -- keys -----------------------------------------------------------------------------------------


def test_without_a_key_nothing_is_told_but_health_and_documents(keyed):
    closed = ["/customers", "/customers/1", "/customers/progress", "/imports", "/imports/1/rejects"]
    for path in closed:
        refused = keyed.get(path)
        failed(refused, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
    failed(keyed.root.get("/metrics"), 401)
    failed(keyed.post("/customers", customer_body()), 401)
    failed(keyed.post("/customers/sync"), 401)
    failed(keyed.post("/customers/progress/ticket"), 401)
    for path in ("/health/live", "/health/ready", "/api/docs", "/api/docs-json"):
        assert keyed.root.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "given",
    [
        *("", "Bearer", "Bearer x", "Basic cmVhZGVyLTAxMjM0NTY3ODk6"),
        *(KEYS["reader"], f"Token {KEYS['reader']}", f"Bearer {KEYS['reader']}x"),
        *(f"Bearer {KEYS['reader'][:-1]}", f"Bearer {KEYS['reader'].upper()}"),
        *(f"Bearer {KEYS['reader']},{KEYS['all']}", f"Bearer {KEYS['reader']}:read", "Bearer ***"),
    ],
)
def test_what_is_no_key_opens_nothing(keyed, given):
    failed(keyed.get("/customers", {"authorization": given}), 401)


def test_a_key_allows_what_its_scopes_say(keyed):
    may = {name: bearer(name) for name in KEYS}
    for name in ("reader", "writer", "all"):
        ok(keyed.get("/customers", may[name]))
        assert keyed.root.get("/metrics", headers=may[name]).status_code == 200
    failed(keyed.get("/customers", may["importer"]), 403)
    for name in ("reader", "importer"):
        failed(keyed.post("/customers", customer_body(), **may[name]), 403)
        failed(keyed.patch("/customers/1", {}, **may[name]), 403)
        failed(keyed.delete("/customers/1", **may[name]), 403)
    for name in ("reader", "writer"):
        failed(keyed.post("/customers/sync", {}, **may[name]), 403)
        for verb in ("pause", "resume", "cancel"):
            failed(keyed.post(f"/imports/1/{verb}", {}, **may[name]), 403)
    made = ok(keyed.post("/customers", customer_body(), **may["writer"]), 201)
    ok(keyed.delete(f"/customers/{made['id']}", **may["all"]))
    path = csv(keyed.folder / "scopes.csv", 20)
    ok(keyed.post("/customers/sync", {"filePath": str(path)}, **may["importer"]))
    # The scheme's name has no letter case.
    ok(keyed.get("/customers", {"authorization": f"bearer {KEYS['all']}"}))


def test_every_operation_needs_a_key_unless_it_is_public(keyed):
    """New ones too: what says nothing of itself is closed."""
    document = keyed.root.get("/api/docs-json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    seen = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            asked = keyed.root.request(
                method, path.replace("{id}", "1"), headers={"content-type": "application/json"}
            )
            is_public = operation.get("security", document["security"]) == []
            assert is_public is path.startswith("/health/"), path
            if not is_public:
                failed(asked, 401)
                assert {"401", "403"} <= set(operation["responses"])
            seen += 1
    stream = document["paths"]["/api/v1/customers/progress/stream"]["get"]
    assert "ticket" in {parameter["name"] for parameter in stream["parameters"]}
    assert seen > 15


def test_keys_are_kept_as_hashes_only():
    settings = Settings.load({"CP_API_KEYS": SETTING}, "/nonexistent")
    assert len(settings.api_keys) == len(KEYS)
    shown = f"{settings!r}{settings}{dict(settings.shown())}{[*map(repr, settings.api_keys)]}"
    assert not SECRET.search(shown)
    assert "***:read+write" in shown


def test_every_key_is_compared_in_constant_time(monkeypatch):
    """Found or not: as many comparisons, of as many bytes, by the function made for it."""
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return given == known

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    keys = security.Keys(Settings.load({"CP_API_KEYS": SETTING}, "/nonexistent").api_keys)
    for secret in (KEYS["reader"], KEYS["all"], "x", "", "x" * 10_000, "\udcff\x00"):
        compared.clear()
        keys.scopes(secret)
        assert compared == [(32, 32)] * len(KEYS)
    assert keys.scopes(KEYS["writer"]) == {"read", "write"}
    assert keys.scopes("x") is None


# -- tickets --------------------------------------------------------------------------------------


def ticket(api: Api, name: str = "reader") -> str:
    return str(ok(api.post("/customers/progress/ticket", {}, **bearer(name)))["ticket"])


def test_a_ticket_opens_one_stream(keyed):
    path = f"/api/v1/customers/progress/stream?recentLimit=1&ticket={ticket(keyed)}"
    with Stream(keyed.port, path) as stream:
        assert stream.message().kind == "snapshot"
    with Stream(keyed.port, path) as again:
        assert again.status == 401
    failed(keyed.post("/customers/progress/ticket", {}, **bearer("importer")), 403)


def test_a_ticket_opens_nothing_else(keyed):
    mine = ticket(keyed)
    for path in ("/customers", "/customers/progress", "/imports"):
        failed(keyed.get(path, ticket=mine), 401)
    failed(keyed.get("/customers/progress/stream", {"authorization": f"Bearer {mine}"}), 401)
    for other in ("", "x", mine[:-1], f"{mine}&ticket={mine}"):
        failed(keyed.get(f"/customers/progress/stream?ticket={other}"), 401)
    # None of these has spent it.
    with Stream(keyed.port, f"/api/v1/customers/progress/stream?ticket={mine}") as stream:
        assert stream.status == 200


def test_of_many_with_one_ticket_one_gets_in(keyed):
    path = f"/api/v1/customers/progress/stream?ticket={ticket(keyed)}"
    streams = in_parallel(10, lambda _: Stream(keyed.port, path))
    assert sorted(stream.status for stream in streams) == [200] + [401] * 9
    for stream in streams:
        stream.close()


def test_a_ticket_runs_out_and_only_its_hash_is_stored(keyed):
    mine = ticket(keyed)
    with psycopg.connect(keyed.settings["DATABASE_URL"], autocommit=True) as conn:
        rows = conn.execute("SELECT hash, expires_at - now() FROM stream_tickets").fetchall()
        assert rows
        assert all(mine.encode() not in found and len(found) == 32 for found, _ in rows)
        assert all(left.total_seconds() <= 30 for _, left in rows)
        conn.execute("UPDATE stream_tickets SET expires_at = now() - interval '1 ms'")
        failed(keyed.get(f"/customers/progress/stream?ticket={mine}"), 401)
        # Those that nobody presents are swept out by the next one.
        ticket(keyed)
        conn.execute("UPDATE stream_tickets SET expires_at = now() - interval '1 ms'")
        ticket(keyed)
        assert conn.execute("SELECT count(*) FROM stream_tickets").fetchone() == (1,)


# -- other people's pages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_form_of_another_site_changes_nothing(api, kind):
    """A browser sends these without asking first, with and without a body."""
    before = ok(api.get("/customers"))["pagination"]["totalItems"]
    for path in ("/customers", "/customers/sync", "/imports/1/cancel", "/imports/1/resume"):
        for body in (b"", b"{}", json.dumps(customer_body()).encode()):
            headers = {"content-type": kind, "origin": "https://evil.example"}
            answer = api.root.post(f"/api/v1{path}", content=body, headers=headers)
            failed(answer, 415)
    answer = api.root.post("/api/v1/customers/sync", headers={"origin": "null"})
    failed(answer, 415)
    assert ok(api.get("/customers"))["pagination"]["totalItems"] == before


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *[(name, True) for name in ("localhost", "127.0.0.1", "LOCALHOST:80", "[::1]:3000")],
        *[(name, True) for name in (socket.gethostname(), "localhost.")],
        *[(name, False) for name in ("evil.example", "localhost.evil.example", "10.0.0.1", "")],
        *[(name, False) for name in ("[::1", "localhost:x", "localhost@evil.example", "0.0.0.0")],
    ],
)
def test_a_name_that_is_not_ours_is_refused(api, host, is_ours):
    """DNS rebinding: the page's own name, pointed at this machine."""
    for path in ("/api/v1/customers", "/health/live", "/api/docs", "/metrics"):
        answer = api.raw(head("GET", path, f"Host: {host}", "Connection: close"))
        assert answer.split()[1] == (b"200" if is_ours else b"400"), (path, answer)
    if not is_ours:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "VALIDATION_ERROR"


def test_two_names_or_none_are_refused(api):
    for lines in (["Host: localhost", "Host: localhost"], ["Host: localhost", "Host: x"], []):
        answer = api.raw(head("GET", "/health/live", *lines, "Connection: close"))
        assert answer.split()[1] == b"400"


def test_other_names_are_a_setting(serve, dsn):
    api = serve(DATABASE_URL=dsn, CP_ALLOWED_HOSTS="Panel.example")
    known = (("panel.example:8080", b"200"), ("localhost", b"200"))
    for host, status in (*known, (socket.gethostname(), b"400"), ("x.panel.example", b"400")):
        answer = api.raw(head("GET", "/health/live", f"Host: {host}", "Connection: close"))
        assert answer.split()[1] == status, host


# -- requests that do not end ---------------------------------------------------------------------


def test_a_large_body_is_refused_before_it_is_read(api):
    lines = ["Host: localhost", "Content-Type: application/json"]
    answer = api.raw(
        head(
            "POST", "/api/v1/customers", *lines, "Content-Length: 10000000000", "Connection: close"
        )
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_head_that_does_not_come_is_given_up(api):
    began = time.monotonic()
    answer = api.raw(b"GET /api/v1/customers HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", timeout=20)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 5 < time.monotonic() - began < 15


def test_a_head_without_end_is_given_up(api):
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50 << 20:
                sent += connection.send(b"X-More: " + b"x" * 8000 + b"\r\n")
        assert sent < 10 << 20


def test_slow_clients_keep_nobody_waiting(api):
    """Two hundred that have started a request, and one that asks."""
    connections = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(200)]
    try:
        for number, connection in enumerate(connections):
            lines = ["Host: localhost", "Content-Type: application/json", "Content-Length: 9"]
            words = head("POST", "/api/v1/customers", *lines)
            connection.sendall(words[:-2] if number % 2 else words)
        began = time.monotonic()
        ok(api.get("/customers"))
        assert time.monotonic() - began < 2
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_goes_away_is_no_failure_of_ours(api):
    lines = ["Host: localhost", "Content-Type: application/json", "X-Trace-Id: gone-1"]
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(head("POST", "/api/v1/customers", *lines, "Content-Length: 9") + b"{")
    assert json.loads(api.line("gone-1"))["level"] == "info"


@pytest.mark.parametrize(
    "words",
    [
        *(b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"),
        *(b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n"),
        b"POST /api/v1/customers HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_so_in_the_envelope(api, words):
    answer = api.raw(words)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    above, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "VALIDATION_ERROR"
    assert b"nosniff" in above


# -- answers --------------------------------------------------------------------------------------

ANSWERS = ["/api/v1/customers", "/api/v1/customers/0", "/nothing", "/health/live", "/metrics"]


@pytest.mark.parametrize("path", [*ANSWERS, "/api/docs", "/api/docs/init.js", "/api/docs-json"])
def test_no_answer_is_taken_for_something_else(api, path):
    headers = api.root.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in headers
    kept = "no-cache" if path in ("/api/docs", "/api/docs/init.js") else "no-store"
    assert headers["cache-control"] == kept


def test_a_text_of_a_customer_stays_a_text(api):
    """It is JSON for a browser that is led to it, whatever a row holds; and SQL is not built of it."""
    for text in (
        "<script>alert(1)</script>",
        "'; DROP TABLE customers; --",
        "%s %(x)s {0}",
        "\\x00",
    ):
        made = ok(api.post("/customers", customer_body(lastName=text)), 201)
        answer = api.get(f"/customers/{made['id']}")
        assert ok(answer)["lastName"] == text
        assert answer.headers["content-type"] == "application/json"
        assert ok(api.get("/customers", customerId=text))["data"] == []


# -- the log --------------------------------------------------------------------------------------


def test_logs_hold_no_secret_and_no_value(serve, databases, template, tmp_path):
    """Over all that can go wrong; every line is JSON, but the one that tells the addresses."""
    with databases.copy(template) as dsn:
        name = dsn.partition("?")[0].rpartition("/")[2]
        api = serve(
            DATABASE_URL=dsn.replace("postgres@", "postgres:hidden-password@"),
            CP_API_KEYS=SETTING,
            IMPORT_ROOTS=tmp_path,
        )
        may = bearer("all")
        made = ok(api.post("/customers", customer_body(email="hidden@example.com"), **may), 201)
        api.post("/customers", customer_body(email="hidden@example.com"), **may)
        api.post("/customers", {"firstName": "Hidden", "email": "hidden"}, **may)
        api.get("/customers", may, email="hidden@example.com")
        api.get("/customers?ticket=hidden-ticket", {"authorization": "Bearer hidden-guess"})
        mine = ticket(api)
        with Stream(api.port, f"/api/v1/customers/progress/stream?ticket={mine}") as stream:
            stream.message()
        path = csv(tmp_path / "rows.csv", 300)
        api.post("/customers/sync", {"filePath": str(path)}, **may)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("ALTER TABLE customers ADD CHECK (city <> 'Hidden')")
            failed(api.patch(f"/customers/{made['id']}", {"city": "Hidden"}, **may), 500)
        api.raw(b"nonsense-hidden\r\n\r\n")
        databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        databases.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        failed(api.get("/customers", may), 503)
        databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        api.terminate()
        for line in api.log:
            if not line.startswith("Customer Panel: "):
                assert json.loads(line)["ts"], line
        assert '"status":500' in api.output
        assert '"status":503' in api.output
        found = SECRET.search(api.output) or re.search(
            f"hidden-|hidden@|Hidden|{re.escape(mine)}|someone", api.output
        )
        assert not found, found


# -- the table ------------------------------------------------------------------------------------


def test_every_row_of_the_table_names_its_tests():
    text = (ROOT / "docs" / "security.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() not in ("threat", "---")]
    assert len(rows) > 15
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known.update(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row[2])
        assert names, row
        assert set(names) <= known, set(names) - known
