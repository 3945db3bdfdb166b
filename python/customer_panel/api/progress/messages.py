"""What clients see of a running import: the progress snapshot, and the messages of a stream.

A message is bytes, made once and shared by all streams. It has no `event:` line, because clients use
`EventSource.onmessage`; the field `type` of its JSON says what it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from customer_panel.api.customers.shapes import Customer
from customer_panel.api.http.envelope import Timestamp, encode, timestamp
from customer_panel.imports.model import COUNTERS, Phase
from customer_panel.imports.queries.snapshot import ImportSnapshot
from customer_panel.states import Status

Kind = Literal["snapshot", "progress", "done", "error"]
# 64-bit numbers are sent as text: in JavaScript, whole numbers are exact up to 2 to the 53rd.
Counter = Annotated[str, Meta(pattern="^[0-9]{1,19}$", examples=["12345"])]
RETRY_MS = 1000  # until a client connects again; without it browsers wait 3 to 5 s
Seconds = Annotated[float, Meta(ge=0, examples=[12.5])]


class View(NamedTuple):
    """What a client wants to see of an import."""

    recent: int  # recent customers, at most
    total_rows: int | None  # 100 per cent, while the size of the source is unknown


class Progress(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """How the running import stands, else the one that changed last. Before the first one it is idle."""

    job_id: Annotated[str, Meta(examples=["7"])] | None
    status: Literal["idle", Status]
    phase: Phase | None
    source: str | None
    file_path: str | None
    rows_processed: Counter
    rows_inserted: Counter
    rows_updated: Counter
    rows_unchanged: Counter
    rows_protected: Counter
    rows_duplicate: Counter
    rows_skipped: Counter
    rows_pending: Counter
    warnings: Counter
    bytes_read: Counter
    bytes_total: Counter | None
    percent: Annotated[float, Meta(ge=0, le=100, examples=[42.1])]
    rate_rows_per_sec: Annotated[float, Meta(ge=0, examples=[185_000.0])]
    elapsed_sec: Seconds
    eta_sec: Seconds | None
    started_at: Timestamp | None
    updated_at: Timestamp | None
    completed_at: Timestamp | None
    last_row_hash: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")] | None
    error: str | None
    disable_sync: bool
    recent_customers: list[Customer]


_NOTHING: dict[str, Any] = dict.fromkeys(Progress.__struct_fields__)
_NOTHING |= {f"rows_{name}": "0" for name in COUNTERS if name != "warnings"}
_NOTHING |= {"warnings": "0", "bytes_read": "0", "percent": 0, "rate_rows_per_sec": 0}
IDLE = Progress(
    **_NOTHING | {"status": "idle", "elapsed_sec": 0, "disable_sync": False, "recent_customers": []}
)


def progress_of(snapshot: ImportSnapshot | None, view: View) -> Progress:
    """The progress that clients see; None stands for the time before the first import."""
    if snapshot is None:
        return IDLE
    counts = {
        name if name == "warnings" else f"rows_{name}": str(getattr(snapshot.counts, name))
        for name in COUNTERS
    }
    row_hash = snapshot.last_row_hash
    return Progress(
        job_id=str(snapshot.job_id),
        status=snapshot.status,
        phase=snapshot.phase,
        source=snapshot.source,
        file_path=snapshot.file_path,
        bytes_read=str(snapshot.bytes_read),
        bytes_total=None if snapshot.bytes_total is None else str(snapshot.bytes_total),
        percent=snapshot.percent(view.total_rows),
        rate_rows_per_sec=snapshot.rate_rows_per_sec,
        elapsed_sec=snapshot.elapsed_sec,
        eta_sec=snapshot.eta_sec,
        started_at=_time(snapshot.started_at),
        updated_at=_time(snapshot.updated_at),
        completed_at=None if snapshot.completed_at is None else _time(snapshot.completed_at),
        last_row_hash=None if row_hash is None else f"{row_hash & (1 << 64) - 1:016x}",
        error=snapshot.error,
        disable_sync=snapshot.status == "RUNNING",
        recent_customers=[Customer(*fields) for fields in snapshot.recent[: view.recent]],
        **counts,
    )


def _time(moment: datetime) -> str:
    return timestamp(moment.astimezone(UTC))


# -- messages ------------------------------------------------------------------------------------


class Message:
    """A message about an import, in each view that is asked for; each view is encoded once."""

    def __init__(self, kind: Kind, event_id: str, snapshot: ImportSnapshot | None) -> None:
        self._kind = kind
        self._event_id = event_id
        self._snapshot = snapshot
        self._encoded: dict[View, bytes] = {}

    def __call__(self, view: View) -> bytes:
        if view not in self._encoded:
            self._encoded[view] = self._encode(view)
        return self._encoded[view]

    def _encode(self, view: View) -> bytes:
        progress = progress_of(self._snapshot, view)
        first = b'{"type":"%b",' % self._kind.encode()
        if self._kind != "snapshot":
            first += b'"rate":%b,' % encode(progress.rate_rows_per_sec)
        retry = b"retry: %d\n" % RETRY_MS if self._kind == "snapshot" else b""
        return b"%bid: %b\ndata: %b%b\n\n" % (
            retry,
            self._event_id.encode(),
            first,
            encode(progress)[1:],
        )


def heartbeat(event_id: str) -> bytes:
    now = timestamp()
    return f'id: {event_id}\ndata: {{"type":"heartbeat","ts":"{now}"}}\n\n'.encode()


def end_kind(snapshot: ImportSnapshot) -> Kind:
    """The type of the message that reports the end of an import."""
    return "done" if snapshot.status == "COMPLETED" else "error"


def event_id(end_number: int, number: int) -> str:
    """The id of a message. Who has received it knows all ends of imports up to `end_number`.

    number: of the message, so that no two have the same id.
    """
    return f"{end_number}-{number}"


def end_number_of(event_id: str | None) -> int | None:
    """The last end that the client of this id knows; None for an id that is not from here."""
    found = re.fullmatch(r"([0-9]{1,18})-[0-9]{1,18}", event_id or "")
    return int(found[1]) if found else None
