"""The customer: its columns in the one order that COPY, SQL and bit sets use.

``rust/core/src/customer.rs`` holds the same table; a test compares the two.
"""

from typing import Literal

import msgspec

Kind = Literal["identity", "text", "email", "date"]


class Column(msgspec.Struct, frozen=True):
    """One column. ``limit`` is the longest value in characters, after trimming; 0 for a date."""

    name: str
    camel: str
    kind: Kind
    limit: int
    aliases: tuple[str, ...]


COLUMNS: tuple[Column, ...] = (
    Column("customer_id", "customerId", "identity", 255, ("customer id", "id", "external id")),
    Column("first_name", "firstName", "text", 100, ("first name",)),
    Column("last_name", "lastName", "text", 100, ("last name",)),
    Column(
        "company",
        "company",
        "text",
        200,
        ("company", "company name", "organization", "organisation"),
    ),
    Column("city", "city", "text", 100, ("city", "town")),
    Column("country", "country", "text", 100, ("country", "country name")),
    Column("phone1", "phone1", "text", 50, ("phone 1", "phone", "mobile", "mobile number")),
    Column("phone2", "phone2", "text", 50, ("phone 2", "secondary phone")),
    Column("email", "email", "email", 254, ("email", "mail", "email address")),
    Column(
        "subscription_date",
        "subscriptionDate",
        "date",
        0,
        ("subscription date", "subscribed at", "created at"),
    ),
    Column("website", "website", "text", 500, ("website", "url", "site")),
    Column(
        "about_customer",
        "aboutCustomer",
        "text",
        2000,
        ("about customer", "about", "notes", "description", "bio"),
    ),
)

# The pseudo field that is split into first and last name.
FULL_NAME_ALIASES: tuple[str, ...] = ("full name", "name", "customer name")

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
BY_CAMEL: dict[str, Column] = {column.camel: column for column in COLUMNS}
