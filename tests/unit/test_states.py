"""Every transition of an import from every state, and the documentation of the states."""

from pathlib import Path
from typing import get_args

import pytest

from customer_panel.states import OPEN, STATUSES, TRANSITIONS, Event, Status, after

DOCS = Path(__file__).parents[2] / "docs/exactly-once.md"
ENDED = set(STATUSES) - set(OPEN)


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
        assert after(status, "give_up") == "CANCELLED"


def test_interrupted_is_not_failed():
    assert after("RUNNING", "lose") == "INTERRUPTED"
    assert after("INTERRUPTED", "claim") == "RUNNING"


def test_statuses_are_those_of_the_type_and_of_the_documentation():
    assert set(STATUSES) == set(get_args(Status))
    assert set(TRANSITIONS.values()) | {status for status, _ in TRANSITIONS} == set(STATUSES)
    text = DOCS.read_text()
    assert all(f"| {status} |" in text for status in STATUSES)
