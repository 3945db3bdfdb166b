"""The options, progress and result of an import, and the job that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Literal

import msgspec

from customer_panel.settings import BATCH_ROWS, MEMORY_BYTES, Settings
from customer_panel.states import Status

Blank = Literal["keep", "clear"]
DateOrder = Literal["mdy", "dmy"]
Phase = Literal["settling", "verifying", "scanning", "indexing", "merging", "maintenance", "done"]

DEFAULT_SOURCE = "main"
# The key of the advisory lock that only the runner of a database's imports holds: "cp_impor".
RUNNER_LOCK = 0x63705F696D706F72
RECENT_IDS = 200  # customers that an import wrote last: as many as a snapshot can show
# With 16 MiB the lanes wait for each other's batches and a first load takes 1.35 times as long; below
# 4 MiB commits begin to cost: docs/performance.md, "batch size".
BATCH_BYTES = 4 << 20
BUDGET_BYTES = 64 << 20  # batches of all lanes together, being filled and being sent


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is to be read.

    They are stored with the job, by `ledger.create`. A resume uses the stored ones; an option other
    than None must equal them.
    """

    mapping: tuple[tuple[str, str], ...] = ()
    delimiter: str | None = None
    date_order: DateOrder | None = None
    blank: Blank | None = None  # keep
    source: str | None = None  # DEFAULT_SOURCE


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Options that change only the speed of an import; a resume may use other ones."""

    lanes: int | None = None
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    budget_bytes: int = BUDGET_BYTES
    memory_bytes: int = MEMORY_BYTES
    settle_s: float = 0  # a file is read when it has stood still for so many seconds
    is_safe: bool = True  # False only in benchmarks: no checkpoints, no fence, no block hashes

    @classmethod
    def of(cls, settings: Settings) -> Tuning:
        return cls(
            batch_rows=settings.batch_rows,
            memory_bytes=settings.memory,
            settle_s=settings.settle_s,
        )


class Counts(msgspec.Struct, kw_only=True):
    """Rows by outcome. processed is the sum of all others but warnings."""

    processed: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    protected: int = 0
    duplicate: int = 0
    skipped: int = 0
    pending: int = 0
    warnings: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTERS: tuple[str, ...] = Counts.__struct_fields__


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of an import: counts committed rows only.

    `eta_sec` is None while it is unknown. `batches` is how many batches this run has committed,
    `batch_sec` the sum of the seconds that they took.
    """

    job_id: int | None
    phase: Phase
    counts: Counts
    bytes_read: int
    bytes_total: int | None
    elapsed_sec: float
    rate_rows_per_sec: float
    eta_sec: float | None
    batches: int = 0
    batch_sec: float = 0.0


class ImportResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of an import.

    Rows by outcome add up: processed = inserted + updated + unchanged + protected + duplicate +
    skipped. `elapsed_sec` leaves out `maintenance_sec`, the VACUUM after the load. `warnings` are
    values left empty, such as an unreadable date.
    """

    job_id: int | None
    status: Status
    source: str
    is_resumed: bool
    rows_processed: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    rows_protected: int
    rows_duplicate: int
    rows_skipped: int
    warnings: int
    bytes_read: int
    elapsed_sec: float
    maintenance_sec: float
    rate_rows_per_sec: float
    peak_rss_bytes: int
    mapping: tuple[tuple[str, str], ...]
    unmapped: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True):
    """The right to write for a job: valid until another runner raises its epoch."""

    import_id: int
    epoch: int
    source_id: int
    clears: int  # bit set of the columns that a blank erases
    before_ms: int = 0  # elapsed time of earlier runs


class Lane(msgspec.Struct, kw_only=True):
    """A row of `import_lanes`."""

    lane: int
    done_to: int
    tail_hash: int | None
    counts: Counts
    last_row_hash: int | None
    last_line: int
    recent_ids: list[int]


def total(lanes: Iterable[Lane]) -> Counts:
    """The counts of all lanes of a job."""
    counts = Counts()
    for lane in lanes:
        counts.add(lane.counts)
    return counts


Buffers = BinaryIO | Iterable[bytes]
