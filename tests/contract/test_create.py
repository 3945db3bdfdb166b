"""POST /customers: what is taken, to the character, and what is not."""

from __future__ import annotations

import json

import psycopg
import pytest

from support.customers import FIELDS, NULLABLE, create_customer, customer_body
from support.envelope import failed, ok
from support.waiting import in_parallel

BIG = "𝒳"  # one character: two UTF-16 units, four bytes
E_MAIL = "@" + "b" * 63 + "." + "b" * 63 + "." + "b" * 57 + ".com"  # 190 characters
LIMITS = {
    "firstName": 100,
    "lastName": 100,
    "city": 100,
    "country": 100,
    "company": 200,
    "phone1": 50,
    "phone2": 50,
    "aboutCustomer": 2000,
}


def test_a_customer_has_all_fields_and_null_for_what_is_absent(api):
    """
    > An absent optional value is `null`, never missing.
    >
    > `id` (integer), `customerId`, `firstName`, `lastName`, `company`, `city`, `country`, `phone1`,
    > `phone2`, `email`,
    > `subscriptionDate`, `website`, `aboutCustomer`, `createdAt`, `updatedAt`. All but the ids and
    > times are nullable.
    """
    made = create_customer(api)
    assert set(made) >= FIELDS
    assert type(made["id"]) is int
    assert isinstance(made["customerId"], str)
    assert {name for name in made if made[name] is None} == NULLABLE - {"firstName", "email"}
    cleared = ok(api.patch(f"/customers/{made['id']}", dict.fromkeys(NULLABLE)))
    assert {name for name in cleared if cleared[name] is None} == NULLABLE
    assert set(cleared) == set(made)


def test_created_is_201_and_found_afterwards(api):
    """
    > `POST /customers`
    > 201
    >
    > `firstName` (1..100) and `email` (valid, <= 254) required;
    """
    full = customer_body(
        customerId="contract-1",
        lastName="Lovelace",
        company="Engines",
        city="London",
        country="UK",
        phone1="+44 1",
        phone2="+44 2",
        subscriptionDate="2021-01-16",
        website="https://example.com/ada",
        aboutCustomer="First.",
    )
    made = ok(api.post("/customers", full), 201)
    assert {**made, **full, "subscriptionDate": made["subscriptionDate"]} == made
    assert ok(api.get(f"/customers/{made['id']}")) == made
    assert ok(api.get("/customers", limit="1"))["data"] == [made]
    for missing in ("firstName", "email"):
        body = customer_body()
        del body[missing]
        error = failed(api.post("/customers", body), 400)
        assert [detail["field"] for detail in error["details"]] == [missing]
        error = failed(api.post("/customers", customer_body(**{missing: None})), 400)
        assert [detail["field"] for detail in error["details"]] == [missing]


@pytest.mark.parametrize("field", LIMITS)
def test_each_limit_from_both_sides(api, field):
    """
    > lastName, city, country <= 100; company <= 200; phones <= 50;
    > website a URL <= 500; aboutCustomer <= 2000;
    """
    limit = LIMITS[field]
    for character in ("x", "é", BIG):
        value = character * limit
        assert create_customer(api, **{field: value})[field] == value
        error = failed(api.post("/customers", customer_body(**{field: value + character})), 400)
        assert [detail["field"] for detail in error["details"]] == [field]
        made = create_customer(api)
        failed(api.patch(f"/customers/{made['id']}", {field: value + character}), 400)
        assert ok(api.patch(f"/customers/{made['id']}", {field: value}))[field] == value
    for wrong in (5, True, ["x"], {"x": "y"}):
        failed(api.post("/customers", customer_body(**{field: wrong})), 400)


def test_first_name_has_at_least_one_character(api):
    assert create_customer(api, firstName="x")["firstName"] == "x"
    failed(api.post("/customers", customer_body(firstName="")), 400)
    failed(api.patch(f"/customers/{create_customer(api)['id']}", {"firstName": ""}), 400)


def test_the_longest_e_mail(api):
    longest = "a" * 64 + E_MAIL
    assert len(longest) == 254
    assert create_customer(api, email=longest)["email"] == longest
    too_long = longest.replace(".com", "b.com")
    error = failed(api.post("/customers", customer_body(email=too_long)), 400)
    assert [detail["field"] for detail in error["details"]] == ["email"]


