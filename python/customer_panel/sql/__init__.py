"""Every SQL statement of the package: a name, a sentence, the statement.

A file belongs to the Python file of the same stem: no other names its statements. Each statement
follows a line `-- name --`. Lists of columns and of states are made from `customer.py` and
`states.py`:

- `[[ text | separator ]]` is `text` once for each data column (all columns of a customer but its
  identity), joined by `separator`. `{c}` is the column, `{type}` its type, `{shown}` how the API
  shows it, `{bit}` its bit in a bit set, `{index}` its place in an array;
- `<name>` is the fragment of that name, of any file. So a merge writes and compares, and a dry run
  counts, by the same expressions. `<is_open>`, `<is_waiting>` and `<is_end>` are conditions on the
  state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from customer_panel.customer import COLUMNS, Column
from customer_panel.states import ENDED, OPEN, WAITING

FOLDER = Path(__file__).parent
TIMESTAMP = "to_char(c.{c}, 'YYYY-MM-DD\"T00:00:00.000Z\"')"


def _among(states: Iterable[str]) -> str:
    return f"IN ({', '.join(repr(state) for state in states)})"


STATES = {
    "is_open": f"status {_among(OPEN)}",
    "is_waiting": f"status {_among(WAITING)}",
    # Of the state to be written, not of the one in the row.
    "is_end": f"%(status)s {_among(ENDED)}",
}


@cache
def statements() -> dict[str, str]:
    """All statements by name, ready for psycopg. Raises ValueError for a name that occurs twice."""
    bodies: dict[str, str] = dict(STATES)
    for path in sorted(FOLDER.rglob("*.sql")):
        _, *parts = re.split(r"^-- (\w+) --$", path.read_text(encoding="utf-8"), flags=re.M)
        found = dict(zip(parts[::2], parts[1::2], strict=True))
        if len(found) * 2 != len(parts) or found.keys() & bodies.keys():
            raise ValueError(f"{path.name}: a statement's name is taken already")
        bodies |= found
    return {name: _expanded(body, bodies) for name, body in bodies.items()}


def statement(name: str) -> bytes:
    """The statement `name`, as bytes: psycopg takes them as they are. Raises KeyError."""
    return statements()[name].encode()


def _expanded(body: str, fragments: dict[str, str]) -> str:
    while (whole := re.sub(r"<(\w+)>", lambda match: _bare(fragments[match[1]]), body)) != body:
        body = whole

    def each_column(match: re.Match[str]) -> str:
        text, separator = match[1].strip(), match[2]
        return separator.join(
            _of_column(text, place, column) for place, column in enumerate(COLUMNS) if place
        )

    body = re.sub(r"\[\[(.*?)\|([^|]*?)\]\]", each_column, body, flags=re.S)
    return _bare(body)


def _of_column(text: str, place: int, column: Column) -> str:
    is_date = column.kind == "date"
    return (
        text.replace("{shown}", TIMESTAMP if is_date else "c.{c}")
        .replace("{type}", "date" if is_date else "text")
        .replace("{c}", column.name)
        .replace("{bit}", str(1 << place))
        .replace("{index}", str(place + 1))
    )


def _bare(body: str) -> str:
    """Without comments and the final semicolon."""
    return re.sub(r"^--.*\n", "", body.strip() + "\n", flags=re.M).strip().rstrip(";")
