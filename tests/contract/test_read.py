"""GET /customers and /customers/{id}: pages, filters, cursors, ids."""

from __future__ import annotations

import psycopg
import pytest

from support.customers import FIELDS, create_customer
from support.envelope import failed, ok

NOT_DIGITS = [
    "abc",
    "1.5",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "1_0",
    "%20",
    "1%20",
    "%00",
    "１",
    "٣",
    "null",
]
TOO_LARGE = ["9223372036854775808", "18446744073709551616", "9" * 500]


@pytest.fixture(scope="module")
def customers(api):
    """25 customers, oldest first; nobody else is in the list."""
    return [create_customer(api, city=f"City {number}") for number in range(25)]


def test_a_page_is_newest_first_with_its_place(api, customers):
    """
    > | call | status | notes |
    >
    > `GET /customers?page=1&limit=50`
    > 200
    > `data: {data: [Customer], pagination: {currentPage, totalPages, totalItems, itemsPerPage,
    > hasNext, hasPrev}}`; newest first;
    """
    page = ok(api.get("/customers", page="1", limit="50"))
    assert set(page) == {"data", "pagination"}
    assert all(set(customer) >= FIELDS for customer in page["data"])
    ids = [customer["id"] for customer in page["data"]]
    assert ids == sorted(ids, reverse=True)
    assert ids[:25] == [customer["id"] for customer in reversed(customers)]
    place = page["pagination"]
    assert set(place) >= {
        *("currentPage", "totalPages", "totalItems", "itemsPerPage", "hasNext", "hasPrev")
    }
    assert (place["currentPage"], place["itemsPerPage"]) == (1, 50)
    assert (place["hasNext"], place["hasPrev"]) == (False, False)
    assert place["totalItems"] == len(ids)
    assert place["totalPages"] == 1


def test_defaults(api, customers):
    """
    > defaults page 1, limit 10;
    """
    page = ok(api.get("/customers"))
    assert [customer["id"] for customer in page["data"]] == [
        customer["id"] for customer in customers[:-11:-1]
    ]
    place = page["pagination"]
    assert (place["currentPage"], place["itemsPerPage"], place["totalPages"]) == (1, 10, 3)
    assert (place["hasNext"], place["hasPrev"]) == (True, False)
    assert page == ok(api.get("/customers", page="1", limit="10"))


def test_pages_hold_everybody_once(api, customers):
    for limit in (1, 7, 25, 100):
        seen, number = [], 1
        while True:
            page = ok(api.get("/customers", page=str(number), limit=str(limit)))
            place = page["pagination"]
            seen += [customer["id"] for customer in page["data"]]
            assert place["totalItems"] == 25
            assert place["totalPages"] == -(-25 // limit)
            assert place["hasPrev"] is (number > 1)
            assert place["hasNext"] is (number < place["totalPages"])
            if not place["hasNext"]:
                break
            number += 1
        assert seen == [customer["id"] for customer in reversed(customers)]


def test_a_page_behind_the_last_is_empty(api, customers):
    for number in ("4", "1000", "9007199254740993"):
        page = ok(api.get("/customers", page=number))
        assert page["data"] == []
        place = page["pagination"]
        assert (place["totalItems"], place["hasNext"], place["hasPrev"]) == (25, False, True)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "", " 1", "1e1", "0x1", "٣", "nan"])
def test_page_and_limit_are_whole_numbers_from_one(api, value):
    """
    > page >= 1, limit 1..100, else 400
    """
    assert failed(api.get("/customers", page=value), 400)["details"][0]["field"] == "page"
    assert failed(api.get("/customers", limit=value), 400)["details"][0]["field"] == "limit"


def test_limit_from_both_sides(api, customers):
    for limit in (1, 100):
        assert ok(api.get("/customers", limit=str(limit)))["pagination"]["itemsPerPage"] == limit
    failed(api.get("/customers", limit="101"), 400)
    failed(api.get("/customers", limit="9223372036854775808"), 400)
    for page in ("9223372036854775807", "9223372036854775808", "9" * 400):
        answer = api.get("/customers", page=page)
        assert answer.status_code in (200, 400)


def test_totals_follow_creates_and_deletes(api, customers):
    def total():
        return ok(api.get("/customers", limit="1"))["pagination"]["totalItems"]

    assert total() == 25
    made = create_customer(api)
    assert total() == 26
    ok(api.delete(f"/customers/{made['id']}"))
    assert total() == 25
    failed(api.delete(f"/customers/{made['id']}"), 404)
    assert total() == 25


