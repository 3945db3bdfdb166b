"""The states of an import as one table: the state that each event leads to.

The lists of states in SQL and Python, and the diagram in docs/architecture.md, are made from it.
Interrupted is not failed: a job whose runner was killed can be claimed again. FAILED means that a
retry would fail too.
"""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["RUNNING", "PAUSED", "INTERRUPTED", "COMPLETED", "FAILED", "CANCELLED"]
Event = Literal["claim", "complete", "fail", "stop", "lose", "cancel"]

STATUSES: tuple[Status, ...] = get_args(Status)

# A RUNNING job may be claimed too, by the session that has the runner lock: its runner has died.
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
    """The state that `event` leads to; None where it is not allowed."""
    return TRANSITIONS.get((status, event))


# States that can be claimed; those of them without a runner; and final states.
OPEN: tuple[Status, ...] = tuple(status for status in STATUSES if after(status, "claim"))
WAITING: tuple[Status, ...] = tuple(status for status in OPEN if status != "RUNNING")
ENDED: tuple[Status, ...] = tuple(status for status in STATUSES if status not in OPEN)
