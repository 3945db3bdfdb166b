"""The shapes of customers over HTTP: what is sent, what is shown.

The limits stand in the types, so that what is enforced and what the OpenAPI document says cannot
differ. They come from `customer.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from customer_panel.api.http.envelope import Success, Timestamp
from customer_panel.api.http.pages import Pagination
from customer_panel.api.http.parameters import NOT_NUL
from customer_panel.customer import BY_NAME
from customer_panel.customers.values import RUN, SPACES


class Customer(msgspec.Struct, rename="camel", frozen=True):
    """A customer as every answer shows it."""

    # No limits, unlike in requests: e-mail addresses and websites of files are stored as they are.
    id: Annotated[int, Meta(examples=[2000001], extra_json_schema={"extra": {"format": "int64"}})]
    customer_id: Annotated[str, Meta(examples=["dE014d010c7ab0c"])]
    first_name: Annotated[str, Meta(examples=["Ada"])] | None
    last_name: Annotated[str, Meta(examples=["Lovelace"])] | None
    company: Annotated[str, Meta(examples=["Analytical Engines Ltd"])] | None
    city: Annotated[str, Meta(examples=["London"])] | None
    country: Annotated[str, Meta(examples=["United Kingdom"])] | None
    phone1: Annotated[str, Meta(examples=["+44 20 7946 0958"])] | None
    phone2: Annotated[str, Meta(examples=["+44 20 7946 0959"])] | None
    email: Annotated[str, Meta(examples=["ada@example.com"])] | None
    subscription_date: Timestamp | None
    website: Annotated[str, Meta(examples=["https://example.com/ada"])] | None
    about_customer: Annotated[str, Meta(examples=["Wrote the first program."])] | None
    created_at: Timestamp
    updated_at: Timestamp


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


def _limits(name: str, example: str, pattern: str = NOT_NUL, refused: str = "has a NUL") -> Meta:
    return Meta(
        max_length=BY_NAME[name].limit,
        pattern=pattern,
        examples=[example],
        extra={"refused": refused},
    )


Identity = Annotated[
    str, _limits("customer_id", "dE014d010c7ab0c", NOT_BLANK, "is blank or has a NUL")
]
# Without an example: that would be the identity of another customer.
SameIdentity = Annotated[
    str,
    Meta(
        max_length=BY_NAME["customer_id"].limit,
        pattern=NOT_BLANK,
        description="Refused unless it is the customer's own.",
    ),
]
FirstName = Annotated[str, _limits("first_name", "Ada", NOT_BLANK, "is blank or has a NUL")]
LastName = Annotated[str, _limits("last_name", "Lovelace")]
Company = Annotated[str, _limits("company", "Analytical Engines Ltd")]
City = Annotated[str, _limits("city", "London")]
Country = Annotated[str, _limits("country", "United Kingdom")]
Phone = Annotated[str, _limits("phone1", "+44 20 7946 0958")]
Email = Annotated[str, _limits("email", "ada@example.com", EMAIL, "is not an e-mail address")]
Website = Annotated[
    str, _limits("website", "https://example.com/ada", URL, "is not the URL of a website")
]
About = Annotated[str, _limits("about_customer", "Wrote the first program.")]
Day = Annotated[
    str,
    Meta(
        pattern=DAY,
        description="A date, or a timestamp, which counts by its day in UTC.",
        examples=["2021-01-16"],
        extra={"refused": "is not a date of the calendar, written YYYY-MM-DD or as a timestamp"},
    ),
]


class CreateCustomer(
    msgspec.Struct, rename="camel", kw_only=True, frozen=True, forbid_unknown_fields=True
):
    """A new customer."""

    first_name: FirstName
    email: Email
    customer_id: Identity | None = None
    last_name: LastName | None = None
    company: Company | None = None
    city: City | None = None
    country: Country | None = None
    phone1: Phone | None = None
    phone2: Phone | None = None
    subscription_date: Day | None = None
    website: Website | None = None
    about_customer: About | None = None


class UpdateCustomer(
    msgspec.Struct,
    rename="camel",
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """The fields to change; null clears one. `customerId` only as it is."""

    customer_id: SameIdentity | UnsetType = UNSET
    first_name: FirstName | UnsetType | None = UNSET
    last_name: LastName | UnsetType | None = UNSET
    company: Company | UnsetType | None = UNSET
    city: City | UnsetType | None = UNSET
    country: Country | UnsetType | None = UNSET
    phone1: Phone | UnsetType | None = UNSET
    phone2: Phone | UnsetType | None = UNSET
    email: Email | UnsetType | None = UNSET
    subscription_date: Day | UnsetType | None = UNSET
    website: Website | UnsetType | None = UNSET
    about_customer: About | UnsetType | None = UNSET
