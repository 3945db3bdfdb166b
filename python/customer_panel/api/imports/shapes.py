"""The shapes of imports over HTTP: what is sent, what is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from customer_panel.api.http.envelope import Success, Timestamp
from customer_panel.api.http.pages import Pagination
from customer_panel.api.http.parameters import NOT_NUL
from customer_panel.api.progress.messages import Counter, Seconds, View, progress_of
from customer_panel.imports.model import Phase
from customer_panel.imports.queries import jobs, rejects
from customer_panel.states import Status

NO_CUSTOMERS = View(recent=0, total_rows=None)


Force = Annotated[
    bool,
    Meta(
        description="Go on even if a newer import of the feed has taken rows: older values replace"
        " them.",
    ),
]


class StartImport(
    msgspec.Struct, rename="camel", kw_only=True, frozen=True, forbid_unknown_fields=True
):
    """What to import; all of it has a default."""

    file_path: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=2048,
                pattern=NOT_NUL,
                extra={"refused": "has a NUL"},
                description="A file beneath IMPORT_ROOTS, data/customers.csv say. Default: CSV_PATH.",
            ),
        ]
        | None
    ) = None
    batch_size: (
        Annotated[
            int,
            Meta(
                ge=100,
                le=1_000_000,
                description="Rows a commit, at least: the engine may take more.",
                examples=[10_000],
            ),
        ]
        | None
    ) = None
    progress_update_every_ms: (
        Annotated[
            int,
            Meta(
                ge=200,
                le=30_000,
                description="How often streams are told. Default: IMPORT_PROGRESS_EVERY_MS.",
                examples=[1000],
            ),
        ]
        | None
    ) = None
    total_rows: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=10**15,
                description="Taken for old clients: per cent come from bytes.",
                examples=[2_000_000],
            ),
        ]
        | None
    ) = None
    strict: Annotated[
        bool,
        Meta(
            description="Refuse (409) if an import of another file of the feed is not finished, or this"
            " file is no longer the one that its paused or interrupted import began with.",
        ),
    ] = False
    force: Force = False


class ResumeImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to go on; all of it has a default."""

    force: Force = False


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that says all by its path: `{}`, or none."""


class Job(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """An import. `bytesTotal` is null where the size is not known; `requested` was asked for and is
    not done yet.
    """

    id: Annotated[str, Meta(pattern="^[0-9]{1,19}$", examples=["7"])]
    file_path: Annotated[str, Meta(examples=["/srv/data/customers.csv"])] | None
    status: Status
    phase: Phase
    source: Annotated[str, Meta(examples=["main"])]
    bytes_read: Counter
    bytes_total: Counter | None
    rows_processed: Counter
    rows_inserted: Counter
    rows_updated: Counter
    rows_unchanged: Counter
    rows_protected: Counter
    rows_duplicate: Counter
    rows_skipped: Counter
    rows_pending: Counter
    warnings: Counter
    last_row_hash: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")] | None
    requested: Literal["PAUSED", "CANCELLED"] | None
    started_at: Timestamp
    updated_at: Timestamp
    completed_at: Timestamp | None
    elapsed_sec: Seconds
    error: str | None


class Reject(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A record that was not taken, or a value of one that was left empty. `rawBase64` has the bytes
    where the text `raw` is not the same.
    """

    line: Annotated[int, Meta(ge=1)]
    byte_from: Annotated[int, Meta(ge=0)]
    byte_to: Annotated[int, Meta(ge=0)]
    severity: Literal["reject", "warning"]
    code: Annotated[str, Meta(examples=["no_identity"])]
    field: str | None
    message: str
    raw: str
    raw_base64: str | None


class JobPage(msgspec.Struct, rename="camel", frozen=True):
    """One page of imports, newest first."""

    data: list[Job]
    pagination: Pagination


class RejectPage(msgspec.Struct, rename="camel", frozen=True):
    """One page of what an import set aside, in the order of the file."""

    data: list[Reject]
    pagination: Pagination


class JobResponse(Success, rename="camel", kw_only=True, frozen=True):
    """An import in the envelope."""

    data: Job


class JobPageResponse(Success, rename="camel", kw_only=True, frozen=True):
    """One page of imports in the envelope."""

    data: JobPage


class RejectPageResponse(Success, rename="camel", kw_only=True, frozen=True):
    """One page of rejects in the envelope."""

    data: RejectPage


# -- making them -----------------------------------------------------------------------------------

# The fields that the progress snapshot has too, in the same form.
_SHARED = [name for name in Job.__struct_fields__ if name not in ("id", "requested")]


def job_of(job: jobs.Job) -> Job:
    """The job of an import as clients see it."""
    progress = progress_of(job.snapshot, NO_CUSTOMERS)
    return Job(
        id=str(job.snapshot.job_id),
        requested=job.requested,
        **{name: getattr(progress, name) for name in _SHARED},
    )


def reject_of(record: tuple[Any, ...]) -> Reject:
    """The fields of `rejects.COLUMNS` as clients see them."""
    fields = dict(zip(rejects.COLUMNS, record, strict=True))
    return Reject(**fields | {"raw_base64": fields["raw_base64"] or None})
