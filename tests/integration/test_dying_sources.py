"""What dies on the way is no end of the source: the caller's iterator, or a thread of the engine."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from customer_panel import _native, errors, import_customers, iter_batches
from customer_panel.imports.engine import passes
from support.customers import csv

HEADER = b"id,city\n"
ROWS = [HEADER, *(b"%d,Rome%90s\n" % (number, b"") for number in range(20_000))]
PLACES = {"at the start": 0, "behind the header": 1, "behind the head": 15_000}
WORDS = "the wire is cut|generator raised StopIteration"
DEATHS: list[type[BaseException]] = [
    RuntimeError,
    OSError,
    EOFError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    MemoryError,
]


def iterator(death: type[BaseException], rows: int) -> Iterator[bytes]:
    """Raises after so many lines."""
    yield b"".join(ROWS[:rows])
    raise death("the wire is cut")


class File:
    """A file object that raises after so many lines."""

    def __init__(self, death: type[BaseException], rows: int) -> None:
        self.death = death
        self.given = io.BytesIO(b"".join(ROWS[:rows]))

    def read(self, count: int) -> bytes:
        if piece := self.given.read(count):
            return piece
        raise self.death("the wire is cut")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("death", DEATHS)
def test_an_iterator_that_dies_is_no_end(dsn, death, place):
    rows = PLACES[place]
    for make in (iterator, File):
        for use in (lambda it: list(iter_batches(it)), lambda it: import_customers(it, dsn)):
            with pytest.raises(errors.SourceUnreadable, match=WORDS) as caught:
                use(make(death, rows))
            # A generator makes a RuntimeError of a StopIteration.
            assert isinstance(caught.value.__cause__, death | RuntimeError)
    with psycopg.connect(dsn) as conn:
        jobs = conn.execute("SELECT status, error FROM imports").fetchall()
    # While the start is not there yet there is no job.
    assert len(jobs) == (2 if rows > 1 else 0)
    for status, error in jobs:
        assert status == "FAILED"
        assert re.search(WORDS, error)


@pytest.mark.parametrize(
    ("given", "message"),
    [(None, "no bytes yet"), ("text", "not str"), ("", "not str"), (5, "not int")],
)
@pytest.mark.parametrize("at_start", [True, False])
def test_a_file_object_that_gives_no_bytes_is_no_end(given, message, at_start):
    class Odd:
        has_given = at_start

        def read(self, count: int) -> Any:
            if self.has_given:
                return given
            self.has_given = True
            return b"".join(ROWS)

    with pytest.raises(errors.SourceError, match=message):
        list(iter_batches(Odd()))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 5, 1.5, object()])
def test_what_gives_nothing_is_told(source):
    with pytest.raises(errors.SourceError, match="a source is a path"):
        next(iter_batches(source))


class Broken:
    """A pipeline whose threads die after some batches."""

    def __init__(self, pipeline: _native.Pipeline, batches: int) -> None:
        self.pipeline, self.left = pipeline, batches

    def next_batch(self, lane: int) -> _native.Batch | None:
        self.left -= 1
        return self.pipeline.next_batch(lane) if self.left >= 0 else None

    def outcome(self) -> Any:
        raise _native.Broken("a thread of the pipeline died")

    def stop(self) -> None:
        self.pipeline.stop()


@pytest.mark.parametrize("batches", [0, 3])
def test_a_thread_that_dies_interrupts_the_import(dsn, tmp_path, monkeypatch, batches):
    path = csv(tmp_path / "file.csv", 5000)
    make = passes._pipeline
    with monkeypatch.context() as patch:
        patch.setattr(passes, "_pipeline", lambda *scan: Broken(make(*scan), batches))
        with pytest.raises(errors.EngineBroken):
            import_customers(path, dsn, lanes=1, batch_rows=500)
        with pytest.raises(errors.EngineBroken):
            import_customers(path, dsn, dry_run=True, lanes=1)
    with psycopg.connect(dsn) as conn:
        (job,) = conn.execute("SELECT status, error FROM imports").fetchall()
        (kept,) = conn.execute("SELECT count(*) FROM customers").fetchone()
    assert job == ("INTERRUPTED", errors.EngineBroken.__doc__)
    assert kept == batches * 500
    result = import_customers(path, dsn)
    assert result.is_resumed
    assert result.rows_processed == 5000
