"""No input from Python reaches a panic of the extension, an abort or a hang."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from customer_panel import _native
from customer_panel.errors import MappingError
from customer_panel.imports import iter_batches
from support import native_calls

STEPS = 3000


def test_everything_of_the_extension_is_called():
    assert set(native_calls.CALLS) == native_calls.everything()


@pytest.mark.parametrize("name", [name for name, wanted in native_calls.CALLS.items() if wanted])
def test_every_argument_is_given(name):
    target: Any = _native
    for part in name.split("."):
        target = getattr(target, part)
    parameters = [it for it in inspect.signature(target).parameters if it != "self"]
    wanted = native_calls.CALLS[name] or {}
    given = [parameters[key] if isinstance(key, int) else key for key in wanted]
    assert sorted(given) == sorted(parameters)


@pytest.mark.parametrize("seed", range(4))
def test_any_call_returns_or_raises_what_is_documented(tmp_path: Path, seed: int):
    done = subprocess.run(
        [sys.executable, native_calls.__file__, str(seed), str(STEPS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    last = (tmp_path / "calls").read_text().splitlines()[-10:]
    # A thread of the engine that panics says so there, whatever the call made of it.
    assert "panicked" not in done.stderr, (done.stderr[-3000:], last)
    assert done.returncode == 0, (done.stderr[-3000:], last)
    print(done.stdout)


@pytest.fixture
def pipeline(tmp_path: Path) -> _native.Pipeline:
    """One lane, two rows, the second of which is the tail."""
    path = tmp_path / "file.csv"
    path.write_bytes(b"id,city\n1,Rome\n2,Oslo")
    with path.open("rb") as file:
        return pipeline_of(_native.Source.from_file(file.fileno()))


def pipeline_of(source: _native.Source, **more: Any) -> _native.Pipeline:
    plan = _native.Plan.from_header(b"id,city\n")
    sizes = {"batch_rows": 10, "batch_bytes": 1000, "budget": 1000}
    return _native.Pipeline(
        source, plan, **{"seed": 1, "lanes": 1, "done_to": [0], **sizes, **more}
    )


def test_the_outcome_comes_last_and_once(pipeline):
    with pytest.raises(RuntimeError, match="its last batch"):
        pipeline.outcome()
    batch = pipeline.next_batch(0)
    assert batch is not None
    assert batch.rows()[0][0] == "1"
    batch.release()
    batch.release()
    assert batch.rows() == batch.lines() == list(batch.changed(0))[1:] == []
    assert batch.counts[0] == 1
    assert pipeline.next_batch(0) is pipeline.next_batch(0) is None
    (tail,), decided, end, read, unchanged, changed = pipeline.outcome()
    assert (tail.rows()[0][0], tail.span, decided, end) == ("2", (15, 21), 15, 21)
    assert (read[:2], unchanged, changed) == (([], 21), 0, None)
    with pytest.raises(RuntimeError, match="taken already"):
        pipeline.outcome()
    with pytest.raises(ValueError, match="lane 1 is not of this pipeline"):
        pipeline.next_batch(1)


def test_what_was_stopped_says_so(pipeline):
    pipeline.stop()
    pipeline.stop()
    while pipeline.next_batch(0) is not None:
        pass
    # It may have come to its end before.
    with contextlib.suppress(_native.Stopped):
        pipeline.outcome()


def test_what_serves_once_serves_once():
    feed, known = (
        _native.Feed(),
        _native.Known(1, expected=0, memory=0, lanes=1, first_lane=0, lane_count=1),
    )
    source = _native.Source.from_feed(feed)
    with pytest.raises(RuntimeError, match="one source"):
        _native.Source.from_feed(feed)
    feed.close()
    assert not feed.push(b"x")
    assert pipeline_of(source, known=known).next_batch(0) is None
    with pytest.raises(RuntimeError, match="read twice"):
        pipeline_of(source)
    with pytest.raises(RuntimeError, match="given to a pipeline already"):
        pipeline_of(_native.Source.from_feed(_native.Feed()), known=known)
    with pytest.raises(RuntimeError, match="given to a pipeline already"):
        known.load_flags(b"", b"")


@pytest.mark.parametrize("descriptor", [-1, -(2**31), 10_000])
def test_what_is_no_open_file_is_told(descriptor):
    with pytest.raises(OSError, match="Bad file descriptor"):
        _native.Source.from_file(descriptor)


def test_a_folder_or_a_socket_cannot_be_read(tmp_path):
    left, right = socket.socketpair()
    folder = os.open(tmp_path, os.O_RDONLY)
    for descriptor in (folder, left.fileno()):
        source = _native.Source.from_file(descriptor)
        with pytest.raises(OSError):
            source.head(10)
        pipeline = pipeline_of(source)
        assert pipeline.next_batch(0) is None
        with pytest.raises(OSError):
            pipeline.outcome()
        with pytest.raises(OSError):
            _native.verify(source, {}, {10: 0}, lambda: None)
    os.close(folder)
    left.close()
    right.close()


@pytest.mark.parametrize(
    "lanes",
    [
        {"lanes": 0},
        {"done_to": []},
        {"done_to": [0, 0]},
        {"first_lane": 1},
        {"first_lane": 2**32 - 1},
        {"lanes": 2**32 - 1},
        {"parsers": 0},
        {"parsers": 10**6},
    ],
)
def test_lanes_that_cannot_be_are_told(lanes):
    with pytest.raises(ValueError):
        pipeline_of(_native.Source.from_feed(_native.Feed()), **lanes)


@pytest.mark.parametrize("delimiter", ["", "||", ",,", "\n", "\r", '"', "\0", "ü", "t", "7", "\\t"])
def test_a_delimiter_that_cannot_be_says_what_can(delimiter):
    for make in (
        lambda: _native.Plan.from_header(b"id,city\n", delimiter=delimiter),
        lambda: _native.Plan.restore(
            delimiter, ["id"], [], date_order=None, data_start=0, header_lines=0
        ),
    ):
        with pytest.raises(_native.PlanError) as error:
            make()
        code, message = error.value.args
        assert code == "bad_delimiter"
        assert "one ASCII character" in message
    with pytest.raises(MappingError, match="one ASCII character"):
        next(iter_batches([b"id,city\n1,Rome\n"], delimiter=delimiter))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", " ", "\x1f", "\x01"])
def test_any_other_ascii_character_separates(delimiter):
    (batch,) = iter_batches(
        [f"id{delimiter}city\n1{delimiter}Rome\n".encode()], delimiter=delimiter
    )
    assert batch.to_dicts()[0]["city"] == "Rome"
