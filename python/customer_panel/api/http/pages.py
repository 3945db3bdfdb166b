"""Pages of a list: the parameters that ask for one, and where it is in the list."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.params import QueryParameter

from customer_panel.api.http.parameters import LARGEST, read_whole, whole

LIMIT = 100  # entries of a page, at most

Page = Annotated[str, QueryParameter(schema_extra=whole(1, LARGEST, default=1))]
Limit = Annotated[str, QueryParameter(schema_extra=whole(1, LIMIT, default=10))]


class Pagination(msgspec.Struct, rename="camel", frozen=True):
    """Where a page is in the list. After a cursor it has no number."""

    current_page: int | None
    total_pages: int
    total_items: int
    items_per_page: int
    has_next: bool
    has_prev: bool
    next_cursor: int | None


def read_page(page: str, limit: str) -> tuple[int, int]:
    """The number of the page and its size. Raises ApiError 400."""
    return read_whole("page", page, 1, LARGEST), read_whole("limit", limit, 1, LIMIT)


def numbered(page: int, limit: int, total: int) -> Pagination:
    """Page number `page` of a list of `total` entries."""
    return Pagination(
        current_page=page,
        total_pages=-(-total // limit),
        total_items=total,
        items_per_page=limit,
        has_next=page * limit < total,
        has_prev=page > 1,
        next_cursor=None,
    )
