"""Every transition of an import from every state, and the documentation of the states."""

from pathlib import Path
from typing import get_args

import pytest

from customer_panel.states import ENDED, OPEN, STATUSES, TRANSITIONS, WAITING, Event, Status, after

DOCS = Path(__file__).parents[2] / "docs/exactly-once.md"
ARCHITECTURE = DOCS.with_name("architecture.md")


@pytest.mark.parametrize("event", get_args(Event))
@pytest.mark.parametrize("status", STATUSES)
def test_an_ended_import_stays_ended_and_an_open_one_leads_to_a_state(status, event):
    reached = after(status, event)
    assert reached is None or reached in STATUSES
    if status in ENDED:
        assert reached is None


def test_an_open_import_can_be_claimed_and_given_up():
    for status in OPEN:
        assert after(status, "claim") == "RUNNING"
        assert after(status, "cancel") == "CANCELLED"


def test_interrupted_is_not_failed():
    assert after("RUNNING", "lose") == "INTERRUPTED"
    assert after("INTERRUPTED", "claim") == "RUNNING"


def diagram() -> str:
    """The table as a Mermaid diagram, for docs/architecture.md."""
    lines = [
        f"    {before} --> {reached}: {event}" for (before, event), reached in TRANSITIONS.items()
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> RUNNING", *lines])


def test_the_diagram_of_the_documentation_is_made_from_the_table():
    assert diagram() in ARCHITECTURE.read_text(), f"put this into it:\n{diagram()}"


def test_the_lists_of_states_follow_from_the_table():
    assert set(OPEN) == set(WAITING) | {"RUNNING"} == {before for before, _ in TRANSITIONS}
    assert set(ENDED) == set(STATUSES) - set(OPEN)


def test_statuses_are_those_of_the_type_and_of_the_documentation():
    assert set(STATUSES) == set(get_args(Status))
    assert set(TRANSITIONS.values()) | {status for status, _ in TRANSITIONS} == set(STATUSES)
    text = DOCS.read_text()
    assert all(f"| {status} |" in text for status in STATUSES)
