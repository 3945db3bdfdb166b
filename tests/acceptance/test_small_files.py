"""Any small file at all: the engine comes to what the plain Python importer comes to."""

from __future__ import annotations

import itertools
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from customer_panel.errors import SourceEmpty
from support.compare import content, counts, expected, rejects, run
from support.reference import Reference

HEADERS = [
    b"Customer Id,First Name,E-mail,Subscription Date,City",
    b"id,name,mail,last name,phone,mobile",
    b'"Customer_ID","Full.Name","Email","created at"',
    b"email,notes,first name",
]
KEYS = [
    *(b"1", b"1", b"2", b"2", b"3", b"4", b"", b" 1 ", b'"1"', b"'1", b"' 2", b'=" 1"'),
    *(b"e\xcc\x81", b"\xc3\xa9"),
]
CELLS = [
    *(b"", b"", b"", b"", b"a@b.c", b"A@B.c", b"x@y", b"Ann Lee", b"Bob", b"2021-02-03"),
    *(b"03/02/2021", b'"q"', b'"a,b"', b'"a\nb"', b'"say ""hi"""'),
]
ODD = [
    *(b"25/12/2021", b"16 Jan 2021", b"Jan 16, 2021", b"2021-02-30", b"2021-1-2T03:04"),
    *(b"1.2.2021", b",", b"\n", b"\r\n", b"\r", b"\n\n", b'"', b'"', b'""', b'="01"', b"'7", b" "),
    *(b"\xc2\xa0", b"\xe2\x80\x8b", b"\xef\xbb\xbf", b"\0", b"\xff", b"e\xcc\x81", b"\xc3\xa9"),
    *("J\u030c@x".encode(), "\u01f0@x".encode(), "E\u0301@x".encode()),
    *(b"\xc3\x89@x", b"\xce\xa3", b"x" * 60, "ß".encode() * 51, b"y" * 256, b"\t"),
]
LINE_ENDS = [b"\n", b"\n", b"\r\n", b"\r"]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A record of few customers, so that most have several, with values, blanks and oddities."""
    cell = st.sampled_from(CELLS + CELLS + ODD)
    cells = draw(st.lists(cell, min_size=1, max_size=6))
    return b",".join([draw(st.sampled_from(KEYS)), *cells]) + draw(st.sampled_from(LINE_ENDS))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    header = draw(st.sampled_from(HEADERS[:1] + HEADERS)) + draw(st.sampled_from(LINE_ENDS))
    loose = st.sampled_from(KEYS + CELLS + ODD)
    pieces = st.one_of(lines(), lines(), lines(), loose)
    body = draw(st.lists(pieces, min_size=1, max_size=14))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + header + b"".join(body)


numbers = itertools.count()


@pytest.fixture
def wiped(database: psycopg.Connection):
    """Empties the customers: a migration for each example would take all the time."""

    def wipe() -> None:
        database.execute("TRUNCATE customers, customer_history, customer_totals, imports CASCADE")

    return wipe


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(
    texts=st.lists(files(), min_size=2, max_size=4),
    lanes=st.sampled_from([1, 2, 3]),
    batch_rows=st.sampled_from([1, 2, 1000]),
    feeds=st.sampled_from([["main"], ["main"], ["main", "crm"]]),
    blank=st.sampled_from(["keep", "clear"]),
)
def test_any_small_files_in_turn_give_the_table_of_the_reference(
    texts, lanes, batch_rows, feeds, blank, dsn, wiped, tmp_path
):
    wiped()
    reference = Reference()
    for text, feed in zip(texts, itertools.cycle(feeds), strict=False):
        path = Path(tmp_path, f"{next(numbers)}.csv")
        path.write_bytes(text)
        wanted, set_aside = reference.load(text, feed=feed, clear=blank == "clear")
        try:
            result = run(
                path, dsn, lanes=lanes, batch_rows=batch_rows, feed=feed, blank=blank, restarts=True
            )
        except SourceEmpty:
            assert wanted.processed == 0
            continue
        assert rejects(dsn, result.job_id) == set_aside
        assert content(dsn) == expected(reference)
        assert counts(result) == wanted
