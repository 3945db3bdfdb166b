"""Parsed batches for a sink of one's own: the rows an import would store, without a database."""

from __future__ import annotations

import io
from collections import Counter
from datetime import date
from pathlib import Path

import psycopg
import pytest

from customer_panel import ParsedBatch, errors, import_customers, iter_batches
from customer_panel._native import generate
from support.compare import rejects

FILE = """Customer Id,Name,Mail,Subscription Date,Colour,About
 a1 ,Ada Lovelace,ADA@X.ORG,2021-01-16,red,"two
lines"
,Bob,bob@x.org,16.01.2021,,
,Nobody,,,,
a1,Ada,,no date,,
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "file.csv"
    generate(str(path), 20_000, seed=3, dirty=0.02, duplicates=0.02, about=True)
    return path


def only(source, **options) -> ParsedBatch:
    (batch,) = iter_batches(source, **options)
    return batch


def test_rows_are_trimmed_and_converted() -> None:
    batch = only(io.BytesIO(FILE.encode()))
    assert batch.columns[0] == "customer_id"
    assert len(batch.columns) == 12
    assert batch.to_dicts()[0] == dict.fromkeys(batch.columns) | {
        "customer_id": "a1",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email": "ada@x.org",
        "subscription_date": date(2021, 1, 16),
        "about_customer": "two\nlines",
    }
    assert [row[0] for row in batch.rows] == ["a1", "bob@x.org", "a1"]
    assert batch.line_numbers == [2, 4, 6]
    assert [(r.line, r.severity, r.code, r.field) for r in batch.rejects] == [
        (5, "reject", "no_identity", None),
        (6, "warning", "unreadable_date", "subscription_date"),
    ]
    start, end = batch.rejects[0].byte_from, batch.rejects[0].byte_to
    assert FILE.encode()[start:end] == batch.rejects[0].raw == b",Nobody,,,,\n"
    assert batch.span == (FILE.index(" a1 "), len(FILE))


def test_a_last_record_without_line_end_is_a_row() -> None:
    batches = list(iter_batches([b"id,city\n1,Bonn\n2,Ulm"]))
    assert [row[0] for batch in batches for row in batch.rows] == ["1", "2"]
    assert [line for batch in batches for line in batch.line_numbers] == [2, 3]


@pytest.mark.parametrize("batch_rows", [1, 7, 300])
def test_any_batch_size_gives_the_same_rows(file: Path, batch_rows: int) -> None:
    with file.open("rb") as opened:
        start = [opened.read(1_000_000)]
    whole, parts = list(iter_batches(start)), list(iter_batches(start, batch_rows=batch_rows))
    assert len(parts) > len(whole)
    assert all(len(part.rows) <= batch_rows for part in parts)
    for name in ("rows", "line_numbers", "rejects"):
        joined = [[item for part in way for item in getattr(part, name)] for way in (whole, parts)]
        assert joined[0] == joined[1], name


def test_path_file_object_and_buffers_are_one(file: Path) -> None:
    def rows(source) -> list:
        return [row for batch in iter_batches(source) for row in batch.rows]

    expected = rows(file)
    with file.open("rb") as opened:
        assert rows(opened) == expected
    assert rows(iter([file.read_bytes()[:1000], file.read_bytes()[1000:]])) == expected


def test_rows_and_rejects_are_those_of_the_import(file: Path, dsn: str) -> None:
    batches = list(iter_batches(file))
    result = import_customers(file, dsn)
    assert sum(len(batch.rows) for batch in batches) == result.rows_processed - result.rows_skipped
    with psycopg.connect(dsn) as conn:
        stored = conn.execute(
            f"SELECT {', '.join(batches[0].columns)} FROM customers"
            " WHERE NOT many_rows ORDER BY source_line".encode()
        ).fetchall()
    times = Counter(row[0] for batch in batches for row in batch.rows)
    assert [row for batch in batches for row in batch.rows if times[row[0]] == 1] == stored
    found = [reject for batch in batches for reject in batch.rejects]
    assert [(r.line, r.byte_from, r.byte_to, r.code, r.raw) for r in found] == [
        (r.line, r.byte_from, r.byte_to, r.code, r.raw) for r in rejects(dsn, result.job_id)
    ]


def test_one_who_stops_early_leaves_nothing_behind(file: Path) -> None:
    for _ in range(50):
        batches = iter_batches(file, batch_rows=10)
        assert next(batches).rows
        batches.close()


def test_what_cannot_be_read_is_said_at_the_first_batch(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceNotFound):
        next(iter_batches(tmp_path / "none.csv"))
    with pytest.raises(errors.MappingError, match="colour"):
        next(iter_batches([b"colour\nred\n"]))
    with pytest.raises(errors.SourceError, match="not str"):
        next(iter_batches(io.StringIO("id\n1\n")))


def test_a_source_that_breaks_off_is_an_error() -> None:
    def breaks():
        yield b"id,city\n" + b"1,Bonn\n" * 300_000
        raise RuntimeError("the line went dead")

    with pytest.raises(errors.SourceUnreadable, match="the line went dead"):
        list(iter_batches(breaks()))


def test_mapping_date_order_and_delimiter_are_taken() -> None:
    batch = only(
        [b"Kunde;Ort;seit\n1;Bonn;01/02/2021\n"],
        mapping={"Kunde": "customerId", "Ort": "city", "seit": "subscription_date"},
        date_order="dmy",
        delimiter=";",
    )
    assert batch.to_dicts()[0]["subscription_date"] == date(2021, 2, 1)