@pytest.mark.parametrize(
    "email",
    [
        *("", "x", "@", "x@", "@x.com", "x@y", "x y@example.com", "x@exa mple.com"),
        *("x@@example.com", "x@example.com, y@example.com", "x@example..com"),
        *("x\n@example.com", "<x@example.com>"),
    ],
)
def test_what_is_no_e_mail_address(api, email):
    error = failed(api.post("/customers", customer_body(email=email)), 400)
    assert [detail["field"] for detail in error["details"]] == ["email"]
    failed(api.patch(f"/customers/{create_customer(api)['id']}", {"email": email}), 400)


@pytest.mark.parametrize(
    "email", ["x@example.com", "x.y+z@sub.example.co.uk", "o'hara@example.com", "x@münchen.example"]
)
def test_what_is_one(api, email):
    assert create_customer(api, email=email)["email"] == email


def test_the_longest_url(api):
    longest = "https://example.com/" + "x" * 480
    assert create_customer(api, website=longest)["website"] == longest
    error = failed(api.post("/customers", customer_body(website=longest + "x")), 400)
    assert [detail["field"] for detail in error["details"]] == ["website"]


@pytest.mark.parametrize("website", ["", "not a url", "x", "http://", "https://", "://example.com"])
def test_what_is_no_url(api, website):
    error = failed(api.post("/customers", customer_body(website=website)), 400)
    assert [detail["field"] for detail in error["details"]] == ["website"]


@pytest.mark.parametrize(
    "website",
    [
        "http://example.com",
        "https://example.com/a?b=c#d",
        "https://example.com:8443/",
        "HTTP://EXAMPLE.COM/",
    ],
)
def test_what_is_one_url(api, website):
    assert create_customer(api, website=website)["website"] == website


def test_unknown_fields_and_nul_are_refused(api):
    """
    > unknown field, NUL, a date that is not in the calendar: 400;
    """
    for name in (
        "nickname",
        "FirstName",
        "first_name",
        "id",
        "createdAt",
        "updatedAt",
        "",
        "x" * 500,
    ):
        error = failed(api.post("/customers", customer_body(**{name: "x"})), 400)
        assert error["details"], name
        failed(api.patch(f"/customers/{create_customer(api)['id']}", {name: "x"}), 400)
    for field in (*LIMITS, "email", "website", "customerId", "subscriptionDate"):
        error = failed(api.post("/customers", customer_body(**{field: "a\0b"})), 400)
        assert [detail["field"] for detail in error["details"]] == [field]


@pytest.mark.parametrize("escape", ["\\ud800", "\\udc00x", "\\ud800\\ud800"])
def test_half_a_character_is_refused(api, escape):
    """A lone surrogate is no character; PostgreSQL would not take it."""
    body = json.dumps(customer_body(city="CITY")).replace("CITY", escape)
    failed(api.http.post("/customers", content=body.encode()), 400)


@pytest.mark.parametrize(
    "text",
    [
        "Łódź",
        "北京",
        'O\'Brien "x" \\ / %s',
        "مرحبا",
        "👩‍👩‍👧",
        "e\u0301",
        "a\tb\r\nc",
        "<script>",
        "NULL",
    ],
)
def test_any_text_comes_back_as_it_was(api, text):
    made = create_customer(api, city=text, aboutCustomer=text)
    assert (made["city"], made["aboutCustomer"]) == (text, text)
    assert ok(api.get(f"/customers/{made['id']}"))["city"] == text


@pytest.mark.parametrize(
    "date",
    [
        *("2021-01-16", "2024-02-29", "2000-02-29", "1970-01-01", "0001-01-01", "9999-12-31"),
        "2021-01-16T00:00:00.000Z",
    ],
)
def test_a_date_travels_as_midnight_utc(api, date):
    """
    > `subscriptionDate` travels as a full timestamp at midnight UTC (`"2021-01-16T00:00:00.000Z"`);
    > a plain date is accepted on input.
    """
    made = create_customer(api, subscriptionDate=date)
    assert made["subscriptionDate"] == f"{date[:10]}T00:00:00.000Z"
    # What was read can be written.
    again = ok(
        api.patch(f"/customers/{made['id']}", {"subscriptionDate": made["subscriptionDate"]})
    )
    assert again["subscriptionDate"] == made["subscriptionDate"]


