"""Every word of the contract is quoted by the test that holds the server to it.

A line of a docstring that begins with `> ` is a quote. It must stand in contract.md as it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
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
    """Every quote in the docstrings of this folder."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                where = f"{path.name}, {getattr(node, 'name', 'module')}"
                lines = (ast.get_docstring(node) or "").splitlines()
                for block in blocks(lines):
                    yield Quote(where, words(block))


def blocks(lines: list[str]) -> Iterator[str]:
    """Quoted lines that follow one another; a line `>` ends a block."""
    block: list[str] = []
    for line in [*lines, ""]:
        quoted = re.match(r"> (.*)", line)
        if quoted:
            block.append(quoted[1])
        elif block:
            yield "\n".join(block)
            block = []


def places(sought: list[str], text: list[str]) -> list[range]:
    """Where `sought` stands in `text`."""
    size = len(sought)
    return [
        range(at, at + size)
        for at in range(len(text) - size + 1)
        if text[at] == sought[0] and text[at : at + size] == sought
    ]


def test_quotes_are_exact():
    text = contract()
    inexact = [
        f"{where}: {' '.join(words)}" for where, words in quotes() if not places(words, text)
    ]
    assert not inexact


def test_every_word_is_quoted():
    text = contract()
    quoted: set[int] = set()
    for _, sought in quotes():
        for place in places(sought, text):
            quoted.update(place)
    left = [
        f"{' '.join(text[max(0, at - 3) : at])} >>> {text[at]}"
        for at in range(len(text))
        if at not in quoted and (at == 0 or at - 1 in quoted or at - 1 not in range(len(text)))
    ]
    assert not left, "not quoted from here on:\n" + "\n".join(left)
