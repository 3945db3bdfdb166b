"""The life of an import as one table: from which state which event leads where.

The lists of states that SQL and Python ask for, and the diagram in docs/architecture.md, are made
from it. Interrupted is not failed: whatever kills a runner leaves a job that the next start takes
up. FAILED is for what a retry cannot cure.
"""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["RUNNING", "PAUSED", "INTERRUPTED", "COMPLETED", "FAILED", "CANCELLED"]
Event = Literal["claim", "complete", "fail", "stop", "lose", "cancel"]

STATUSES: tuple[Status, ...] = get_args(Status)

# A RUNNING job may be claimed too: by who holds the lock, when the runner died without a word.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("RUNNING", "claim"): "RUNNING",
    ("PAUSED", "claim"): "RUNNING",
    ("INTERRUPTED", "claim"): "RUNNING",
    ("RUNNING", "complete"): "COMPLETED",
    ("RUNNING", "fail"): "FAILED",
    ("RUNNING", "stop"): "PAUSED",
    ("RUNNING", "lose"): "INTERRUPTED",
    ("RUNNING", "cancel"): "CANCELLED",
    ("PAUSED", "cancel"): "CANCELLED",
    ("INTERRUPTED", "cancel"): "CANCELLED",
}


def after(status: Status, event: Event) -> Status | None:
    """The state that `event` leads to; None where it means nothing."""
    return TRANSITIONS.get((status, event))


# Those that can be claimed; of these, those that nobody runs; and those that nothing leaves.
OPEN: tuple[Status, ...] = tuple(status for status in STATUSES if after(status, "claim"))
WAITING: tuple[Status, ...] = tuple(status for status in OPEN if status != "RUNNING")
ENDED: tuple[Status, ...] = tuple(status for status in STATUSES if status not in OPEN)
