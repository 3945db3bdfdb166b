"""What the size and the times of a file prove, and what two readings of it must have in common."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from customer_panel.errors import SourceChanged
from customer_panel.imports.sources import COARSE_TICK_NS, TICK_NS, FileSource, Stamp
from customer_panel.imports.unchanged import BLOCK_BYTES, Unchanged

NOW = 1_764_000_000_123_456_789


def stamp(monkeypatch, *, ctime_ns: int, mtime_ns: int = 5, size: int = 7) -> Stamp:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    found = SimpleNamespace(st_size=size, st_mtime_ns=mtime_ns, st_ctime_ns=ctime_ns)
    return Stamp.of(found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("age_ns", "is_fresh"),
    [(0, True), (TICK_NS - 1, True), (TICK_NS, False), (-(10**12), True)],
    ids=["now", "in the tick", "behind it", "of a clock that is ahead"],
)
def test_a_file_that_was_just_changed_may_change_again_unseen(monkeypatch, age_ns, is_fresh):
    assert stamp(monkeypatch, ctime_ns=NOW - age_ns).is_fresh == is_fresh


def test_a_file_system_with_whole_seconds_ticks_slowly(monkeypatch):
    second = NOW // 10**9 * 10**9
    assert stamp(monkeypatch, ctime_ns=second).is_fresh
    assert not stamp(monkeypatch, ctime_ns=second - COARSE_TICK_NS).is_fresh


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns"])
def test_a_file_may_have_changed_if_one_of_them_moved(monkeypatch, field):
    old = {"size": 7, "mtime_ns": 5, "ctime_ns": NOW - TICK_NS * 2}
    before = stamp(monkeypatch, **old)
    assert before.proves(stamp(monkeypatch, **old))
    assert not before.proves(stamp(monkeypatch, **old | {field: old[field] + 1}))
    assert not before._replace(is_fresh=True).proves(before)


@pytest.fixture
def unchanged(tmp_path):
    path = tmp_path / "file.csv"
    path.write_bytes(b"id\n1\n")
    source = FileSource(path)
    yield Unchanged(source, written=lambda: 3)
    source.close()


def test_two_readings_have_the_same_blocks(unchanged):
    unchanged.expect([(0, 5), (1, 6)], [])
    unchanged.expect([(0, 5)], [])
    with pytest.raises(SourceChanged) as error:
        unchanged.expect([(1, 7)], [])
    assert error.value.span == (BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert error.value.message.endswith("while it was read; the 3 rows that were written stay")


def test_two_readings_have_the_same_bytes_up_to_one_offset(unchanged):
    at = BLOCK_BYTES + 10
    unchanged.expect([], [(at, 5), (at + 1, None)])
    unchanged.expect([], [(at, 5), (at, None), (at + 1, 9)])
    with pytest.raises(SourceChanged) as error:
        unchanged.expect([], [(at, 6)])
    assert error.value.span == (BLOCK_BYTES, at)


def test_a_file_that_shrank_behind_all_that_was_read_has_changed(unchanged, tmp_path):
    os.truncate(tmp_path / "file.csv", 4)
    with pytest.raises(SourceChanged) as error:
        unchanged.check()
    assert error.value.span == (4, 5)
