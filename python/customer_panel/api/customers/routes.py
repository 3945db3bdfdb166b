"""Customers over HTTP."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from customer_panel.api.customers.shapes import (
    NOT_NUL,
    CreateCustomer,
    Customer,
    CustomerPage,
    CustomerPageResponse,
    CustomerResponse,
    Deleted,
    DeletedResponse,
    JsonBody,
    Pagination,
    UpdateCustomer,
    read_whole,
    whole,
    words,
)
from customer_panel.api.http import idempotency
from customer_panel.api.http.envelope import Answer, encode, ok
from customer_panel.api.http.errors import ApiError, responses
from customer_panel.api.state import panel
from customer_panel.customer import BY_NAME
from customer_panel.customers import store
from customer_panel.db.pool import connection
from customer_panel.errors import NoSuchCustomer

LARGEST = (1 << 63) - 1  # what a bigint holds
LIMIT = 100  # customers a page
AnyRequest = Request[Any, Any, Any]

Id = Annotated[
    str,
    PathParameter(
        name="id",
        description="The number of a customer.",
        schema_extra=whole(0, LARGEST),
    ),
]
Match = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="ETags; the customer is left alone unless it still has one of them.",
        schema_extra=words(),
    ),
]
ETAG = ResponseHeader(
    name="ETag",
    description="Changes with anything that is shown of the customer.",
    documentation_only=True,
)


@get(
    "/",
    operation_id="listCustomers",
    summary="List customers, newest first",
    responses=responses(400, 503),
)
async def list_customers(
    request: AnyRequest,
    page: Annotated[str, QueryParameter(schema_extra=whole(1, LARGEST, default=1))] = "1",
    limit: Annotated[str, QueryParameter(schema_extra=whole(1, LIMIT, default=10))] = "10",
    after: Annotated[
        str | None,
        QueryParameter(
            schema_extra=whole(0, LARGEST),
            description="The `nextCursor` of the page before; `page` then says nothing.",
        ),
    ] = None,
    customer_id: Annotated[
        str | None,
        QueryParameter(name="customerId", pattern=NOT_NUL, max_length=BY_NAME["customer_id"].limit),
    ] = None,
    email: Annotated[
        str | None,
        QueryParameter(
            pattern=NOT_NUL,
            max_length=BY_NAME["email"].limit,
            description="The whole address, in any letter case.",
            schema_extra=words(),
        ),
    ] = None,
) -> Answer[CustomerPageResponse]:
    number = read_whole("page", page, 1, LARGEST)
    size = read_whole("limit", limit, 1, LIMIT)
    cursor = None if after is None else read_whole("after", after, 0, LARGEST)
    async with connection(panel(request).pool) as conn:
        found = await store.page(
            conn, limit=size, number=number, after=cursor, email=email, customer_id=customer_id
        )
    pagination = Pagination(
        current_page=number if cursor is None else None,
        total_pages=-(-found.total // size),
        total_items=found.total,
        items_per_page=size,
        has_next=found.has_older,
        has_prev=found.has_newer,
        next_cursor=found.rows[-1][0] if found.has_older and found.rows else None,
    )
    return ok("Customers", CustomerPage([Customer(*row) for row in found.rows], pagination))


@get(
    "/{id:str}",
    operation_id="getCustomer",
    summary="Read a customer",
    response_headers=[ETAG],
    responses=responses(400, 404, 503),
)
async def get_customer(request: AnyRequest, customer: Id) -> Answer[CustomerResponse]:
    row = await panel(request).lookup.get(id_of(customer))
    if row is None:
        raise NoSuchCustomer
    return shown("Customer", row)


@post(
    "/",
    dto=JsonBody[CreateCustomer],
    return_dto=None,
    operation_id="createCustomer",
    summary="Create a customer",
    response_headers=[ETAG],
    responses=responses(400, 409, 413, 415, 503),
)
async def create_customer(
    request: AnyRequest,
    data: CreateCustomer,
    idempotency_key: idempotency.Header = None,  # noqa: ARG001 - `key_of` sees if there are two
) -> Answer[CustomerResponse]:
    key = idempotency.key_of(request, "createCustomer", await request.body())
    async with connection(panel(request).pool) as conn:
        async with conn.transaction():
            earlier = await idempotency.first(conn, key) if key else None
            row = None
            if earlier is None:
                row = await store.create(conn, msgspec.structs.asdict(data))
                if key:
                    await idempotency.keep(conn, key, row[0])
        if row is not None:
            await store.fold_sometimes(conn, row[0])
    if earlier is not None:
        row = await panel(request).lookup.get(earlier)
    if row is None:
        raise ApiError(409, "The customer that was created with this key is deleted")
    return shown("Customer created", row, status=201)


@patch(
    "/{id:str}",
    dto=JsonBody[UpdateCustomer],
    return_dto=None,
    operation_id="updateCustomer",
    summary="Change fields of a customer",
    response_headers=[ETAG],
    responses=responses(400, 404, 409, 412, 413, 415, 503),
)
async def update_customer(
    request: AnyRequest, customer: Id, data: UpdateCustomer, if_match: Match = None
) -> Answer[CustomerResponse]:
    which = id_of(customer)
    given = {
        name: value
        for name, value in msgspec.structs.asdict(data).items()
        if value is not msgspec.UNSET
    }
    async with connection(panel(request).pool) as conn, conn.transaction():
        row = await store.update(conn, which, given, matching(if_match))
    return shown("Customer updated", row)


@delete(
    "/{id:str}",
    status_code=200,
    operation_id="deleteCustomer",
    summary="Delete a customer",
    responses=responses(400, 404, 412, 503),
)
async def delete_customer(
    request: AnyRequest, customer: Id, if_match: Match = None
) -> Answer[DeletedResponse]:
    which = id_of(customer)
    async with connection(panel(request).pool) as conn:
        async with conn.transaction():
            await store.delete(conn, which, matching(if_match))
        await store.fold_sometimes(conn, which)
    return ok("Customer deleted", Deleted(which))


router = Router(
    "/api/v1/customers",
    route_handlers=[
        list_customers,
        get_customer,
        create_customer,
        update_customer,
        delete_customer,
    ],
    tags=["Customers"],
)


def id_of(text: str) -> int:
    """The id in a path. Raises ApiError 400."""
    return read_whole("id", text, 0, LARGEST)


def shown(message: str, row: store.Row, *, status: int = 200) -> Answer[CustomerResponse]:
    payload = encode(Customer(*row))
    headers = {"ETag": tag(payload)}
    if status == 201:
        headers["Location"] = f"{router.path}/{row[0]}"
    return ok(message, msgspec.Raw(payload), status=status, headers=headers)


def tag(payload: bytes) -> str:
    """The ETag of a customer, from the JSON that shows it."""
    return f'"{hashlib.blake2b(payload, digest_size=12).hexdigest()}"'


# RFC 9110: entity tags in a list, a weak one marked; what is in quotes may be any visible character.
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"\s*{_TAG}(?:\s*,\s*{_TAG})*\s*")


def matching(header: str | None) -> store.Matches | None:
    """What If-Match asks of a customer. A weak tag matches none, and so does what is no tag."""
    if header is None or header.strip() == "*":
        return None
    tags = set()
    if _TAGS.fullmatch(header):
        tags = {found[0] for found in re.finditer(r'(?:W/)?"[^"]*"', header)}
    return lambda row: tag(encode(Customer(*row))) in tags


__all__ = ["router"]