def test_cursors_hold_everybody_once(api, customers):
    seen = []
    page = ok(api.get("/customers", limit="4"))
    while True:
        seen += [customer["id"] for customer in page["data"]]
        cursor = page["pagination"]["nextCursor"]
        if cursor is None:
            break
        page = ok(api.get("/customers", limit="4", after=str(cursor)))
    assert seen == [customer["id"] for customer in reversed(customers)]
    assert ok(api.get("/customers", after="0"))["data"] == []
    for wrong in ("x", "-1", "9" * 30, "1.0"):
        failed(api.get("/customers", after=wrong), 400)


def test_a_cursor_is_not_moved_by_who_comes_in(api, customers):
    first = ok(api.get("/customers", limit="5"))
    late = create_customer(api)
    second = ok(api.get("/customers", limit="5", after=str(first["pagination"]["nextCursor"])))
    ids = [customer["id"] for customer in first["data"] + second["data"]]
    assert ids == [customer["id"] for customer in customers[:-11:-1]]
    ok(api.delete(f"/customers/{late['id']}"))


def test_filters_are_exact(api, customers):
    customer = customers[7]
    for name in ("customerId", "email"):
        page = ok(api.get("/customers", **{name: customer[name]}))
        assert page["data"] == [customer]
        assert page["pagination"]["totalItems"] == 1
        assert page["pagination"]["hasNext"] is False
        for other in (customer[name][:-1], customer[name] + "x", "%", f"_{customer[name][1:]}"):
            assert ok(api.get("/customers", **{name: other}))["data"] == []
    both = ok(api.get("/customers", email=customer["email"], customerId=customers[8]["customerId"]))
    assert both["data"] == []
    assert both["pagination"]["totalItems"] == 0
    failed(api.get("/customers", email="a\0b"), 400)
    failed(api.get("/customers", customerId="\0"), 400)


def test_several_customers_of_a_file_may_share_an_e_mail(api, customers, shared_dsn):
    """A file may bring one address twice: the filter shows both, newest first, page by page."""
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO customers (customer_id, email, source_hash)"
            " SELECT 'shared-' || n, 'shared@example.com', 0 FROM generate_series(1, 3) AS n"
        )
        conn.execute("INSERT INTO customer_totals SELECT max(id) >> 13, 3 FROM customers")
        try:
            page = ok(api.get("/customers", email="shared@example.com", limit="2"))
            assert [customer["customerId"] for customer in page["data"]] == ["shared-3", "shared-2"]
            assert page["pagination"]["totalItems"] == 3
            assert page["pagination"]["hasNext"] is True
            page = ok(api.get("/customers", email="shared@example.com", limit="2", page="2"))
            assert [customer["customerId"] for customer in page["data"]] == ["shared-1"]
        finally:
            conn.execute("DELETE FROM customers WHERE email = 'shared@example.com'")
            conn.execute("INSERT INTO customer_totals SELECT max(id) >> 13, -3 FROM customers")


def test_an_id_that_nobody_has_is_not_found(api, customers):
    """
    > `GET /customers/{id}`
    > 200 / 404
    """
    assert ok(api.get(f"/customers/{customers[0]['id']}")) == customers[0]
    # Leading zeros make no other number.
    assert ok(api.get(f"/customers/000{customers[0]['id']}")) == customers[0]
    for nobody in ("0", "9223372036854775807", "999999999"):
        failed(api.get(f"/customers/{nobody}"), 404)
        failed(api.patch(f"/customers/{nobody}", {"city": "x"}), 404)
        failed(api.delete(f"/customers/{nobody}"), 404)


@pytest.mark.parametrize("wrong", [*NOT_DIGITS, *TOO_LARGE])
def test_what_is_no_id(api, wrong):
    """
    > an id that is not digits, or does not fit 64 bits: 400
    """
    failed(api.get(f"/customers/{wrong}"), 400)
    failed(api.patch(f"/customers/{wrong}", {"city": "x"}), 400)
    failed(api.delete(f"/customers/{wrong}"), 400)


def test_an_id_beyond_53_bits_keeps_its_digits(api, customers, shared_dsn):
    large = 9007199254740993
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO customers (id, customer_id, source_hash) OVERRIDING SYSTEM VALUE"
            " VALUES (%s, 'large', 0)",
            [large],
        )
        try:
            assert f'"id":{large},' in api.get(f"/customers/{large}").text.replace(": ", ":")
        finally:
            conn.execute("DELETE FROM customers WHERE id = %s", [large])
