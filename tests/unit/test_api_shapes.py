"""What a body may hold, and the one answer for everything that is raised."""

from __future__ import annotations

import re
from datetime import date, timedelta

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import errors as pg

from customer_panel import errors
from customer_panel.api.customers import shapes
from customer_panel.api.http.body import decoded
from customer_panel.api.http.envelope import encode
from customer_panel.api.http.errors import CODES, ApiError, as_api_error, error_bytes
from customer_panel.customer import COLUMNS
from customer_panel.customers import store, values
from customer_panel.errors import CustomerMoved, IdentityStays, NoSuchCustomer, ValueTaken

DAY = re.compile(shapes.DAY)


def test_the_pattern_of_a_date_is_the_calendar():
    day = date(1, 1, 1)
    while day.year < 2801:
        text = day.isoformat()
        assert DAY.search(text), text
        if (day + timedelta(days=1)).day == 1:
            for number in range(day.day + 1, 40):
                assert not DAY.search(f"{text[:8]}{number}")
        day += timedelta(days=1)
    for text in (
        "0000-01-01",
        "2021-00-10",
        "2021-13-01",
        "2021-01-00",
        "2021-1-1",
        "10000-01-01",
    ):
        assert not DAY.search(text)
    assert DAY.search("9999-12-31")


@given(st.from_regex(DAY, fullmatch=True))
@settings(max_examples=500, deadline=None)
def test_what_matches_is_a_day(text):
    assert isinstance(values.day(text), date)


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2021-01-16", "2021-01-16"),
        ("2021-01-16T00:00:00.000Z", "2021-01-16"),
        ("2021-01-16T23:30:00-05:00", "2021-01-17"),
        ("2021-01-16T00:30:00+02:00", "2021-01-15"),
        ("2021-01-16T23:59:59.999999999Z", "2021-01-16"),
        ("9999-12-31T23:00:00-05:00", "9999-12-31"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01"),
    ],
)
def test_a_timestamp_counts_by_its_day_in_utc(written, day):
    assert values.day(written).isoformat() == day


VALID = {"firstName": "Ada", "email": "ada@example.com"}


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_text_that_is_taken_can_be_stored(text):
    body = encode(VALID | {"city": text, "aboutCustomer": text}) if _is_utf8(text) else b""
    try:
        found = decoded(body, shapes.CreateCustomer)
    except ApiError:
        return
    assert "\0" not in (found.city or "")
    stored = store.stored({"city": found.city})["city"]
    assert stored is None or stored == values.text(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("column", COLUMNS[1:], ids=lambda column: column.name)
def test_limits_are_those_of_the_customer(column):
    if column.kind == "date":
        return
    longest = {
        "website": lambda n: "https://example.com/" + "x" * (n - 20),
        "email": lambda n: "a" * (n - 12) + "@example.com",
    }.get(column.name, lambda n: "𝒳" * n)
    for kind, required in ((shapes.CreateCustomer, VALID), (shapes.UpdateCustomer, {})):
        taken = decoded(encode(required | {column.camel: longest(column.limit)}), kind)
        assert getattr(taken, column.name) == longest(column.limit)
        with pytest.raises(ApiError) as refused:
            decoded(encode(required | {column.camel: longest(column.limit + 1)}), kind)
        assert [detail.field for detail in refused.value.details or ()] == [column.camel]


def test_every_fault_is_named_at_once():
    body = {"firstName": " ", "email": "x", "phone1": 5, "nickname": "x", "city": "\0"}
    with pytest.raises(ApiError) as refused:
        decoded(encode(body), shapes.CreateCustomer)
    assert {detail.field for detail in refused.value.details or ()} == set(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"firstName":"\\ud800"}', b"[" * 100_000, b"1e999"],
)
def test_what_is_no_object_is_refused(body):
    with pytest.raises(ApiError) as refused:
        decoded(body, shapes.CreateCustomer)
    assert refused.value.status == 400


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoSuchCustomer(), 404),
        (CustomerMoved(), 412),
        (ValueTaken("email"), 409),
        (IdentityStays(), 400),
        (errors.AlreadyRunning(), 409),
        (errors.NoSuchImport(), 404),
        (errors.SourceNotFound(), 400),
        (errors.DatabaseUnreachable(), 503),
        (pg.QueryCanceled(), 503),
        (pg.AdminShutdown(), 503),
        (pg.DeadlockDetected(), 503),
        (psycopg.OperationalError(), 503),
        (pg.UndefinedColumn(), 500),
        (pg.UniqueViolation(), 500),
        (ValueError(), 500),
        (errors.SettingsError(), 500),
    ],
)
def test_what_is_raised_is_one_answer(error, status):
    answer = as_api_error(error)
    assert answer.status == status
    body = msgspec.json.decode(error_bytes(status, answer.message, answer.details))
    assert body["error"]["code"] == CODES[status]
    assert (answer.headers == {"Retry-After": "1"}) is (status == 503)
