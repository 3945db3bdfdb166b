"""The envelope of answers, the names of errors, and the trace id in both."""

from __future__ import annotations

import json
import re
import time

import psycopg
import pytest

from support.customers import csv
from support.envelope import CODES, TIME, failed, ok
from support.waiting import in_parallel

NEW = {"firstName": "Grace", "email": "grace@example.com"}


# -- success --------------------------------------------------------------------------------------


def test_every_customer_endpoint_and_sync_answer_in_the_envelope(api, files):
    """
    > Every customer endpoint and `POST /customers/sync` answers
    > {"success": true, "statusCode": 200, "message": "...", "data": ..., "meta": {"timestamp":
    > "...", "traceId": "...", "version": "1"}}
    """
    made = ok(api.post("/customers", NEW | {"email": "envelope@example.com"}), 201)
    place = f"/customers/{made['id']}"
    ok(api.get("/customers"))
    ok(api.get(place))
    ok(api.patch(place, {"city": "London"}))
    ok(api.delete(place))
    ok(api.post("/customers/sync", {"filePath": str(csv(files / "envelope.csv", 10))}))
    api.until("COMPLETED")
    for path in ("/imports", "/imports/1", "/imports/1/rejects"):
        ok(api.get(path))


def test_names_are_camel_case_at_every_depth(api):
    """
    > JSON is camelCase.
    """
    ok(api.post("/customers", NEW | {"email": "camel@example.com"}), 201)

    def names(found):
        if isinstance(found, dict):
            for name, value in found.items():
                yield name
                yield from names(value)
        elif isinstance(found, list):
            for value in found:
                yield from names(value)

    answers = [api.get(path).json() for path in ("/customers", "/customers/0", "/imports")]
    document = api.root.get("/api/docs-json").json()
    properties = [
        name
        for schema in document["components"]["schemas"].values()
        for name in schema.get("properties", {})
    ]
    for name in [*names(answers), *names(api.progress()), *properties]:
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", name), name


def test_times_are_utc_with_milliseconds(api):
    """
    > Times are ISO 8601 UTC with
    > milliseconds and `Z`.
    """
    before = time.time()
    response = api.post("/customers", NEW | {"email": "times@example.com"})
    made = ok(response, 201)
    assert TIME.fullmatch(made["createdAt"])
    assert TIME.fullmatch(made["updatedAt"])
    timestamp = response.json()["meta"]["timestamp"]
    assert TIME.fullmatch(timestamp)
    assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))[:13] == timestamp[:13]


# -- errors ---------------------------------------------------------------------------------------


def large(email: str) -> bytes:
    """A body of one byte more than a megabyte."""
    filling = (1 << 20) + 1 - len(json.dumps(NEW | {"email": email, "aboutCustomer": ""}))
    return json.dumps(NEW | {"email": email, "aboutCustomer": "x" * filling}).encode()


def test_every_error_has_the_envelope_whatever_raised_it(api):
    """
    > and every error, whatever raised it (validation, 404 of an unknown route, 405, 409, 413, 429,
    > 500),
    > {"success": false, "statusCode": 400, "error": {"code": "VALIDATION_ERROR", "message": "...",
    > "details": [...]}, "meta": {...}}
    """
    error = failed(api.post("/customers", {"firstName": "", "nonsense": 1}), 400)
    assert {"firstName", "email", "nonsense"} == {detail["field"] for detail in error["details"]}
    for body in (
        *(b"{", b"", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"firstName": "\\ud800"}', b"NaN"),
        *(b"[" * 500_000, b'{"a":' * 100_000, b'{"firstName": 1e400}', b"9" * 100_000, b"{}{}"),
    ):
        failed(api.http.post("/customers", content=body), 400)
        failed(api.http.post("/customers/sync", content=body or b" "), 400)
    for path in ("/nothing", "/customers/1/nothing", "/imports/1/nothing", "/"):
        failed(api.get(path), 404)
    for path in ("/nothing", "/api", "/api/v2/customers", "/health", "/health/nothing", "/%00"):
        failed(api.root.get(path), 404)
    for method, path in (
        ("PUT", "/customers"),
        ("DELETE", "/customers"),
        ("PATCH", "/customers"),
        ("POST", "/customers/1"),
        ("GET", "/customers/sync"),
        ("POST", "/customers/progress"),
        ("POST", "/customers/progress/stream"),
        ("TRACE", "/customers"),
    ):
        response = api.http.request(method, path, content=b"{}")
        # An id in the place of `sync` is not digits; a route of its own may say more.
        if path == "/customers/sync" and response.status_code == 400:
            failed(response, 400)
        else:
            failed(response, 405)
            assert response.headers["allow"]


