"""The trace id: the name of the request that is being answered, in its answer and in its log lines."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

# Nothing in it needs to be escaped, neither in JSON nor in a header.
VALID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

_trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


def start_trace(given: bytes) -> str:
    """Names the request of this context: with `given` if that is a valid trace id, else anew."""
    trace = given.decode() if VALID.fullmatch(given) else secrets.token_hex(8)
    _trace_id.set(trace)
    return trace


def trace_id() -> str:
    """The trace id of the request that is being answered; a fresh one outside of any."""
    return _trace_id.get() or secrets.token_hex(8)


def current_trace_id() -> str | None:
    """The trace id of the request that is being answered; None outside of any."""
    return _trace_id.get()
