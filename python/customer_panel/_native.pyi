"""The extension: CSV rows scanned, converted, hashed and sorted into batches, without the GIL.

`customer_panel.imports` uses it, and the commands that generate and examine; the rest of the package
only takes the columns of a customer from it and the rules of e-mails and identities. What it hands out
are streams that PostgreSQL's COPY takes as they are; nothing in it knows a database.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from os import PathLike
from typing import ClassVar, Final, Literal, final

__all__ = [
    "RULES_VERSION",
    "Batch",
    "Broken",
    "Feed",
    "Known",
    "OverBudget",
    "Pieces",
    "Pipeline",
    "Plan",
    "PlanError",
    "Source",
    "Stopped",
    "__version__",
    "customer_fields",
    "email_identity",
    "finding_codes",
    "full_name_aliases",
    "generate",
    "normalize_email",
    "normalize_identity",
    "scan_speed",
    "verify",
]

__version__: Final[str]
RULES_VERSION: Final[int]
"""Of the rules by which values and identities are normalised. Hashed with every row."""

class OverBudget(Exception):
    """The map of known identities would take more than its memory."""

class Stopped(Exception):
    """The pipeline was stopped."""

class Broken(RuntimeError):
    """A thread of the pipeline died: a defect of this program."""

class PlanError(Exception):
    """The columns cannot be matched with the fields of a customer. args: (code, message)."""

@final
class Plan:
    """Which column of a file is which field of a customer. Decided once per import."""

    @staticmethod
    def from_header(
        sample: bytes,
        *,
        delimiter: str | None = None,
        overrides: Sequence[tuple[str, str]] = ...,
        date_order: str | None = None,
    ) -> Plan:
        """Reads the header at the start of `sample`; `overrides` are (header, field).

        delimiter: one ASCII character, neither a letter, a digit, a quote, a line end nor NUL.
        date_order: "mdy", "dmy", or None for dates that can be read one way only. Raises PlanError;
        ValueError for another date order.
        """

    @staticmethod
    def restore(
        delimiter: str,
        headers: Sequence[str],
        mapping: Sequence[tuple[str, str]],
        *,
        date_order: str | None,
        data_start: int,
        header_lines: int,
    ) -> Plan:
        """The plan that an import was begun with; nothing is guessed again.

        Raises PlanError; ValueError for another date order, and for a header that cannot be.
        """

    @property
    def data_start(self) -> int:
        """Where the first record begins: bytes of byte order mark and header."""

    @property
    def header_lines(self) -> int:
        """Line ends before the first record."""

    @property
    def delimiter(self) -> str: ...
    @property
    def headers(self) -> list[str]: ...
    @property
    def mapping(self) -> list[tuple[str, str]]:
        """Header and field of each column that is read, in file order."""

    @property
    def unmapped(self) -> list[str]:
        """Headers of the columns that are not read."""

    def header_hash(self, head: bytes) -> int:
        """Hash of the bytes before the first record, of which `head` begins with all."""

    def average_record_bytes(self, head: bytes) -> int:
        """How long the records of `head` are on average; its own length where none is whole."""

    @property
    def fields(self) -> int:
        """Bit set of the columns of `customers` that the file can fill."""

@final
class Known:
    """What the database holds of the identities of some lanes.

    Filled by any number of threads, then given to one pipeline.
    """

    def __new__(
        cls,
        seed: int,
        *,
        expected: int,
        memory: int,
        lanes: int,
        first_lane: int,
        lane_count: int,
    ) -> Known:
        """Room for `expected` identities, a gibibyte of it at once; never more than `memory` bytes."""

    def load_hashes(self, ids: bytes, hashes: bytes) -> None:
        """Adds customer ids (`text[]`) and their source hashes (`int8[]`).

        Both as PostgreSQL sends arrays in binary form. Raises OverBudget; ValueError for anything
        but such arrays; RuntimeError once the map was given away.
        """

    def load_flags(self, ids: bytes, flags: bytes) -> None:
        """Adds flags (`int4[]`) to customer ids (`text[]`). Raises as `load_hashes` does."""

@final
class Feed:
    """Hands buffers to the source that was made of it."""

    def __new__(cls) -> Feed: ...
    def push(self, buffer: bytes) -> bool:
        """Waits for room, a mebibyte of it, and hands `buffer` over piece by piece.

        False if nobody reads any more, or after `close`.
        """

    def close(self, error: str | None = None) -> None:
        """Ends the source, as its end or (with `error`) as a failure to read it.

        Only the first call counts. Never waits, and ends a `push` that does. A feed that goes away
        without it is a failure too.
        """

@final
class Source:
    """The bytes of an import: read for its header, compared with an earlier run, and read in passes.

    Every position counts these bytes from the first one on.
    """

    @staticmethod
    def from_file(descriptor: int) -> Source:
        """A file, by a descriptor of which the source keeps a copy. Raises OSError."""

    @staticmethod
    def from_feed(feed: Feed) -> Source:
        """What a feed hands over. Raises RuntimeError for a feed that has a source already."""

    @property
    def is_rewindable(self) -> bool:
        """Whether it can be read more than once: a file can, a feed cannot."""

    def head(self, count: int) -> bytes:
        """Waits for the first `count` bytes; fewer if the source has no more.

        Raises OSError, Stopped; ValueError for more than 64 MiB.
        """

    def stop(self) -> None:
        """Ends whatever reads the source or waits for it, now and later, with Stopped."""

@final
class Pipeline:
    """Reads a source and sorts its rows into the batches of lanes, on threads of its own."""

    def __new__(
        cls,
        source: Source,
        plan: Plan,
        *,
        seed: int,
        lanes: int,
        done_to: Sequence[int],
        batch_rows: int,
        batch_bytes: int,
        budget: int,
        first_lane: int = 0,
        known: Known | None = None,
        import_id: int = 0,
        blank_clear: bool = False,
        until: int | None = None,
        checkpoint_bytes: int = ...,
        parks_changed: bool = False,
        parks_many: bool = False,
        parks_done: bool = False,
        is_second: bool = False,
        hashes_blocks: bool = True,
        parsers: int = 2,
    ) -> Pipeline:
        """Starts the threads, which read the source from its first byte on.

        done_to: for each lane of this run (from `first_lane` on, of `lanes`) the offset up to which
            it is done.
        known: None: every row is new.
        batch_rows, batch_bytes: a batch is closed when it has so many rows, or about so many bytes;
            at a gibibyte in any case.
        budget: bytes that all batches in flight take together.
        until: rows that begin at or behind this offset are not read.
        parks_changed: changed rows wait in `import_parked`.
        parks_many: so do all rows of customers that had several rows in the last file.
        parks_done: the second reading parks whatever an earlier run has done.
        is_second: parks the rows of customers with other rows than before, and does nothing else;
            `known` is the map from the outcome of the first reading.
        Raises OSError; ValueError for lanes or parsers that cannot be; RuntimeError for a stream or a
        map that was used already.
        """

    def next_batch(self, lane: int) -> Batch | None:
        """The next batch of a lane, in file order; None when no more will come, for any reason.

        `outcome` says for which. Waits for the source, and until earlier batches are released; `stop`
        ends that. Raises ValueError for a lane that is not of this pipeline.
        """

    def outcome(
        self,
    ) -> tuple[list[Batch], int, int, tuple[list[tuple[int, int]], int, int], int, Known | None]:
        """Waits for the end of the source.

        Returns the batches of the tail, the byte where the tail begins, and the bytes of the source;
        the hashes of all that was read: its whole 16 MiB blocks, the bytes hashed, the hash of the
        rest; how many customers with several rows have the same rows as before, which were counted
        as pending; and the map for the second reading, unless all have.
        The tail is what a longer file might hold differently: a last record without line end, and
        all from a quote on that nothing closes. At most one batch for each lane.
        To be called once, when every lane has given None or after `stop`, else RuntimeError. Raises
        OSError, OverBudget, Stopped, Broken.
        """

    def stop(self) -> None:
        """Stops all threads, also one that waits for its source."""

@final
class Batch:
    """Rows of one lane that are committed together."""

    BLOCK_BYTES: ClassVar[int]

    @property
    def lane(self) -> int: ...
    @property
    def span(self) -> tuple[int, int]:
        """The byte span of the file whose rows of this lane these are."""

    @property
    def counts(self) -> tuple[int, int, int, int, int, int, int, int]:
        """Rows: processed, new, changed, unchanged, duplicate, pending, skipped; warnings."""

    @property
    def parked_rows(self) -> int:
        """How many rows `parked` holds."""

    @property
    def last_row_hash(self) -> int | None: ...
    @property
    def last_line(self) -> int: ...
    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(number, hash) of the 16 MiB blocks completed since the lane's previous batch."""

    @property
    def tail_hash(self) -> int:
        """Hash of the file from the end of its last 16 MiB block to the end of the span."""

    def sort(self) -> None:
        """Puts the rows in the order of their keys."""

    def release(self) -> None:
        """Frees the rows; span and counts stay.

        The pipeline waits for memory until its batches are released.
        """

    def rows(self) -> list[tuple[str | date | None, ...]]:
        """The new rows as tuples of their columns."""

    def lines(self) -> list[int]:
        """The line on which each of `rows()` begins."""

    def new_rows(self, ids: list[tuple[int, int]], import_id: int, source_id: int) -> Pieces:
        """COPY into `customers (id, import_id, source_id, source_line, source_hash, <columns>)`.

        `ids`: the first of each run of consecutive ids, and how many. ValueError unless there are as
        many as rows.
        """

    def changed(self, clears: int) -> Pieces:
        """COPY of the changed rows into `stage (source_line, source_hash, clears, <columns>)`."""

    def new_to_stage(self, clears: int) -> Pieces:
        """The new rows, framed for `stage`."""

    def parked(self, import_id: int) -> Pieces:
        """COPY into `import_parked`."""

    def findings(self) -> bytes:
        """COPY into `import_rejects`; empty if there is none."""

