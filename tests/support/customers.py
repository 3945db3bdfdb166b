"""Customers for the tests: made over HTTP, each with an e-mail address of its own, or as a file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from customer_panel import _native
from support.api import Api
from support.envelope import ok

_numbers = itertools.count(1)
FIELDS = {
    *("id", "customerId", "firstName", "lastName", "company", "city", "country", "phone1"),
    *("phone2", "email", "subscriptionDate", "website", "aboutCustomer", "createdAt", "updatedAt"),
}
NULLABLE = FIELDS - {"id", "customerId", "createdAt", "updatedAt"}


def customer_body(**fields: Any) -> dict[str, Any]:
    """A body for POST."""
    return {"firstName": "Ada", "email": f"someone{next(_numbers)}@example.com", **fields}


def create_customer(api: Api, **fields: Any) -> dict[str, Any]:
    """A customer that was just made."""
    return dict(ok(api.post("/customers", customer_body(**fields)), 201))


def csv(path: Path, rows: int, **how: Any) -> Path:
    """A generated file of customers."""
    _native.generate(str(path), rows, **how)
    return path
