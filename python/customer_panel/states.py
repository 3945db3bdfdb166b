"""The life of an import as one table: from which state which event leads where.

Interrupted is not failed: whatever kills a runner leaves a job that the next start takes up. FAILED
is for what a retry cannot cure.
"""

from __future__ import annotations

from typing import Literal

Status = Literal["RUNNING", "PAUSED", "INTERRUPTED", "COMPLETED", "FAILED", "CANCELLED"]
Event = Literal["claim", "complete", "fail", "stop", "lose", "give_up"]

STATUSES: tuple[Status, ...] = (
    "RUNNING",
    "PAUSED",
    "INTERRUPTED",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
)
OPEN: tuple[Status, ...] = ("RUNNING", "PAUSED", "INTERRUPTED")

# A RUNNING job may be claimed too: by who holds the lock, when the runner died without a word.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("RUNNING", "claim"): "RUNNING",
    ("PAUSED", "claim"): "RUNNING",
    ("INTERRUPTED", "claim"): "RUNNING",
    ("RUNNING", "complete"): "COMPLETED",
    ("RUNNING", "fail"): "FAILED",
    ("RUNNING", "stop"): "PAUSED",
    ("RUNNING", "lose"): "INTERRUPTED",
    ("RUNNING", "give_up"): "CANCELLED",
    ("PAUSED", "give_up"): "CANCELLED",
    ("INTERRUPTED", "give_up"): "CANCELLED",
}


def after(status: Status, event: Event) -> Status | None:
    """The state that `event` leads to; None where it means nothing."""
    return TRANSITIONS.get((status, event))
