"""The customer: its columns in the one order that COPY, SQL and bit sets use.

The list itself is ``rust/core/src/customer.rs``. Columns are only ever appended: a column's place
is its bit in ``edited_fields`` and its place in ``edit_base``, in every row that was ever written.
"""

from typing import Literal

import msgspec

from customer_panel._native import customer_fields, full_name_aliases

Kind = Literal["identity", "text", "email", "date"]


class Column(msgspec.Struct, frozen=True):
    """One column. ``limit`` is the longest value in characters, as it is stored; 0 for a date."""

    name: str
    camel: str
    kind: Kind
    limit: int
    aliases: tuple[str, ...]


COLUMNS: tuple[Column, ...] = tuple(
    Column(name, camel, kind, limit, tuple(aliases))
    for name, camel, kind, limit, aliases in customer_fields()
)

# Headers of the pseudo field full_name, which is split into first and last name.
FULL_NAME_ALIASES: tuple[str, ...] = tuple(full_name_aliases())

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
BY_CAMEL: dict[str, Column] = {column.camel: column for column in COLUMNS}
