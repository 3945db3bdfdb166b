"""Whatever is done in whatever order: the answers are those of a model in twenty lines."""

from __future__ import annotations

import os

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from support.api import Api
from support.envelope import failed, ok
from support.reference import email as stored_email

# Few of each, so that they meet.
EMAILS = st.sampled_from(
    ["a@example.com", "A@Example.com", "ß@example.com", "J\u030c@example.com", "\u01f0@example.com"]
)
IDENTITIES = st.sampled_from(["one", "One", "two"])
TEXTS = st.none() | st.sampled_from(["x", "y", "🦀"])
PLACES = st.integers(0, 5)
FIELDS = st.fixed_dictionaries(
    {}, optional={"city": TEXTS, "company": TEXTS, "email": EMAILS | st.none()}
)
LONG = "FUZZ_CASES" in os.environ


class Customers(RuleBasedStateMachine):
    """`known` holds the customers that are there, oldest first; `gone` the ids of those deleted."""

    api: Api
    dsn: str

    def __init__(self) -> None:
        super().__init__()
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("TRUNCATE customers, customer_totals, customer_history, idempotency_keys")
        self.known: list[dict] = []
        self.gone: list[int] = []
        self.tags: dict[int, str] = {}

    def has(self, field: str, value: str | None, but: dict | None = None) -> bool:
        """Whether another live customer has it."""
        wanted = stored_email(value) if value and field == "email" else value
        return value is not None and any(
            customer is not but and customer[field] == wanted for customer in self.known
        )

    @rule(email=EMAILS, identity=st.none() | IDENTITIES, city=TEXTS)
    def create(self, email, identity, city):
        body = {"firstName": "Ada", "email": email, "customerId": identity, "city": city}
        answer = self.api.post("/customers", body)
        if self.has("email", email) or self.has("customerId", identity):
            failed(answer, 409)
            return
        made = ok(answer, 201)
        assert made["email"] == stored_email(email)
        assert identity in (None, made["customerId"])
        assert all(made["id"] > customer["id"] for customer in self.known)
        assert made["id"] not in self.gone
        self.known.append(made)
        self.tags[made["id"]] = answer.headers["etag"]

    @rule(place=PLACES, changes=FIELDS, is_stale=st.booleans())
    def change(self, place, changes, is_stale):
        if place >= len(self.known):
            return
        customer = self.known[place]
        tag = '"stale"' if is_stale else self.tags[customer["id"]]
        answer = self.api.patch(f"/customers/{customer['id']}", changes, if_match=tag)
        if is_stale:
            failed(answer, 412)
            return
        if self.has("email", changes.get("email"), customer):
            failed(answer, 409)
            return
        if changes.get("email"):
            changes = changes | {"email": stored_email(changes["email"])}
        changed = ok(answer)
        assert changed == customer | changes | {"updatedAt": changed["updatedAt"]}
        assert changed["updatedAt"] >= customer["updatedAt"]
        self.known[place] = changed
        self.tags[customer["id"]] = answer.headers["etag"]

    @rule(place=PLACES)
    def delete(self, place):
        if place < len(self.known):
            customer = self.known.pop(place)
            assert ok(self.api.delete(f"/customers/{customer['id']}")) == {"id": customer["id"]}
            self.gone.append(customer["id"])

    @rule(place=PLACES)
    def ask_for_who_is_gone(self, place):
        if place < len(self.gone):
            failed(self.api.get(f"/customers/{self.gone[place]}"), 404)
            failed(self.api.patch(f"/customers/{self.gone[place]}", {"city": "x"}), 404)
            failed(self.api.delete(f"/customers/{self.gone[place]}"), 404)

    @rule(place=PLACES)
    def ask_for_one(self, place):
        if place < len(self.known):
            answer = self.api.get(f"/customers/{self.known[place]['id']}")
            assert ok(answer) == self.known[place]
            assert answer.headers["etag"] == self.tags[self.known[place]["id"]]

    @rule(field=st.sampled_from(["email", "customerId"]), email=EMAILS, identity=IDENTITIES)
    def filter(self, field, email, identity):
        value = email if field == "email" else identity
        wanted = stored_email(value) if field == "email" else value
        found = ok(self.api.get("/customers", **{field: value}))
        assert found["data"] == [
            customer for customer in reversed(self.known) if customer[field] == wanted
        ]
        assert found["pagination"]["totalItems"] == len(found["data"])

    @invariant()
    def lists_are_right(self):
        newest = self.known[::-1]
        for number in (1, 2):
            page = ok(self.api.get("/customers", page=str(number), limit="2"))
            assert page["data"] == newest[2 * number - 2 : 2 * number]
            assert page["pagination"]["totalItems"] == len(newest)
        if newest:
            page = ok(self.api.get("/customers", after=str(newest[0]["id"]), limit="100"))
            assert page["data"] == newest[1:]


@pytest.mark.parametrize("runs", [300 if LONG else 25])
def test_customers_are_those_of_the_model(api, shared_dsn, runs):
    Customers.api, Customers.dsn = api, shared_dsn
    run_state_machine_as_test(
        Customers,
        settings=settings(
            max_examples=runs,
            stateful_step_count=25,
            deadline=None,
            derandomize=not LONG,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