def test_a_body_over_a_megabyte_is_refused_and_one_below_is_read(api):
    """
    > PAYLOAD_TOO_LARGE (413, bodies over 1 MB), UNSUPPORTED_MEDIA_TYPE (415),
    """
    body = large("large@example.com")
    failed(api.http.post("/customers", content=body), 413)
    # Sent in chunks, without a length.
    failed(api.http.post("/customers", content=iter([body[:500_000], body[500_000:]])), 413)
    # Short enough, and wrong for another reason: it was read.
    error = failed(api.http.post("/customers", content=body[:1_000_000] + b'"}'), 400)
    assert error["details"][0]["field"] == "aboutCustomer"
    failed(api.http.patch("/customers/1", content=body), 413)
    failed(api.http.post("/customers/sync", content=body), 413)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        headers = {"content-type": kind}
        failed(api.http.post("/customers", content=json.dumps(NEW), headers=headers), 415)
        failed(api.http.post("/customers/sync", content=b"", headers=headers), 415)
        failed(api.http.patch("/customers/1", content=b"{}", headers=headers), 415)
    for kind in ("application/json; charset=utf-8", "application/json;charset=UTF-8"):
        fresh = NEW | {"email": f"charset{len(kind)}@example.com"}
        response = api.http.post(
            "/customers", content=json.dumps(fresh), headers={"content-type": kind}
        )
        ok(response, 201)


def test_each_code_has_its_status(api, shared_dsn, serve):
    """
    > with `code` one of VALIDATION_ERROR (400), UNAUTHORIZED (401), FORBIDDEN (403), NOT_FOUND
    > (404), METHOD_NOT_ALLOWED (405), REQUEST_TIMEOUT (408), CONFLICT (409),
    > PRECONDITION_FAILED (412),

    > RATE_LIMITED (429), UNAVAILABLE (503),
    > INTERNAL_ERROR (500);
    """
    made = ok(api.post("/customers", NEW), 201)
    failed(api.post("/customers", NEW), 409)
    failed(api.patch(f"/customers/{made['id']}", {"city": "x"}, if_match='"stale"'), 412)
    # Nothing here limits a rate; a proxy's own answer, or a later version's, is named all the same.
    from customer_panel.api.http import errors

    assert errors.CODES == CODES
    secured = serve(DATABASE_URL=shared_dsn, CP_API_KEYS="reader-0123456789:read")
    failed(secured.get("/customers"), 401)
    failed(secured.get("/customers", {"authorization": "Bearer nobody-0123456789"}), 401)
    may_read = {"authorization": "Bearer reader-0123456789"}
    ok(secured.get("/customers", may_read))
    failed(secured.post("/customers", NEW, **may_read), 403)
    failed(secured.post("/customers/sync", {}, **may_read), 403)


def test_a_defect_is_an_error_without_its_reasons(api, shared_dsn):
    """What no handler expects: a column that is gone. The log has the place, nobody has the row."""
    made = ok(api.post("/customers", NEW | {"email": "defect@example.com"}), 201)
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE customers RENAME COLUMN company TO gone")
        try:
            answers = [
                api.get(f"/customers/{made['id']}", {"x-trace-id": "defect-1"}),
                api.get("/customers"),
                api.post("/customers", NEW | {"email": "secret-value@example.com"}),
            ]
        finally:
            conn.execute("ALTER TABLE customers RENAME COLUMN gone TO company")
    for answer in answers:
        error = failed(answer, 500)
        assert error["details"] is None
        assert "gone" not in answer.text
        assert "company" not in answer.text
    api.line("defect-1")
    ok(api.get(f"/customers/{made['id']}"))
    assert not api.lines("secret-value|grace")


def test_a_body_that_does_not_come_is_given_up(api):
    """A client that promises more than it sends; nothing of it, or a part."""
    promise = (
        b"POST /api/v1/customers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\nConnection: close\r\n\r\n"
    )
    parts = [b"", b'{"firstName": "G']
    for answer in in_parallel(2, lambda index: api.raw(promise + parts[index], timeout=20)):
        assert answer.startswith(b"HTTP/1.1 408 ")
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "REQUEST_TIMEOUT"