@final
class Pieces:
    """A binary COPY stream, as an iterator of `bytes` of about 128 KiB."""

    def __iter__(self) -> Pieces: ...
    def __next__(self) -> bytes: ...

def verify(
    source: Source,
    blocks: Mapping[int, int],
    tails: Mapping[int, int],
    check: Callable[[], object],
) -> tuple[int, int] | None:
    """Compares the start of a source with the hashes of its 16 MiB blocks, by number, and with those
    of the bytes from the last whole block to an offset, by that offset.

    None, or the span that differs. A block without a hash counts as changed. `check` is called
    before every mebibyte, and what it raises ends the work. Raises OSError, Stopped; ValueError for
    a stream.
    """

def customer_fields() -> list[
    tuple[str, str, Literal["identity", "text", "email", "date"], int, list[str]]
]:
    """(name, camelCase name, kind, limit in characters, accepted headers) of each column, in order."""

def full_name_aliases() -> list[str]:
    """Headers that mean the full name, which is split into first and last name."""

def finding_codes() -> list[tuple[str, str, bool]]:
    """(code, message, is a warning) of all that can be wrong with a record."""

def normalize_email(text: str) -> str:
    """An e-mail as it is stored: trimmed, in lower case, in NFC; empty for a blank.

    Normalised again it stays as it is. Raises UnicodeEncodeError for half of a surrogate pair.
    """

def normalize_identity(text: str) -> str:
    """A `customer_id` as it is stored: trimmed, in NFC, without Excel's `="..."` or `'`.

    Empty for a blank. Raises as `normalize_email` does.
    """

def email_identity(text: str) -> str | None:
    """The `customer_id` that an e-mail gives a customer who has no other.

    None unless it has the form x@y. Raises as `normalize_email` does.
    """

def generate(
    path: str | PathLike[str],
    rows: int,
    *,
    about: bool = False,
    seed: int = 1,
    duplicates: float = 0.0,
    dirty: float = 0.0,
    changed: float = 0.0,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Writes `rows` generated customers to `path`; the bytes written.

    The same arguments give the same bytes everywhere. duplicates, dirty, changed: shares of the
    rows, 0 to 1. `progress(rows)` is called now and then. Raises OSError.
    """

def scan_speed(path: str | PathLike[str], rounds: int) -> tuple[int, int, list[float]]:
    """Reads a file into memory and turns it into rows `rounds` times, on one thread, no database.

    Its rows, the bytes behind its header, and the seconds of each round: scan, map, convert, hash
    and encode. Raises OSError or PlanError; ValueError for more than 10,000 rounds.
    """
