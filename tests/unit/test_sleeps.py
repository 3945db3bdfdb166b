"""Tests wait for what they wait for; a sleep that is left has its reason beside it."""

from __future__ import annotations

import io
import itertools
import tokenize
from pathlib import Path

TESTS = Path(__file__).parents[1]
# From Python 3.12 on the text of an f-string is a token of its own.
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def sleeps_without_reason(source: str) -> list[int]:
    """The lines that sleep and have no comment, nor one in the line above."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    calls = {
        name.start[0]
        for name, bracket in itertools.pairwise(tokens)
        if name.string in ("sleep", "pg_sleep") and bracket.string == "("
    }
    # In a statement of SQL it is inside a string.
    calls |= {
        token.start[0]
        for token in tokens
        if token.type in STRINGS and "pg_sleep" + "(" in token.string
    }
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    return sorted(line for line in calls if not {line, line - 1} & comments)


def test_every_sleep_has_its_reason_beside_it():
    found = {
        str(path.relative_to(TESTS)): lines
        for path in sorted(TESTS.rglob("*.py"))
        if (lines := sleeps_without_reason(path.read_text()))
    }
    assert not found


def test_a_sleep_without_a_reason_is_found():
    assert sleeps_without_reason("time.sleep(1)\n") == [1]
    assert sleeps_without_reason("# why\n\nawait asyncio.sleep(1)\n") == [3]
    assert sleeps_without_reason("f(lambda: sleep(1))  # why\n# why\nsleep(2)\n") == []
    assert sleeps_without_reason(f'run("SELECT pg_{"sleep"}(1)")\n') == [1]
