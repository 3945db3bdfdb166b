"""The log of a server: JSON lines on stderr, from this package, uvicorn and the driver alike.

No line holds a value of a row or a secret: of a foreign exception only its type and place are logged.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime

import msgspec

from customer_panel.api.http.trace import current_trace_id
from customer_panel.redaction import described, redacted

STDERR = 2
PATH_CHARACTERS = 256  # of a path in the log; the paths of the API are far shorter


class Line(msgspec.Struct, omit_defaults=True):
    """The fields of a line, in this order."""

    ts: str
    level: str
    event: str
    method: str | None = None
    path: str | None = None
    status: int | None = None
    ms: float | None = None
    traceId: str | None = None  # noqa: N815 - as in answers
    logger: str | None = None


_encode = msgspec.json.Encoder().encode


def write(line: Line) -> None:
    """Writes `line` in one system call, so that threads and forks do not mix their lines."""
    try:
        os.write(STDERR, _encode(line) + b"\n")
    except OSError:
        return  # stderr is closed; requests are answered all the same


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Lines(logging.Handler):
    """Writes the records of Python's logging as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        event = record.getMessage().strip()
        if record.exc_info and record.exc_info[1] is not None:
            event = f"{event}: {described(record.exc_info[1])}"
        write(
            Line(
                ts=now(),
                level=record.levelname.lower(),
                event=redacted(event),
                traceId=current_trace_id(),
                logger=record.name,
            )
        )


def configure() -> None:
    """Sends everything that this process logs to stderr as JSON lines."""
    root = logging.getLogger()
    root.handlers = [Lines()]
    root.setLevel(logging.WARNING)
    logging.getLogger("customer_panel").setLevel(logging.INFO)
    # Its messages about start and stop repeat ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
