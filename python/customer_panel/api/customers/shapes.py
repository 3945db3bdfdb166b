"""The shapes of customers over HTTP: what is sent, what is shown.

The limits stand in the types, so that what is enforced and what the OpenAPI document says cannot
differ. Fields and limits are those of `customer.py`; here stands what the API asks beyond them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType, defstruct

from customer_panel.api.http.envelope import Success, Timestamp
from customer_panel.api.http.pages import Pagination
from customer_panel.api.http.parameters import NOT_NUL
from customer_panel.customer import COLUMNS, Column
from customer_panel.customers.values import RUN, SPACES, STORED

# -- what a value may be ---------------------------------------------------------------------------


def _class(characters: str) -> str:
    r"""For a bracket of a regular expression; \u escapes mean the same in Python and JSON Schema."""
    return "".join(f"\\u{ord(character):04x}" for character in characters)


_SPACE = _class(SPACES).replace(_class(RUN), rf"\u{ord(RUN[0]):04x}-\u{ord(RUN[-1]):04x}")
# The name in an e-mail address: no character that needs quotes, no control character, no white space.
_NAME = rf"[^{_SPACE}\u0000-\u0020\u007f-\u00a0{_class(chr(34) + '(),:;<>@[]' + chr(92))}]+"
# A label of a domain: of ASCII only letters, digits, hyphen and underscore.
_LABEL = rf"[^{_SPACE}\u0000-\u002c\u002e\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u00a0]+"

NOT_BLANK = rf"^[^\u0000]*[^\u0000{_SPACE}][^\u0000]*$"
EMAIL = rf"^[{_SPACE}]*{_NAME}@{_LABEL}(\.{_LABEL})+[{_SPACE}]*$"
URL = (
    rf"^[{_SPACE}]*([Hh][Tt][Tt][Pp][Ss]?://({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])"
    rf"|{_LABEL}(\.{_LABEL})+)\.?(:[0-9]{{1,5}})?([/?#][^{_SPACE}\u0000-\u0020\u007f]*)?[{_SPACE}]*$"
)
# The calendar, leap years included: an impossible date does not match the schema either.
DAY = (
    r"^(([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?$"
)


EXAMPLES = {
    "customer_id": "dE014d010c7ab0c",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "company": "Analytical Engines Ltd",
    "city": "London",
    "country": "United Kingdom",
    "phone1": "+44 20 7946 0958",
    "phone2": "+44 20 7946 0959",
    "email": "ada@example.com",
    "subscription_date": "2021-01-16",
    "website": "https://example.com/ada",
    "about_customer": "Wrote the first program.",
}
REQUIRED = ("first_name", "email")  # of a new customer
# What else than "no NUL" is asked of a field, and what the answer says of a value without it.
RULES = {
    "customer_id": (NOT_BLANK, "is blank or has a NUL"),
    "first_name": (NOT_BLANK, "is blank or has a NUL"),
    "email": (EMAIL, "is not an e-mail address"),
    "website": (URL, "is not the URL of a website"),
    "subscription_date": (
        DAY,
        "is not a date of the calendar, written YYYY-MM-DD or as a timestamp",
    ),
}
DESCRIPTIONS = {
    "date": "A date, or a timestamp, which counts by its day in UTC.",
    "email": "Stored in lower case and in NFC; its length counts as it is stored.",
    "identity": "Stored in NFC; its length counts as it is stored.",
}


def _sent(column: Column) -> Any:
    """The type of a field of a request."""
    pattern, refused = RULES.get(column.name, (NOT_NUL, "has a NUL"))
    return Annotated[
        str,
        Meta(
            max_length=column.limit or None,
            pattern=pattern,
            description=DESCRIPTIONS.get(column.kind),
            examples=_examples(column),
            extra={"refused": refused, "stored": STORED.get(column.kind)},
        ),
    ]


def _shown(column: Column) -> Any:
    """The type of a field of an answer: without limits, as files bring what requests may not."""
    if column.kind == "date":
        return Timestamp | None
    kind: Any = Annotated[str, Meta(examples=_examples(column))]
    return kind if column.kind == "identity" else kind | None


def _examples(column: Column) -> list[str] | None:
    return [EXAMPLES[column.name]] if column.name in EXAMPLES else None


# -- customers -------------------------------------------------------------------------------------

Id = Annotated[int, Meta(examples=[2000001], extra_json_schema={"extra": {"format": "int64"}})]
# Without an example: that would be the identity of another customer.
SameIdentity = Annotated[
    str,
    Meta(
        max_length=COLUMNS[0].limit,
        pattern=NOT_BLANK,
        description="Refused unless it is the customer's own.",
        extra={"stored": STORED["identity"]},
    ),
]

_customer: Any = defstruct(
    "_Customer",
    [
        ("id", Id),
        *((column.name, _shown(column)) for column in COLUMNS),
        ("created_at", Timestamp),
        ("updated_at", Timestamp),
    ],
    rename="camel",
    frozen=True,
)
_create: Any = defstruct(
    "_CreateCustomer",
    [
        *((column.name, _sent(column)) for column in COLUMNS if column.name in REQUIRED),
        *(
            (column.name, _sent(column) | None, None)
            for column in COLUMNS
            if column.name not in REQUIRED
        ),
    ],
    rename="camel",
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
)
_update: Any = defstruct(
    "_UpdateCustomer",
    [
        (COLUMNS[0].name, SameIdentity | UnsetType, UNSET),
        *((column.name, _sent(column) | UnsetType | None, UNSET) for column in COLUMNS[1:]),
    ],
    rename="camel",
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
)


class Customer(_customer):  # type: ignore[misc]
    """A customer as every answer shows it."""


class CreateCustomer(_create):  # type: ignore[misc]
    """A new customer."""


class UpdateCustomer(_update):  # type: ignore[misc]
    """The fields to change; null clears one. `customerId` only as it is."""


class CustomerPage(msgspec.Struct, rename="camel", frozen=True):
    """One page of customers, newest first."""

    data: list[Customer]
    pagination: Pagination


class Deleted(msgspec.Struct, rename="camel", frozen=True):
    """What was deleted."""

    id: int


class CustomerResponse(Success, rename="camel", kw_only=True, frozen=True):
    """One customer in the envelope."""

    data: Customer


class CustomerPageResponse(Success, rename="camel", kw_only=True, frozen=True):
    """One page of customers in the envelope."""

    data: CustomerPage


class DeletedResponse(Success, rename="camel", kw_only=True, frozen=True):
    """The id of a deleted customer in the envelope."""

    data: Deleted
