"""The log: one JSON object a line, on stderr, from this package, the server and the driver alike.

No line holds a value of a row or a secret: of exceptions that are not ours it tells kind and place.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime

import msgspec

from customer_panel.errors import described
from customer_panel.settings import redacted

STDERR = 2
PATH_CHARACTERS = 256  # what a log shows of a path; ours are far shorter


class Line(msgspec.Struct, omit_defaults=True):
    """What a line of the log says, in this order."""

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
    """In one piece, so that threads and forks do not mix their lines."""
    try:
        os.write(STDERR, _encode(line) + b"\n")
    except OSError:
        return  # nobody reads the log; that is no reason to refuse work


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Lines(logging.Handler):
    """Writes the records of Python's logging as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        from customer_panel.api.middleware.middleware import current_trace_id

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
    """Sends everything that is logged in this process to stderr as lines."""
    root = logging.getLogger()
    root.handlers = [Lines()]
    root.setLevel(logging.WARNING)
    logging.getLogger("customer_panel").setLevel(logging.INFO)
    # What it says of its own start and stop is said better by ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