def test_details_name_the_field(api):
    """
    > `details` is a list of `{"field": ..., "message": ...}` or null.
    """
    error = failed(api.post("/customers", NEW | {"city": "x" * 101, "phone1": 5}), 400)
    assert {detail["field"] for detail in error["details"]} == {"city", "phone1"}
    assert failed(api.get("/customers/0"), 404)["details"] is None
    error = failed(api.get("/customers", page="0"), 400)
    assert [detail["field"] for detail in error["details"]] == ["page"]
    error = failed(api.get("/customers", limit="x"), 400)
    assert [detail["field"] for detail in error["details"]] == ["limit"]


# -- trace ids ------------------------------------------------------------------------------------

ECHOED = ["a", "0", "A.b_c-9", "-", "x" * 128, "550e8400-e29b-41d4-a716-446655440000"]
REFUSED = ["", "x" * 129, "a b", "a/b", "a,b", 'a"b', "{a}", "a:b", "ä", "a\tb", "\u0661"]


@pytest.mark.parametrize("trace", ECHOED)
def test_a_trace_id_of_the_form_is_echoed(api, trace):
    """
    > `traceId` echoes an `x-trace-id` request header of the form
    > `[A-Za-z0-9._-]{1,128}`,
    """
    for path in ("/customers", "/customers/0", "/nothing"):
        response = api.get(path, {"X-Trace-Id": trace})
        assert response.json()["meta"]["traceId"] == trace


@pytest.mark.parametrize("trace", REFUSED)
def test_another_trace_id_is_replaced(api, trace):
    """
    > else is generated;
    """
    seen = set()
    for _ in range(3):
        response = api.get("/customers/0", {"X-Trace-Id": trace.encode()})
        failed(response, 404)
        seen.add(response.json()["meta"]["traceId"])
    assert len(seen) == 3
    assert trace not in seen


def test_the_trace_id_is_in_every_log_line_of_the_request(api, shared_dsn):
    """
    > it is in every log line of the request.
    """
    api.get("/customers", {"x-trace-id": "logged-0"})
    api.line("logged-0")
    before = len(api.log)
    api.get("/customers", {"x-trace-id": "logged-1"}, page="1")
    api.get("/customers/abc?secret=hidden", {"x-trace-id": "logged-2"})
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE customers RENAME COLUMN company TO gone")
        try:
            failed(api.get("/customers", {"x-trace-id": "logged-3"}), 500)
        finally:
            conn.execute("ALTER TABLE customers RENAME COLUMN gone TO company")
    api.line("logged-3")
    api.get("/customers", {"x-trace-id": "logged-4"})
    api.line("logged-4")
    lines = [line for line in api.log[before:] if line.strip()]
    for line in lines:
        found = json.loads(line)
        assert re.fullmatch(r"logged-\d", found["traceId"]), line
    assert {json.loads(line)["traceId"] for line in lines} == {f"logged-{n}" for n in (1, 2, 3, 4)}
    assert "hidden" not in "".join(lines)


# -- without the envelope -------------------------------------------------------------------------


def test_progress_stream_files_and_the_three_at_the_root_have_no_envelope(api, files):
    """
    > `GET /customers/progress` answers **without** the envelope; so do the stream, files,
    > `/metrics` and `/health/live`, `/health/ready` (these three at the root).
    """
    path = csv(files / "bare.csv", 50, dirty=0.2)
    job = api.sync(path)
    api.until("COMPLETED", job=job["id"])
    assert "success" not in api.progress()
    with api.stream() as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "success" not in stream.message().payload
    rejects = api.get(f"/imports/{job['id']}/rejects.csv")
    assert rejects.status_code == 200
    assert rejects.headers["content-type"].startswith("text/csv")
    assert "attachment" in rejects.headers["content-disposition"]
    assert rejects.text.count("\n") > 1
    metrics = api.root.get("/metrics")
    assert metrics.status_code == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE" in metrics.text
    for name in ("live", "ready"):
        health = api.root.get(f"/health/{name}")
        assert health.status_code == 200
        assert "success" not in health.text
