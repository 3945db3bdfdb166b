"""A file that changed between a kill and the resume: grown goes on, anything else is another file."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import psycopg
import pytest

from customer_panel.errors import SourceChanged
from support.compare import run

TUNING = {"lanes": 2, "batch_rows": 200}
SEED = 7


@pytest.fixture
def cut(runner, dsn, small, tmp_path):
    """Imports the first bytes of the small file and is killed after some batches; path, bytes."""

    def cut(share: float, batches: int, whole: bytes | None = None) -> tuple[Path, bytes]:
        whole = whole or small["first"].path.read_bytes()
        path = tmp_path / "growing.csv"
        path.write_bytes(whole[: int(len(whole) * share)])
        assert runner.run(path, dsn, batches=batches, tuning=TUNING).exit == -signal.SIGKILL
        return path, whole

    return cut


def job(dsn: str) -> tuple[str, str | None, int, int]:
    """Status and error of the only import, and the lanes' nearest and furthest checkpoint."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT status, error, min(done_to), max(done_to) FROM imports"
            " JOIN import_lanes ON import_id = id GROUP BY id"
        ).fetchone()
    assert row is not None
    return row


# -- grown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(6))
def test_a_file_that_grew_goes_on_and_ends_with_all_rows(cut, dsn, small, number):
    """Cut anywhere: mostly in the middle of a record, which is completed later."""
    draw = random.Random(SEED + number)
    path, whole = cut(draw.uniform(0.3, 0.9), draw.randint(1, 3))
    with path.open("ab") as file:
        file.write(whole[path.stat().st_size :])
    run(path, dsn, lanes=draw.choice([1, 2, 3]))
    small["first"].check(dsn)


def test_a_line_without_end_is_not_passed_before_the_finish(runner, databases, small, tmp_path):
    """Killed at whatever call before the end of the file is noted, and the line completed then."""
    scene = small["first"]
    whole = scene.path.read_bytes()
    path = tmp_path / "growing.csv"
    size = whole.rindex(b"\n", 0, len(whole) // 2) - 10
    path.write_bytes(whole[:size])
    with databases.copy(scene.before) as dsn:
        every = runner.run(path, dsn, call=None, tuning=TUNING).answer["calls"]
    # From the first commit of a lane on, there is something to resume.
    begin = next(at for at, name in enumerate(every) if name.startswith("cp-lane-"))
    end = max(at for at, name in enumerate(every) if " set_phase " in name)
    draw = random.Random(SEED)
    completed = 0
    # How often the requests are read depends on the clock.
    calls = [name for name in every[begin:end] if not name.startswith("cp-requests")]
    for call in draw.sample(calls, 12):
        path.write_bytes(whole[:size])
        with databases.copy(scene.before) as dsn:
            assert runner.run(path, dsn, call=call, tuning=TUNING).exit == -signal.SIGKILL
            with psycopg.connect(dsn) as conn:
                row = conn.execute("SELECT scanned_to FROM imports").fetchone()
            path.write_bytes(whole)
            result = run(path, dsn)
            if row == (size,):
                # The last line was taken as it stood: then what came is for the next import.
                assert any("import it again" in note for note in result.notes)
                assert result.bytes_read == size
                continue
            completed += 1
            scene.check(dsn)
    assert completed > 3


# -- changed --------------------------------------------------------------------------------------


def refused(path: Path, dsn: str) -> tuple[int, int]:
    """The span that the resume says has changed."""
    _, _, _, furthest = job(dsn)
    with pytest.raises(SourceChanged) as error:
        run(path, dsn, is_strict=True)
    assert error.value.span is not None
    low, high = error.value.span
    assert low < high <= max(furthest, 1 << 24)
    message = f"file changed between byte {low} and {high}; the "
    assert error.value.message.startswith(message)
    assert job(dsn)[:2] == ("INTERRUPTED", error.value.message)
    return low, high


def goes_on_anew(path: Path, dsn: str) -> None:
    """Without `strict` the same call gives the old import up and imports the new file."""
    assert run(path, dsn).status == "COMPLETED"
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT status FROM imports ORDER BY id").fetchall()
    assert found == [("CANCELLED",), ("COMPLETED",)]


def test_a_truncated_file_is_refused(cut, dsn):
    path, _ = cut(1, 4)
    _, _, _, furthest = job(dsn)
    os.truncate(path, furthest - 1)
    refused(path, dsn)
    goes_on_anew(path, dsn)


def test_a_file_cut_to_its_header_or_to_nothing_is_refused(cut, dsn):
    path, whole = cut(1, 4)
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    refused(path, dsn)


def test_an_emptied_file_is_refused(cut, dsn):
    path, _ = cut(1, 4)
    path.write_bytes(b"")
    refused(path, dsn)


@pytest.mark.parametrize("place", ["header", "first", "last"])
def test_one_changed_byte_is_refused(cut, dsn, place):
    path, whole = cut(1, 4)
    _, _, _, furthest = job(dsn)
    at = {"header": 3, "first": whole.index(b"\n") + 1, "last": furthest - 2}[place]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([whole[at] ^ 1]))
    low, high = refused(path, dsn)
    assert low <= at < high


def test_another_file_under_the_name_is_refused(cut, dsn, small, tmp_path):
    path, _ = cut(1, 4)
    other = tmp_path / "other.csv"
    other.write_bytes(small["again"].path.read_bytes())
    other.replace(path)
    refused(path, dsn)
    goes_on_anew(path, dsn)


def test_the_file_under_another_name_goes_on(cut, dsn, small, tmp_path):
    path, _ = cut(1, 4)
    moved = path.rename(tmp_path / "moved.csv")
    assert run(moved, dsn).is_resumed
    small["first"].check(dsn)


def test_a_change_of_one_block_of_many_is_found(runner, databases, large, tmp_path):
    scene = large["first"]
    path = tmp_path / "large.csv"
    path.write_bytes(scene.path.read_bytes())
    tuning = {"lanes": 2, "batch_rows": 20_000}
    with databases.copy(scene.before) as dsn:
        assert runner.run(path, dsn, batches=12, tuning=tuning).exit == -signal.SIGKILL
        _, _, _, furthest = job(dsn)
        assert furthest > 2 << 24
        at = (1 << 24) + 12345
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
        low, high = refused(path, dsn)
        # Its end is nearer if a lane had its checkpoint in that block.
        assert low == 1 << 24
        assert at < high <= 2 << 24