@pytest.mark.parametrize(
    "date",
    [
        *("2023-02-29", "1900-02-29", "2021-04-31", "2021-13-01", "2021-00-10", "2021-01-00"),
        *("0000-01-01", "", "yesterday", "16.01.2021", "2021/01/16", "2021-01", "10000-01-01"),
        *("-2021-01-16", "2021-02-30T00:00:00.000Z", "2021-01-16T25:00:00.000Z"),
        *("٢٠٢١-٠١-١٦", 20210116, True),
    ],
)
def test_a_date_that_is_not_in_the_calendar_is_refused(api, date):
    error = failed(api.post("/customers", customer_body(subscriptionDate=date)), 400)
    assert [detail["field"] for detail in error["details"]] == ["subscriptionDate"]
    failed(api.patch(f"/customers/{create_customer(api)['id']}", {"subscriptionDate": date}), 400)


def test_an_e_mail_or_identity_of_another_live_customer_is_a_conflict(api):
    """
    > an e-mail (in any letter case) or a `customerId` that another live customer has: 409.
    """
    made = create_customer(api, email="Straße.Ünique@Example.com", customerId="Taken-1")
    for email in (
        made["email"],
        "STRASSE.ÜNIQUE@EXAMPLE.COM".replace("SS", "ß"),
        "straße.ünique@EXAMPLE.COM",
    ):
        failed(api.post("/customers", customer_body(email=email)), 409)
        failed(api.patch(f"/customers/{create_customer(api)['id']}", {"email": email}), 409)
    failed(api.post("/customers", customer_body(customerId="Taken-1")), 409)
    # Its own address, in other letters, is no conflict; another identity only looks like it.
    ok(api.patch(f"/customers/{made['id']}", {"email": "STRAßE.ünique@example.com"}))
    create_customer(api, customerId="taken-1")
    # Who is deleted holds nothing.
    ok(api.delete(f"/customers/{made['id']}"))
    again = create_customer(api, email="straße.ünique@example.com", customerId="Taken-1")
    assert ok(api.get(f"/customers/{again['id']}"))["customerId"] == "Taken-1"


def test_an_identity_is_generated_unless_given(api):
    """
    > A `customerId` is generated unless given
    """
    seen = {create_customer(api)["customerId"] for _ in range(20)}
    seen.add(create_customer(api, customerId=None)["customerId"])
    assert len(seen) == 21
    assert all(0 < len(address) <= 255 for address in seen)
    for identity in ("x" * 255, "ä b/c?d", BIG * 255):
        assert create_customer(api, customerId=identity)["customerId"] == identity
    failed(api.post("/customers", customer_body(customerId="x" * 256)), 400)
    failed(api.post("/customers", customer_body(customerId="")), 400)


@pytest.mark.parametrize("number", range(5))
def test_of_many_at_once_with_one_e_mail_one_is_created(api, shared_dsn, number):
    email = f"race{number}@example.com"
    letters = [email, email.upper(), email.capitalize()]
    answers = in_parallel(
        12, lambda index: api.post("/customers", customer_body(email=letters[index % 3]))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    with psycopg.connect(shared_dsn) as conn:
        found = conn.execute(
            "SELECT count(*) FROM customers WHERE lower(email) = %s AND deleted_at IS NULL", [email]
        )
        assert found.fetchone() == (1,)


def test_several_servers_create_one(serve, dsn):
    """Whichever process is asked: one e-mail address, one identity, one result for a key."""
    servers = [serve(DATABASE_URL=dsn) for _ in range(2)]
    body = customer_body()
    answers = in_parallel(12, lambda index: servers[index % 2].post("/customers", body))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    answers = in_parallel(
        12, lambda index: servers[index % 2].post("/customers", customer_body(customerId="one"))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    body = customer_body()
    answers = in_parallel(
        12, lambda index: servers[index % 2].post("/customers", body, idempotency_key="one")
    )
    made = {answer.json()["data"]["id"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert ok(servers[0].get("/customers"))["pagination"]["totalItems"] == 3


def test_of_many_changes_to_one_e_mail_one_succeeds(api):
    made = [create_customer(api) for _ in range(8)]
    changes = {"email": "wanted@example.com"}
    answers = in_parallel(8, lambda index: api.patch(f"/customers/{made[index]['id']}", changes))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


def test_of_many_at_once_with_one_identity_one_is_created(api):
    answers = in_parallel(8, lambda _: api.post("/customers", customer_body(customerId="race-1")))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
