"""Customers for the tests: each with an e-mail address that no other has."""

from __future__ import annotations

import itertools
from typing import Any

from support.api import Api, ok

_numbers = itertools.count(1)
FIELDS = {
    *("id", "customerId", "firstName", "lastName", "company", "city", "country", "phone1"),
    *("phone2", "email", "subscriptionDate", "website", "aboutCustomer", "createdAt", "updatedAt"),
}
NULLABLE = FIELDS - {"id", "customerId", "createdAt", "updatedAt"}


def someone(**fields: Any) -> dict[str, Any]:
    """A body for POST."""
    return {"firstName": "Ada", "email": f"someone{next(_numbers)}@example.com", **fields}


def created(api: Api, **fields: Any) -> dict[str, Any]:
    """A customer that was just made."""
    return dict(ok(api.post("/customers", someone(**fields)), 201))
