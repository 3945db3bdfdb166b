"""Which pages of which origins may call."""

from __future__ import annotations

import pytest

from support.customers import customer_body
from support.envelope import failed, ok
from support.sse import Stream

HEADERS = [
    *("content-type", "authorization", "if-match", "idempotency-key", "last-event-id"),
    "x-trace-id",
]
HERE = ["http://localhost", "http://localhost:5173", "http://127.0.0.1:8080", "http://127.0.0.1"]
ELSEWHERE = [
    *("http://evil.example", "https://localhost:5173", "http://localhost.evil.example", "null"),
    *("http://localhost:5173.evil.example", "http://evil.example/http://localhost:1", "file://"),
    *("http://127.0.0.1.evil.example:80", "http://1127.0.0.1:80", "http://localhost:x", ""),
    *("http://localhost:80@evil.example", "http://127x0x0x1:80", "HTTP://LOCALHOST.evil:80"),
]
CALLS = [
    *(("GET", "/customers"), ("POST", "/customers"), ("GET", "/customers/1")),
    *(("PATCH", "/customers/1"), ("DELETE", "/customers/1"), ("POST", "/customers/sync")),
    *(("GET", "/customers/progress"), ("GET", "/customers/progress/stream")),
]


def preflight(api, path, method, origin, *headers):
    asked = {"origin": origin, "access-control-request-method": method}
    if headers:
        asked["access-control-request-headers"] = ",".join(headers)
    return api.http.options(path, headers=asked)


@pytest.mark.parametrize("origin", HERE)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_preflight_allows_what_clients_send(api, origin, method, path):
    """
    > CORS is open to the origins in `CORS_ORIGINS` (default: `http://localhost:*` and
    > `http://127.0.0.1:*`); clients send `Content-Type: application/json` on every call, GETs too,
    > so preflights must allow it, beside `authorization`, `if-match`,
    > `idempotency-key`, `last-event-id` and `x-trace-id`.
    """
    answer = preflight(api, path, method, origin, *HEADERS)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == origin
    allowed = answer.headers["access-control-allow-methods"].upper()
    assert method in allowed or allowed == "*"
    names = answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    # `*` does not stand for authorization.
    assert set(HEADERS) <= set(names)
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_other_origins_are_not_allowed(api, origin):
    for method, path in CALLS:
        answer = preflight(api, path, method, origin, "content-type")
        assert "access-control-allow-origin" not in answer.headers, path
    answer = api.get("/customers", {"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", HERE[1:3])
def test_answers_may_be_read_errors_too(api, origin):
    may = {"origin": origin}
    made = api.http.post("/customers", json=customer_body(), headers=may)
    answers = [
        made,
        api.get("/customers", may),
        api.get("/customers/0", may),
        api.get("/customers/x", may),
        api.get("/nothing", may),
        api.get("/customers", may, limit="0"),
        api.get("/customers/progress", may),
        api.http.post("/customers", content=b"{", headers=may),
        api.http.post("/customers", content=b"x" * 1_100_000, headers=may),
        api.http.put("/customers", headers=may),
        api.http.patch(
            "/customers/1", content=b"{}", headers={**may, "content-type": "text/plain"}
        ),
    ]
    assert {answer.status_code for answer in answers} == {200, 201, 400, 404, 405, 413, 415}
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == origin, answer.status_code
        assert "origin" in answer.headers["vary"].lower()
    # A page has to read the tag that it sends back, and the id that it reports.
    exposed = made.headers["access-control-expose-headers"].lower()
    assert "etag" in exposed
    with api.stream(origin=origin) as stream:
        assert stream.headers["access-control-allow-origin"] == origin
    assert made.headers.get("access-control-allow-credentials") != "true"


def test_other_origins_are_a_setting(serve, dsn):
    api = serve(DATABASE_URL=dsn, CORS_ORIGINS="https://panel.example, http://10.0.0.5:3001")
    for origin in ("https://panel.example", "http://10.0.0.5:3001"):
        assert api.get("/customers", {"origin": origin}).headers["access-control-allow-origin"] == (
            origin
        )
        answer = preflight(api, "/customers", "PATCH", origin, "if-match")
        assert answer.headers["access-control-allow-origin"] == origin
    for origin in ("http://localhost:5173", "https://panel.example:444", "http://panel.example"):
        answer = api.get("/customers", {"origin": origin})
        ok(answer)
        assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_needs_no_key(serve, dsn):
    """A browser sends none with it."""
    api = serve(DATABASE_URL=dsn, CP_API_KEYS="somebody-0123456789")
    may = {"origin": HERE[1]}
    answer = preflight(api, "/customers", "PATCH", HERE[1], *HEADERS)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == HERE[1]
    refused = api.get("/customers", may)
    failed(refused, 401)
    assert refused.headers["access-control-allow-origin"] == HERE[1]
    with Stream(api.port, "/api/v1/customers/progress/stream", may) as stream:
        assert stream.status == 401
        assert stream.headers["access-control-allow-origin"] == HERE[1]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::1]:x", "a b"])
def test_a_name_that_was_pointed_at_us_is_refused(api, host):
    """DNS rebinding: the browser believes that it talks to the page's own host."""
    answer = api.raw(
        f"GET /api/v1/customers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    assert int(answer.split()[1]) in (400, 403)
