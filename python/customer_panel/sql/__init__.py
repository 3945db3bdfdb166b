"""Every SQL statement of the package: a name, a sentence, the statement.

A file holds any number of them, each under a line `-- name --`. `[[ text | separator ]]` stands for
`text` once for each of the eleven data columns, joined by `separator`: `{c}` is the column, `{bit}`
its place in a bit set, `{index}` its place in an array. `<name>` stands for the fragment of that
name, in whichever file, so that what is written, what is compared and what is rehearsed is one
expression. `customer.py` is the only list of the columns.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from customer_panel.customer import COLUMNS

FOLDER = Path(__file__).parent


@cache
def statements() -> dict[str, str]:
    """All statements by name, ready for psycopg. Raises ValueError for a name given twice."""
    bodies: dict[str, str] = {}
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
        texts = (
            text.replace("{c}", column.name)
            .replace("{bit}", str(1 << place))
            .replace("{index}", str(place + 1))
            for place, column in enumerate(COLUMNS)
            if place
        )
        return separator.join(texts)

    body = re.sub(r"\[\[(.*?)\|([^|]*?)\]\]", each_column, body, flags=re.S)
    return _bare(body)


def _bare(body: str) -> str:
    """Without comments and the final semicolon."""
    return re.sub(r"^--.*\n", "", body.strip() + "\n", flags=re.M).strip().rstrip(";")
