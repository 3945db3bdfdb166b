"""Around every request: its name, its line in the log, its figures, the headers of every answer.

The outermost layer, in plain ASGI: what goes wrong further in is logged and counted here too.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

TRACE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

_trace_id: ContextVar[str] = ContextVar("trace_id")


def trace_id() -> str:
    """The name of the request that is being answered; a fresh one outside of any."""
    return _trace_id.get("") or secrets.token_hex(8)
