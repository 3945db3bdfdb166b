"""Beside the contract: keys, scopes, and the ticket of an EventSource, which cannot send a header."""

from __future__ import annotations

import pytest

from support.customers import csv, customer_body
from support.envelope import failed, ok
from support.waiting import in_parallel

KEYS = {
    "reads": "key-of-a-reader-0001:read",
    "writes": "key-of-a-writer-0002:read+write",
    "imports": "key-of-the-night-003:import",
    "all": "key-of-the-boss-0004",
}


@pytest.fixture
def keyed(serve, dsn, files):
    return serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, CP_API_KEYS=",".join(KEYS.values()))


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name].partition(':')[0]}"}


def test_each_key_does_what_its_scopes_say(keyed, files):
    body = {"filePath": str(csv(files / "keys.csv", 10))}
    made = ok(keyed.post("/customers", customer_body(), **key("writes")), 201)
    place = f"/customers/{made['id']}"
    may = {
        "reads": (200, 403, 403, 403),
        "writes": (200, 200, 403, 403),
        "imports": (403, 403, 409, 200),
        "all": (200, 200, 409, 200),
    }
    ok(keyed.post("/customers/sync", body, **key("imports")))
    reader = key("reads")
    while ok(keyed.get("/imports/1", reader))["status"] != "COMPLETED":
        pass
    for name, expected in may.items():
        answers = [
            keyed.get(place, key(name)),
            keyed.patch(place, {"city": name}, **key(name)),
            keyed.post("/imports/1/pause", **key(name)),
        ]
        assert [answer.status_code for answer in answers] == list(expected[:3]), name
    for wrong in ("", "Bearer", "Basic a2V5", "bearer x", "Bearer key-of-a-reader-000"):
        for answer in (
            keyed.get("/customers", {"authorization": wrong}),
            keyed.get("/customers/progress", {"authorization": wrong}),
            keyed.post("/customers/sync", body, authorization=wrong),
            keyed.get("/nothing", {"authorization": wrong}),
        ):
            assert answer.status_code in (401, 404)
            failed(answer, answer.status_code)
        assert keyed.root.get("/metrics", headers={"authorization": wrong}).status_code == 401
    # Those who only look whether it lives, and those who read the manual, need none.
    for path in ("/health/live", "/health/ready", "/api/docs", "/api/docs-json"):
        assert keyed.root.get(path).status_code == 200
    secrets = [secret.partition(":")[0] for secret in KEYS.values()]
    assert not [line for line in keyed.log if any(secret in line for secret in secrets)]


def test_a_ticket_opens_one_stream_once(keyed):
    with keyed.stream() as refused:
        assert refused.status == 401
    ticket = ok(keyed.post("/customers/progress/ticket", **key("reads")))["ticket"]
    statuses = []

    def opened(_):
        with keyed.stream(f"?ticket={ticket}") as stream:
            if stream.status == 200:
                assert stream.message().kind == "snapshot"
            return stream.status

    statuses = in_parallel(6, opened)
    assert sorted(statuses) == [200] + [401] * 5
    with keyed.stream("?ticket=nonsense") as stream:
        assert stream.status == 401
    # A ticket is for the stream, not for anything else.
    other = ok(keyed.post("/customers/progress/ticket", **key("reads")))["ticket"]
    failed(keyed.get("/customers", ticket=other), 401)
    failed(keyed.post("/customers/progress/ticket"), 401)
    with keyed.stream(**key("reads")) as stream:
        assert stream.message().kind == "snapshot"
    assert not [line for line in keyed.log if ticket in line or other in line]
