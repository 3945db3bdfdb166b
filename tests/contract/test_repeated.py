"""POST /customers with an Idempotency-Key: the first result again, and nothing done twice."""

from __future__ import annotations

import psycopg
import pytest

from support.customers import customer_body
from support.envelope import failed, ok
from support.waiting import in_parallel


def test_the_same_key_gives_the_first_result_again(api, shared_dsn):
    body = customer_body(city="Once")
    first = ok(api.post("/customers", body, idempotency_key="key-1"), 201)
    assert ok(api.post("/customers", body, idempotency_key="key-1"), 201)["id"] == first["id"]
    failed(api.post("/customers", body | {"city": "Twice"}, idempotency_key="key-1"), 409)
    # Another key: the e-mail is taken.
    failed(api.post("/customers", body, idempotency_key="key-2"), 409)
    # What failed was not done, so it may be tried again with the same key.
    ok(api.delete(f"/customers/{first['id']}"))
    ok(api.post("/customers", body, idempotency_key="key-2"), 201)
    with psycopg.connect(shared_dsn) as conn:
        kept = conn.execute("SELECT idempotency_keys::text FROM idempotency_keys").fetchall()
    assert kept
    assert "example.com" not in str(kept)
    assert "key-1" not in str(kept)


def test_the_same_key_at_once_creates_once(api):
    body = customer_body()
    answers = in_parallel(8, lambda _: api.post("/customers", body, idempotency_key="key-race"))
    # Whoever comes while the first one is being made may be told to wait.
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = {answer.json()["data"]["id"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert ok(api.post("/customers", body, idempotency_key="key-race"), 201)["id"] in made


def test_a_key_expires_after_a_day(api, shared_dsn):
    body = customer_body()
    first = ok(api.post("/customers", body, idempotency_key="key-old"), 201)
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'")
    other = customer_body()
    second = ok(api.post("/customers", other, idempotency_key="key-old"), 201)
    assert second["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "x" * 5000, "ä", "a b"])
def test_an_odd_key_is_refused_or_works(api, key):
    body = customer_body()
    answer = api.http.post("/customers", json=body, headers={"idempotency-key": key.encode()})
    assert answer.status_code in (201, 400)
