"""The contract, word by word, and which of its words a test quotes.

A line of a docstring that begins with `> ` is a quote. It must stand in contract.md as it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1] / "contract"
CONTRACT = HERE / "contract.md"


class Quote(NamedTuple):
    where: str
    words: list[str]


def words(text: str) -> list[str]:
    """What stands between white space and the borders of table cells."""
    return [word for word in text.split() if not re.fullmatch(r"\||[-|]+", word)]


def contract() -> list[str]:
    lines = CONTRACT.read_text().splitlines()
    return words("\n".join(line for line in lines if not line.startswith("#")))


def quotes() -> Iterator[Quote]:
    """Every quote in the docstrings of tests/contract."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                where = f"{path.name}, {getattr(node, 'name', 'module')}"
                lines = (ast.get_docstring(node) or "").splitlines()
                for block in _blocks(lines):
                    yield Quote(where, words(block))


def _blocks(lines: list[str]) -> Iterator[str]:
    """Runs of quoted lines; a line `>` ends one."""
    run: list[str] = []
    for line in [*lines, ""]:
        quoted = re.match(r"> (.*)", line)
        if quoted:
            run.append(quoted[1])
        elif run:
            yield "\n".join(run)
            run = []


def places(sought: list[str], text: list[str]) -> list[range]:
    """Where `sought` stands in `text`."""
    size = len(sought)
    return [
        range(at, at + size)
        for at in range(len(text) - size + 1)
        if text[at] == sought[0] and text[at : at + size] == sought
    ]
