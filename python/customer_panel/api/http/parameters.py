"""Parameters of paths, queries and headers: how they are read, and what is documented of them.

Whole numbers are strings to Litestar and are read here: as integers it would take "1.0" and "1e1".
"""

from __future__ import annotations

from typing import Any

from litestar.openapi.spec import OpenAPIType
from litestar.params import PathParameter

from customer_panel.api.http.errors import invalid

LARGEST = (1 << 63) - 1  # what a bigint holds
NOT_NUL = r"^[^\u0000]*$"  # PostgreSQL stores no NUL


def whole(low: int, high: int, **more: Any) -> dict[str, Any]:
    """`schema_extra` for a parameter that is read by `read_whole`."""
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


def id_parameter(description: str) -> PathParameter:
    """The parameter `id` of a path; `read_id` reads it."""
    return PathParameter(name="id", description=description, schema_extra=whole(0, LARGEST))


def read_id(text: str) -> int:
    """The id in a path as a number. Raises ApiError 400."""
    return read_whole("id", text, 0, LARGEST)
