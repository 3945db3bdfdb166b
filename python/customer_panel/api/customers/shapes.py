"""The shapes of requests and answers, and how a body is read.

The limits stand in the types, so that what is enforced and what the OpenAPI document says cannot
differ. They come from `customer.py`.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from msgspec import UNSET, Meta, UnsetType

from customer_panel.api.http.envelope import Success
from customer_panel.api.http.errors import ApiError, Detail, invalid
from customer_panel.customer import BY_NAME
from customer_panel.customers.values import RUN, SPACES

T = TypeVar("T")


# -- customers -----------------------------------------------------------------------------------

Timestamp = Annotated[
    str,
    Meta(
        examples=["2021-01-16T00:00:00.000Z"],
        extra_json_schema={"extra": {"format": "date-time"}},
    ),
]


class Customer(msgspec.Struct, rename="camel", frozen=True):
    """A customer as every answer shows it."""

    # Without the limits of requests: a file's e-mail addresses and websites are taken as they are.
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


class Pagination(msgspec.Struct, rename="camel", frozen=True):
    """Where a page is in the list. After a cursor it has no number."""

    current_page: int | None
    total_pages: int
    total_items: int
    items_per_page: int
    has_next: bool
    has_prev: bool
    next_cursor: int | None


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
# What a name in an address cannot hold unquoted, control characters, and white space.
_NAME = rf"[^{_SPACE}\u0000-\u0020\u007f-\u00a0{_class(chr(34) + '(),:;<>@[]' + chr(92))}]+"
# Of ASCII, letters, digits, hyphen and underscore only.
_LABEL = rf"[^{_SPACE}\u0000-\u002c\u002e\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u00a0]+"

# PostgreSQL stores no NUL.
NOT_NUL = r"^[^\u0000]*$"
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
# Without an example: it would be another customer's.
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


# -- parameters ----------------------------------------------------------------------------------


def whole(low: int, high: int, **more: Any) -> dict[str, Any]:
    """`schema_extra` for a parameter that is a string to Litestar and is read by `read_whole`.

    As an int it would be taken as "1.0" or "1e1" too.
    """
    return {
        "type": OpenAPIType.INTEGER,
        "format": "int64",
        "minimum": low,
        "maximum": high,
        "one_of": None,
        **more,
    }


def words(**more: Any) -> dict[str, Any]:
    """`schema_extra` for an optional parameter: it is absent, or a string, never null."""
    return {"type": OpenAPIType.STRING, "one_of": None, **more}


def read_whole(field: str, text: str, low: int, high: int) -> int:
    """The digits `text` as a number from `low` to `high`. Raises ApiError 400."""
    # Not str.isdigit alone: it takes the digits of every script.
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        if len(digits) <= len(str(high)) and low <= int(digits) <= high:
            return int(digits)
    raise invalid(field, f"must be a whole number from {low} to {high}")


# -- bodies --------------------------------------------------------------------------------------


def decoded(payload: bytes, kind: type[T]) -> T:
    """The JSON `payload` as a `kind`. Raises ApiError 400 that names every field at fault."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.ValidationError:
        raise ApiError(400, "The request body is not valid", _faults(payload, kind)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ApiError(400, "The request body is not JSON") from None


class JsonBody(AbstractDTO[T]):
    """`dto=JsonBody[Kind]` on a handler with a parameter `data: Kind`: see `decoded`.

    The OpenAPI document then says, too, that there are no other fields.
    """

    model_type: type[T]

    def decode_bytes(self, value: bytes) -> T:
        return decoded(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Nothing is generated: msgspec decodes the type as it is."""

    @classmethod
    def create_openapi_schema(
        cls,
        field_definition: Any,
        handler_id: str,  # noqa: ARG003
        schema_creator: Any,
    ) -> Reference | Schema:
        made = schema_creator.for_field_definition(field_definition)
        schema = schema_creator.schema_registry.from_reference(made).schema
        schema.additional_properties = False
        return typing.cast("Reference | Schema", made)


def _faults(payload: bytes, kind: type[Any]) -> list[Detail]:
    """Every field at fault, not the first one only: a form shows them all at once."""
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return [Detail("body", "is not JSON")]
    if not isinstance(found, dict):
        return [Detail("body", "is not an object")]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults = [Detail(name[:100], "is not a known field") for name in found if name not in fields]
    for name, field in fields.items():
        if name not in found:
            if field.required:
                faults.append(Detail(name, "is required"))
            continue
        try:
            msgspec.convert(found[name], field.type)
        except msgspec.ValidationError as wrong:
            faults.append(Detail(name, _sentence(str(wrong), field.type)))
    return faults or [Detail("body", "is not valid")]


def _sentence(wrong: str, kind: Any) -> str:
    if "matching regex" in wrong:
        return _refusal(kind) or "is not valid"
    return (
        wrong.replace("`", "")
        .replace("Expected str of length", "must have a length")
        .replace("Expected", "must be")
    )


def _refusal(kind: Any) -> str | None:
    for part in (*typing.get_args(kind), *getattr(kind, "__metadata__", ())):
        if isinstance(part, Meta):
            if part.extra and "refused" in part.extra:
                return str(part.extra["refused"])
        elif found := _refusal(part):
            return found
    return None
