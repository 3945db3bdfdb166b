"""Makes addresses and errors safe to show: no passwords, and no text that quotes values of rows."""

from __future__ import annotations

import re
import traceback

from customer_panel.errors import CustomerPanelError


def redacted(text: str) -> str:
    """`text` without the passwords of URLs and connection strings in it."""
    text = re.sub(r"(://[^/@\s:]*:)[^@\s]*@", r"\1***@", text)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", text, flags=re.I)


def described(error: BaseException) -> str:
    """Types and tracebacks of an exception and its causes, without their messages: those may quote
    values of rows.
    """
    parts = []
    seen: set[int] = set()
    at: BaseException | None = error
    # An exception may be its own cause.
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        sqlstate = getattr(at, "sqlstate", None)
        kind = type(at).__qualname__ + (f" (SQLSTATE {sqlstate})" if sqlstate else "")
        parts.append(f"{kind}\n{''.join(traceback.format_tb(at.__traceback__))}")
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "caused by: ".join(parts).rstrip()


def log_text(error: BaseException) -> str:
    """`error` for a log: code and message of our own errors, `described` for all others."""
    if isinstance(error, CustomerPanelError):
        return f"{error.code}: {error.message}"
    return described(error)
