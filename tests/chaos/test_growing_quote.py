"""A file that is read before it is whole, cut anywhere: what it is to become is what the table gets.

Killed before its end was committed, then grown and imported again. Only what the end of the file
decided may change then, and that was not committed.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import psycopg

from support.compare import run
from support.kill_runner import Scene, scene

SEED = 11
ROWS = 600
TUNING = {"lanes": 3, "batch_rows": 40}

HEADER = b"id,first name,city,about\n"


def text(draw: random.Random) -> bytes:
    """Records of all kinds; in one the text between quotes is long, with what looks like records."""
    ends = [b"\n", b"\r\n", b"\r"]
    end = draw.choice(ends)
    long_at = draw.randrange(ROWS // 3, ROWS)
    lines = [HEADER.rstrip() + end]
    for number in range(ROWS):
        key = draw.randrange(ROWS * 4)
        about = draw.choice(
            [b"", b"plain", b'"a ""quote"" inside"', "größer".encode(), b'"x\r\ny"']
        )
        if number == long_at:
            inner = b"".join(b"%d,Eve,Bonn,\n" % draw.randrange(ROWS * 4) for _ in range(60))
            about = b'"' + inner + b'""\r\n"'
        record = draw.choice([b"%d,Ann,Rome,", b"%d,Bob,,", b",%d,Oslo,"]) % key
        lines.append(record + about + end)
    return b"".join(lines)


def cut(draw: random.Random, whole: bytes) -> int:
    """Where the file ends at first: often inside the long text, or in the middle of something."""
    start = whole.index(b",Eve,")
    places = [
        draw.randrange(start, whole.index(b'""\r\n"', start)),
        whole.index(b"\n", start + 200) + 1,
        draw.randrange(len(whole) // 3, len(whole)),
        whole.index("ö".encode(), len(whole) // 2) + 1,
        whole.rindex(b"\r", 0, start) + 1 if b"\r" in whole[:start] else start,
    ]
    return draw.choice(places)


def grown(
    runner, databases, path: Path, expected: Scene, whole: bytes, draw: random.Random
) -> bool:
    """Whether a run of a part, killed before its end was committed, was completed with the whole."""
    part = cut(draw, whole)
    path.write_bytes(whole[:part])
    with databases.copy(expected.before) as dsn:
        every = runner.run(path, dsn, call="", tuning=TUNING).answer["calls"]
    # Phases: scanning; indexing, with the end of the file.
    begin, end, *_ = (at for at, name in enumerate(every) if " set_phase " in name)
    call = every[draw.choice([end, draw.randrange(begin + 20, end)])]
    with databases.copy(expected.before) as dsn:
        assert runner.run(path, dsn, call=call, tuning=TUNING).exit == -signal.SIGKILL
        with psycopg.connect(dsn) as conn:
            row = conn.execute("SELECT scanned_to FROM imports").fetchone()
        path.write_bytes(whole)
        result = run(path, dsn)
        if row == (part,):
            # Lanes take turns in another order each time: this kill came too late.
            assert any("import it again" in note for note in result.notes)
            return False
        assert result.is_resumed
        expected.check(dsn)
        return True


def test_a_file_cut_anywhere_ends_as_the_whole(runner, databases, template, tmp_path):
    completed = 0
    for number in range(8):
        draw = random.Random(SEED + number)
        whole = text(draw)
        path = tmp_path / f"{number}.csv"
        path.write_bytes(whole)
        expected = scene(databases, path, template)
        completed += grown(runner, databases, tmp_path / "part.csv", expected, whole, draw)
    assert completed > 3
