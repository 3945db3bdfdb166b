"""Customers over HTTP."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, QueryParameter

from customer_panel.api.customers.shapes import (
    CreateCustomer,
    Customer,
    CustomerPage,
    CustomerPageResponse,
    CustomerResponse,
    Deleted,
    DeletedResponse,
    UpdateCustomer,
)
from customer_panel.api.http import idempotency
from customer_panel.api.http.body import JsonBody
from customer_panel.api.http.envelope import Answer, encode, ok
from customer_panel.api.http.errors import ApiError, invalid, responses
from customer_panel.api.http.pages import Limit, Page, Pagination, read_page
from customer_panel.api.http.parameters import (
    LARGEST,
    NOT_NUL,
    id_parameter,
    read_id,
    read_whole,
    whole,
    words,
)
from customer_panel.api.state import panel
from customer_panel.customer import BY_NAME
from customer_panel.customers import store
from customer_panel.customers.values import STORED
from customer_panel.db.pool import connection
from customer_panel.errors import NoSuchCustomer

AnyRequest = Request[Any, Any, Any]

Id = Annotated[str, id_parameter("The number of a customer.")]
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
    page: Page = "1",
    limit: Limit = "10",
    after: Annotated[
        str | None,
        QueryParameter(
            schema_extra=whole(0, LARGEST),
            description="The `nextCursor` of the page before; `page` then says nothing.",
        ),
    ] = None,
    customer_id: Annotated[
        str | None,
        QueryParameter(
            name="customerId",
            pattern=NOT_NUL,
            description="The whole identity; one that is an e-mail in any spelling of it.",
            schema_extra={"max_length": BY_NAME["customer_id"].limit},
        ),
    ] = None,
    email: Annotated[
        str | None,
        QueryParameter(
            pattern=NOT_NUL,
            description="The whole address, in any letter case and any spelling of its accents.",
            schema_extra=words(max_length=BY_NAME["email"].limit),
        ),
    ] = None,
) -> Answer[CustomerPageResponse]:
    number, size = read_page(page, limit)
    for name, value in (("customer_id", customer_id), ("email", email)):
        column = BY_NAME[name]
        if value is not None and len(STORED[column.kind](value) or "") > column.limit:
            raise invalid(column.camel, f"must have a length <= {column.limit}")
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
    row = await panel(request).lookup.get(read_id(customer))
    if row is None:
        raise NoSuchCustomer
    return customer_answer("Customer", row)


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
    idempotency_key: idempotency.Header = None,  # noqa: ARG001 - `key_of` reads it
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
    return customer_answer("Customer created", row, status=201)


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
    number = read_id(customer)
    given = {
        name: value
        for name, value in msgspec.structs.asdict(data).items()
        if value is not msgspec.UNSET
    }
    async with connection(panel(request).pool) as conn, conn.transaction():
        row = await store.update(conn, number, given, matching(if_match))
    return customer_answer("Customer updated", row)


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
    number = read_id(customer)
    async with connection(panel(request).pool) as conn:
        async with conn.transaction():
            await store.delete(conn, number, matching(if_match))
        await store.fold_sometimes(conn, number)
    return ok("Customer deleted", Deleted(number))


customers_router = Router(
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


def customer_answer(message: str, row: store.Row, *, status: int = 200) -> Answer[CustomerResponse]:
    payload = encode(Customer(*row))
    headers = {"ETag": tag(payload)}
    if status == 201:
        headers["Location"] = f"{customers_router.path}/{row[0]}"
    return ok(message, msgspec.Raw(payload), status=status, headers=headers)


def tag(payload: bytes) -> str:
    """The ETag of a customer, from the JSON that shows it."""
    return f'"{hashlib.blake2b(payload, digest_size=12).hexdigest()}"'


# A list of entity tags (RFC 9110): any visible characters in quotes, with W/ in front of a weak one.
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"\s*{_TAG}(?:\s*,\s*{_TAG})*\s*")


def matching(header: str | None) -> store.Matches | None:
    """The condition of If-Match; None: any customer. Weak and malformed tags match no customer."""
    if header is None or header.strip() == "*":
        return None
    tags = set()
    if _TAGS.fullmatch(header):
        tags = {found[0] for found in re.finditer(r'(?:W/)?"[^"]*"', header)}
    return lambda row: tag(encode(Customer(*row))) in tags
