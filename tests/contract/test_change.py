"""PATCH and DELETE: subsets, null, the identity, ETag and If-Match."""

from __future__ import annotations

import json

import pytest

from support.customers import NULLABLE, create_customer, customer_body
from support.envelope import failed, ok
from support.waiting import in_parallel

CHANGES = {
    "firstName": "Grace",
    "lastName": "Hopper",
    "company": "Navy",
    "city": "Arlington",
    "country": "US",
    "phone1": "1",
    "phone2": "2",
    "subscriptionDate": "2020-02-29",
    "website": "https://example.org",
    "aboutCustomer": "COBOL",
}


def test_any_subset_changes_and_the_rest_stays(api):
    """
    > `PATCH /customers/{id}`
    > 200
    > any subset of the POST fields but `customerId`
    """
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    known = dict(made)
    for name, value in CHANGES.items():
        changed = ok(api.patch(place, {name: value}))
        shown = f"{value}T00:00:00.000Z" if name == "subscriptionDate" else value
        known |= {name: shown, "updatedAt": changed["updatedAt"]}
        assert changed == known
    assert changed["createdAt"] == made["createdAt"]
    assert changed["updatedAt"] > made["updatedAt"]
    moved = ok(api.patch(place, {"email": "moved@example.com", "city": None}))
    assert (moved["email"], moved["city"]) == ("moved@example.com", None)
    assert ok(api.patch(place, {}))["email"] == "moved@example.com"
    assert ok(api.get(place))["email"] == "moved@example.com"


def test_the_identity_stays(api):
    """
    > (the identity: 400 unless equal);
    """
    made = create_customer(api, customerId="identity-1")
    place = f"/customers/{made['id']}"
    for other in ("identity-2", "Identity-1", "", None):
        error = failed(api.patch(place, {"customerId": other, "city": "x"}), 400)
        assert [detail["field"] for detail in error["details"]] == ["customerId"]
    assert ok(api.get(place)) == made
    assert ok(api.patch(place, {"customerId": "identity-1", "city": "Rome"}))["city"] == "Rome"


@pytest.mark.parametrize("field", sorted(NULLABLE))
def test_null_clears(api, field):
    """
    > `null` clears a field, `firstName` and `email` too
    """
    made = create_customer(api, **CHANGES)
    assert made[field] is not None
    cleared = ok(api.patch(f"/customers/{made['id']}", {field: None}))
    assert cleared == made | {field: None, "updatedAt": cleared["updatedAt"]}
    assert ok(api.get(f"/customers/{made['id']}")) == cleared


def test_several_customers_may_have_no_e_mail(api):
    for _ in range(3):
        assert (
            ok(api.patch(f"/customers/{create_customer(api)['id']}", {"email": None}))["email"]
            is None
        )


def test_deleted_is_gone_everywhere(api):
    """
    > `DELETE /customers/{id}`
    > 200
    > `data: {"id": id}`
    """
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    assert ok(api.delete(place)) == {"id": made["id"]}
    failed(api.get(place), 404)
    failed(api.patch(place, {"city": "x"}), 404)
    failed(api.delete(place), 404)
    assert made["id"] not in [
        customer["id"] for customer in ok(api.get("/customers", limit="100"))["data"]
    ]
    assert ok(api.get("/customers", customerId=made["customerId"]))["data"] == []
    assert ok(api.get("/customers", email=made["email"]))["data"] == []


def test_delete_takes_no_body_but_does_not_mind_the_content_type(api):
    ok(api.delete(f"/customers/{create_customer(api)['id']}", content_type="application/json"))
    request = api.http.build_request("DELETE", f"/customers/{create_customer(api)['id']}")
    del request.headers["content-type"]
    ok(api.http.send(request))


# -- ETag and If-Match ----------------------------------------------------------------------------


def test_the_tag_moves_with_what_is_shown(api):
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    first = api.get(place).headers["etag"]
    assert first.startswith('"')
    assert first.endswith('"')
    assert api.get(place).headers["etag"] == first
    changed = api.patch(place, {"city": "Paris"})
    assert changed.headers["etag"] != first
    assert api.get(place).headers["etag"] == changed.headers["etag"]
    assert api.post("/customers", customer_body()).headers["etag"]


def test_a_write_on_a_stale_copy_is_refused(api):
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    old = api.get(place).headers["etag"]
    new = api.patch(place, {"city": "Oslo"}, if_match=old).headers["etag"]
    for stale in (old, '"x"', f"W/{new}", f'{old}, "x"'):
        failed(api.patch(place, {"city": "Bern"}, if_match=stale), 412)
        failed(api.delete(place, if_match=stale), 412)
    assert ok(api.get(place))["city"] == "Oslo"
    ok(api.patch(place, {"city": "Bern"}, if_match=f"{old}, {new}"))
    ok(api.patch(place, {"city": "Rome"}, if_match="*"))
    ok(api.delete(place, if_match=api.get(place).headers["etag"]))
    # Nothing is there to match.
    assert api.delete(place, if_match="*").status_code in (404, 412)


@pytest.mark.parametrize("header", ["x", '"', "W/", ",", "**", '"a" "b"', '"ä"'])
def test_a_malformed_match_never_matches(api, header):
    made = create_customer(api)
    headers = {"if-match": header.encode()}
    answer = api.http.patch(f"/customers/{made['id']}", json={"city": "x"}, headers=headers)
    assert answer.status_code in (400, 412)
    assert ok(api.get(f"/customers/{made['id']}"))["city"] is None


@pytest.mark.parametrize("number", range(3))
def test_of_many_writers_with_one_tag_one_wins(api, number):
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    tag = api.get(place).headers["etag"]
    answers = in_parallel(
        8, lambda index: api.patch(place, {"city": f"City {index}"}, if_match=tag)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert ok(api.get(place)) == winner.json()["data"]


def test_concurrent_changes_of_different_fields_are_all_kept(api):
    made = create_customer(api)
    place = f"/customers/{made['id']}"
    names = list(CHANGES)
    in_parallel(len(names), lambda index: api.patch(place, {names[index]: CHANGES[names[index]]}))
    now = ok(api.get(place))
    assert {name: now[name] for name in names if name != "subscriptionDate"} == {
        name: value for name, value in CHANGES.items() if name != "subscriptionDate"
    }


def test_a_body_with_a_field_twice_is_answered(api):
    """JSON does not forbid it; the answer is one of the two or a refusal, never a defect."""
    made = create_customer(api)
    body = json.dumps({"city": "A"})[:-1] + ', "city": "B"}'
    answer = api.http.patch(f"/customers/{made['id']}", content=body)
    assert answer.status_code in (200, 400)
