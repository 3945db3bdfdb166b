"""The exception tree: a message, a stable code and, where there is one, a way out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from customer_panel import errors
from customer_panel.errors import CustomerPanelError, SourceChanged


def tree(root: type[CustomerPanelError] = CustomerPanelError) -> Iterator[type[CustomerPanelError]]:
    yield root
    for below in root.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_docstring_is_the_message(kind: type[CustomerPanelError]) -> None:
    error = kind()
    assert error.message == kind.__doc__
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert error.hint is None or error.hint.endswith(".")


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(codes) == len(set(codes))


def test_message_and_hint_can_be_given() -> None:
    error = errors.DiskFull("no room on /data", hint="Delete something.")
    assert (str(error), error.hint) == ("no room on /data", "Delete something.")
    assert errors.DiskFull.hint != error.hint


def test_source_changed_tells_the_span() -> None:
    error = SourceChanged(span=(16, 32))
    assert error.message == "file changed between byte 16 and 32"
    assert error.span == (16, 32)
