"""One definition, many readers: the customer, the codes of findings, what the package exports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_errors import tree

import customer_panel
from customer_panel import _native, customer
from customer_panel.sql import statements

CODES = Path(__file__).parents[2] / "docs" / "codes.md"


def documented(title: str) -> dict[str, str]:
    """The codes of one table of docs/codes.md with their sentences."""
    section = CODES.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert section, title
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, flags=re.M))


def test_python_and_rust_have_one_customer() -> None:
    expected = [
        (column.name, column.camel, column.kind, column.limit, list(column.aliases))
        for column in customer.COLUMNS
    ]
    assert _native.customer_fields() == expected


def test_names_are_unique_and_of_one_form() -> None:
    for column in customer.COLUMNS:
        head, *rest = column.name.split("_")
        assert column.camel == head + "".join(part.capitalize() for part in rest)
    assert len(customer.BY_NAME) == len(customer.BY_CAMEL) == 12
    aliases = [alias for column in customer.COLUMNS for alias in column.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(customer.FULL_NAME_ALIASES)


@pytest.mark.parametrize(
    ("title", "is_warning"), [("Rejects", False), ("Warnings", True)], ids=["rejects", "warnings"]
)
def test_every_finding_has_a_line_in_the_docs(title: str, is_warning: bool) -> None:
    expected = {code: text for code, text, warns in _native.finding_codes() if warns == is_warning}
    assert documented(title) == expected


def test_every_exception_has_a_line_in_the_docs() -> None:
    kinds = {kind.code: f"{kind.__name__}: {kind.__doc__}" for kind in tree()}
    section = CODES.read_text().partition("## Exceptions\n")[2]
    lines = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \|", section, flags=re.M)
    assert {code: f"{name}: {text}" for code, name, text in lines} == kinds


def test_findings_are_unique_short_and_begin_small() -> None:
    codes = [code for code, _, _ in _native.finding_codes()]
    assert len(codes) == len(set(codes))
    for _, message, _ in _native.finding_codes():
        assert message[0].islower() or message.split()[0].isupper(), message
        assert len(message) < 90


def test_all_that_is_exported_is_there_and_documented() -> None:
    for name in customer_panel.__all__:
        exported = getattr(customer_panel, name)
        assert name == "__version__" or exported.__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = customer_panel.nonsense


def test_help_loads_neither_the_driver_nor_the_extension() -> None:
    code = (
        "import sys; from customer_panel.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "loaded = {'psycopg', 'customer_panel._native'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_statement_expands_whole() -> None:
    for name, text in statements().items():
        assert not re.search(r"\[\[|\]\]|<\w+>|\{\w+\}", text) or name in FRAGMENTS, name


# Texts that stand within a `[[ ]]` of a statement.
FRAGMENTS = {"brings", "differs", "keeps"}
