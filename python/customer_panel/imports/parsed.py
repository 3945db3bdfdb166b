"""The parsed rows of a file for a sink other than PostgreSQL. Does not merge duplicates."""

from __future__ import annotations

import logging
import struct
from collections.abc import Generator, Iterator
from datetime import date
from typing import Any, Literal

import msgspec

from customer_panel import customer
from customer_panel._native import Batch, Pipeline, Plan
from customer_panel.errors import SourceUnreadable
from customer_panel.imports.model import Options
from customer_panel.imports.sources import Source, planned
from customer_panel.imports.unchanged import MOST_GROWTHS, Unchanged

COLUMNS: tuple[str, ...] = tuple(column.name for column in customer.COLUMNS)
BUDGET_BYTES = 32 << 20  # parsed rows that wait for the sink, still in their compact form
HEADER_BYTES = 19  # signature, flags and extension of a binary COPY stream

logger = logging.getLogger("customer_panel.imports")

Row = tuple[str | date | None, ...]


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was rejected; or, as a warning, a value of a record that was left empty.

    `raw` is the record as it stands in the file, up to 64 KiB of it.
    """

    line: int
    byte_from: int
    byte_to: int
    severity: Literal["reject", "warning"]
    code: str
    field: str | None
    message: str
    raw: bytes


class ParsedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of a file, in its order: trimmed and converted as an import would store them.

    rows: tuples of the `columns`; subscription_date is a `datetime.date`, None is blank.
    line_numbers: where each row begins, counted from 1.
    rejects: the rejects and warnings of this part of the file.
    span: the bytes of this part of the file.
    """

    rows: list[Row]
    line_numbers: list[int]
    rejects: list[Reject]
    span: tuple[int, int]
    columns: tuple[str, ...] = COLUMNS

    def to_dicts(self) -> list[dict[str, str | date | None]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def parsed_batches(source: Source, options: Options, batch_rows: int) -> Iterator[ParsedBatch]:
    """Batches of at most `batch_rows` rows in file order; memory does not grow with the file.

    Raises MappingError, SourceEmpty, SourceUnreadable; SourceChanged behind the last batch.
    """
    plan = planned(source, options)
    unchanged = Unchanged(source)
    done_to, growths = plan.data_start, 0
    while True:
        tail, end = yield from _passed(source, plan, batch_rows, done_to, unchanged)
        size = unchanged.check()
        if size is None or size <= end:
            break
        # What was appended may go on with a last record without a line end.
        growths, done_to = growths + 1, end if tail is None else tail.span[0]
        if growths > MOST_GROWTHS:
            logger.warning(
                "%s went on growing while it was read; what is behind byte %d was left out",
                *(source.name, done_to),
            )
            return
    if tail is not None and (found := _parsed(tail)):
        yield found


def _passed(
    source: Source, plan: Plan, batch_rows: int, done_to: int, unchanged: Unchanged
) -> Generator[ParsedBatch, None, tuple[Batch | None, int]]:
    """The batches behind `done_to`. Returns that of a last record without a line end, and the byte
    where the source ended.
    """
    pipeline = Pipeline(
        source.native(),
        plan,
        seed=0,
        head=source.head,
        lanes=1,
        done_to=[done_to],
        batch_rows=batch_rows,
        batch_bytes=BUDGET_BYTES // 4,
        budget=BUDGET_BYTES,
    )
    try:
        while (batch := pipeline.next_batch(0)) is not None:
            if found := _parsed(batch):
                yield found
        tail, end, read, *_ = pipeline.outcome()
    except OSError as error:
        raise SourceUnreadable(
            f"{source.name} cannot be read: {error.strerror or error}"
        ) from error
    finally:
        pipeline.stop()
    unchanged.passed(read)
    return tail, end


def _parsed(batch: Batch) -> ParsedBatch | None:
    """The batch as Python objects; frees its native memory. None if it has no rows or rejects."""
    found = ParsedBatch(
        rows=batch.rows(),
        line_numbers=batch.lines(),
        rejects=list(_rejects(batch.findings())),
        span=batch.span,
    )
    batch.release()
    return found if found.rows or found.rejects else None


def _rejects(stream: bytes) -> Iterator[Reject]:
    """The tuples of a binary COPY into `import_rejects`."""
    at = HEADER_BYTES
    while at < len(stream):
        (count,) = struct.unpack_from("!h", stream, at)
        at += 2
        if count < 0:
            return
        values: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from("!i", stream, at)
            at += 4
            values.append(None if length < 0 else stream[at : at + length])
            at += max(length, 0)
        _, line, byte_from, byte_to, *texts, raw = values
        severity, code, field, message = (text and text.decode() for text in texts)
        numbers: dict[str, Any] = {
            name: int.from_bytes(number or b"")
            for name, number in (("line", line), ("byte_from", byte_from), ("byte_to", byte_to))
        }
        yield msgspec.convert(
            {
                **numbers,
                "severity": severity,
                "code": code,
                "field": field,
                "message": message,
                "raw": raw,
            },
            Reject,
        )
