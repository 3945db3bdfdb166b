"""A file that changes while it is read: grown is read to its new end, anything else is refused.

Nothing here waits for a moment: the file is changed when a batch is committed, or when a pass has
read the file to its end and is about to be compared.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from customer_panel import import_customers, iter_batches
from customer_panel.errors import SourceChanged, SourceUnreadable, Stopped
from customer_panel.imports import ImportResult, Stop
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.unchanged import MOST_GROWTHS, Unchanged
from support.compare import digest, run
from support.kill_runner import scenes

BLOCK = 16 << 20
ROWS = 92_000  # one whole block, and some
FEW = {"budget_bytes": 1 << 20, "batch_rows": 2000}  # the reader is never far ahead of the lanes
SEVERAL_PASSES = {"memory_bytes": 1 << 20}
SHAPES = {
    "one lane": {"lanes": 1},
    "two lanes": {"lanes": 2},
    "passes": {"lanes": 2, **SEVERAL_PASSES},
}

Act = Callable[[], object]


@pytest.fixture(scope="module")
def medium(databases, template, tmp_path_factory):
    return scenes(databases, template, tmp_path_factory.mktemp("medium"), ROWS)


@pytest.fixture
def copied(medium, tmp_path) -> Path:
    """The file of the first load, to be changed."""
    path = tmp_path / "customers.csv"
    path.write_bytes(medium["first"].path.read_bytes())
    return path


@pytest.fixture
def at_pass(monkeypatch):
    """Runs something when the n-th pass, or every one, has read the file, before it is compared."""

    def at_pass(act: Act, number: int | None = 1) -> list[int]:
        passed, seen = Unchanged.passed, [0]

        def acting(self, read):
            seen[0] += 1
            if number in (None, seen[0]):
                act()
            passed(self, read)

        monkeypatch.setattr(Unchanged, "passed", acting)
        return seen

    return at_pass


@pytest.fixture
def at_batch(monkeypatch):
    """Runs something when the n-th batch is committed."""

    def at_batch(act: Act, number: int) -> None:
        apply, seen, lock = Writer.apply, [0], threading.Lock()

        def acting(self, batch):
            counts = apply(self, batch)
            with lock:
                seen[0] += 1
                if seen[0] == number:
                    act()
            return counts

        monkeypatch.setattr(Writer, "apply", acting)

    return at_batch


def flip(path: Path, at: int) -> None:
    """Changes one byte in place."""
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


def append(path: Path, more: bytes) -> None:
    with path.open("ab") as file:
        file.write(more)


def newest(dsn: str) -> tuple[str, str | None, int, int]:
    """Status, error, end and rows written of the newest import."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT status, error, scanned_to, sum(rows_inserted + rows_updated)::int FROM imports"
            " JOIN import_lanes ON import_id = id GROUP BY id ORDER BY id DESC LIMIT 1"
        ).fetchone()
    assert row is not None
    return row


def rows(dsn: str) -> int:
    return digest(dsn)[0]


def refused(act: Callable[[], ImportResult], dsn: str) -> tuple[int, int]:
    """The span that the import, which must fail, says has changed while it was read."""
    with pytest.raises(SourceChanged) as error:
        act()
    assert error.value.span is not None
    low, high = error.value.span
    assert low < high
    status, text, _, written = newest(dsn)
    assert (status, text) == ("FAILED", error.value.message)
    assert written == rows(dsn)
    assert text == (
        f"file changed between byte {low} and {high} while it was read;"
        f" the {written} rows that were written stay"
    )
    return low, high


# -- anything but grown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ("one lane", "first"),
        ("one lane", "tail"),
        ("two lanes", "first"),
        ("two lanes", "middle"),
        ("two lanes", "end of the block"),
        ("two lanes", "tail"),
        ("passes", "middle"),
        ("passes", "tail"),
    ],
)
def test_one_byte_that_changes_in_place_is_found(dsn, copied, medium, at_pass, shape, place):
    size = copied.stat().st_size
    at = {"first": 200, "middle": BLOCK // 2, "end of the block": BLOCK - 1, "tail": size - 9}
    at_pass(lambda: flip(copied, at[place]))
    low, high = refused(lambda: run(copied, dsn, **SHAPES[shape]), dsn)
    assert low <= at[place] < high
    # The next import puts right every customer that the file holds.
    flip(copied, at[place])
    run(copied, dsn)
    assert digest(dsn) == medium["first"].table


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_under_the_reader_is_found(dsn, copied, medium, at_batch, shape):
    at_batch(lambda: flip(copied, 5000), 2)
    low, high = refused(lambda: run(copied, dsn, **SHAPES[shape], **FEW), dsn)
    assert (low, high) == (0, BLOCK)
    run(copied, dsn)
    assert digest(dsn)[0] == medium["first"].table[0]


@pytest.mark.parametrize(
    ("share", "moment"),
    [
        (0.0, "early"),
        (0.1, "early"),
        (0.8, "early"),
        (0.001, "at the end"),
        (0.5, "at the end"),
        (0.9999, "at the end"),
    ],
)
def test_a_file_that_shrinks_is_refused(dsn, copied, medium, at_batch, at_pass, share, moment):
    whole = copied.read_bytes()
    to = int(len(whole) * share)
    if moment == "early":
        at_batch(lambda: os.truncate(copied, to), 2)
    else:
        at_pass(lambda: os.truncate(copied, to))
    low, high = refused(lambda: run(copied, dsn, lanes=2, **FEW), dsn)
    assert low <= to < high
    copied.write_bytes(whole)
    run(copied, dsn)
    assert digest(dsn) == medium["first"].table


@pytest.mark.parametrize("lanes", [1, 2])
def test_two_versions_are_not_mixed(databases, medium, copied, at_batch, lanes):
    """Rewritten from its start while it is read, as `cp` does, by a file of other length."""
    other = medium["again"]
    with databases.copy(other.before) as dsn:

        def rewrite() -> None:
            copied.write_bytes(other.path.read_bytes())

        copied.write_bytes(other.path.read_bytes().replace(b"a", b"o"))
        at_batch(rewrite, 3)
        with pytest.raises(SourceChanged, match="while it was read"):
            run(copied, dsn, blank="clear", lanes=lanes, **FEW)
        assert newest(dsn)[0] == "FAILED"
        # The next import puts right every customer that the file holds.
        run(copied, dsn, blank="clear")
        found = values(dsn)
    with databases.copy(other.before) as dsn:
        run(copied, dsn, blank="clear")
        expected = values(dsn)
    assert {key: found[key] for key in expected} == expected


def values(dsn: str) -> dict[str, str]:
    """The hash of what a file brings of each customer."""
    with psycopg.connect(dsn) as conn:
        return dict(
            conn.execute(
                "SELECT customer_id, md5(ROW(first_name, last_name, company, city, country, phone1,"
                " phone2, email, subscription_date, website, about_customer)::text) FROM customers"
            )
        )


def test_a_change_between_two_passes_is_found(dsn, copied, monkeypatch):
    """Another byte for the second pass, with the times as they were: the passes are compared."""
    passed, seen = Unchanged.passed, []

    def acting(self, read):
        passed(self, read)
        seen.append(read)
        if len(seen) == 1:
            flip(copied, BLOCK // 2)

    monkeypatch.setattr(Unchanged, "passed", acting)
    monkeypatch.setattr(Unchanged, "check", lambda _: copied.stat().st_size)
    low, high = refused(lambda: run(copied, dsn, lanes=2, **SEVERAL_PASSES), dsn)
    assert (low, high, len(seen)) == (0, BLOCK, 1)


def test_a_change_in_the_tick_of_the_last_one_is_found(dsn, copied, at_pass, monkeypatch):
    """The clock of the file system stands still: the times of the file stay as they are."""
    fstat, found = os.fstat, copied.stat()

    class Still:
        """What `os.fstat` gives, with times that do not move."""

        def __init__(self, now: os.stat_result) -> None:
            self.st_mode, self.st_size = now.st_mode, now.st_size
            self.st_dev, self.st_ino = now.st_dev, now.st_ino
            self.st_mtime_ns = self.st_ctime_ns = found.st_ctime_ns

    monkeypatch.setattr(os, "fstat", lambda descriptor: Still(fstat(descriptor)))
    monkeypatch.setattr("time.time_ns", lambda: found.st_ctime_ns + 1)
    at_pass(lambda: flip(copied, 5000))
    assert refused(lambda: run(copied, dsn, lanes=2), dsn) == (0, BLOCK)


def test_a_resumed_import_is_watched_too(runner, dsn, copied, medium, at_pass):
    tuning = {"lanes": 2, "batch_rows": 5000}
    assert runner.run(copied, dsn, batches=6, tuning=tuning).exit == -signal.SIGKILL
    at_pass(lambda: flip(copied, 5000))
    low, high = refused(lambda: run(copied, dsn), dsn)
    assert low <= 5000 < high
    flip(copied, 5000)
    run(copied, dsn)
    assert digest(dsn) == medium["first"].table


def test_a_file_cut_behind_the_checkpoints_is_refused_by_the_resume(runner, dsn, copied):
    """All that was read is there; the rest was not read and is gone."""
    tuning = {"lanes": 2, "batch_rows": 5000, "budget_bytes": 4 << 20}
    assert runner.run(copied, dsn, batches=4, tuning=tuning).exit == -signal.SIGKILL
    size = copied.stat().st_size
    os.truncate(copied, size - 1000)
    with pytest.raises(SourceChanged) as error:
        run(copied, dsn, is_strict=True)
    assert error.value.span == (size - 1000, size)
    assert newest(dsn)[0] == "INTERRUPTED"


def test_lanes_that_have_read_different_blocks_are_refused(runner, dsn, copied):
    assert runner.run(copied, dsn, batches=20, tuning={"batch_rows": 5000}).exit == -signal.SIGKILL
    with psycopg.connect(dsn) as conn:
        conn.execute("INSERT INTO import_blocks SELECT id, 7, 0, 1 FROM imports")
        blocks = conn.execute("SELECT count(*) FROM import_blocks WHERE block = 0").fetchone()
    assert blocks is not None
    assert blocks[0] > 1
    with pytest.raises(SourceChanged) as error:
        run(copied, dsn, is_strict=True)
    assert error.value.span == (0, BLOCK)
    assert newest(dsn)[0] == "INTERRUPTED"


# -- grown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", ["in a record", "behind a record"])
def test_what_is_appended_is_read(dsn, copied, medium, at_pass, shape, cut):
    whole = copied.read_bytes()
    at = whole.rindex(b"\n", 0, len(whole) * 3 // 4) + 1 - (10 if cut == "in a record" else 0)
    copied.write_bytes(whole[:at])
    at_pass(lambda: append(copied, whole[at:]))
    result = run(copied, dsn, **SHAPES[shape])
    assert result.bytes_read == len(whole)
    assert not result.notes
    medium["first"].check(dsn)


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_appended_between_passes_is_read(dsn, copied, medium, at_pass, number):
    """The passes have seen different last records: one a half, others the whole."""
    whole = copied.read_bytes()
    at = whole.rindex(b"\n", 0, len(whole) // 2) - 10
    copied.write_bytes(whole[:at])
    at_pass(lambda: append(copied, whole[at:]), number)
    run(copied, dsn, lanes=1, **SEVERAL_PASSES)
    medium["first"].check(dsn)


@pytest.mark.parametrize(("shape", "number"), list(zip(SHAPES, range(3), strict=True)))
def test_a_file_that_grows_for_ever_is_left_behind_a_whole_record(
    dsn, copied, medium, at_pass, shape, number
):
    whole = copied.read_bytes()
    at = [len(whole) // 2 + number]
    copied.write_bytes(whole[: at[0]])
    is_growing = [True]

    def grow() -> None:
        if is_growing:
            append(copied, whole[at[0] : at[0] + 10_001])
            at[0] += 10_001

    seen = at_pass(grow, None)
    result = run(copied, dsn, **SHAPES[shape])
    assert MOST_GROWTHS < seen[0] < 60
    end = result.bytes_read
    assert any(f"behind byte {end} was left out" in note for note in result.notes)
    assert whole[end - 1 : end] == b"\n"
    # It grows in each of the last passes too, which read no further.
    assert at[0] - 100_000 < end < copied.stat().st_size
    assert newest(dsn)[2] == end
    with psycopg.connect(dsn) as conn:
        pending = conn.execute("SELECT sum(rows_pending)::int FROM import_lanes").fetchone()
    assert pending == (0,)
    # It is the content of the file up to there, and the next import takes the rest.
    is_growing.clear()
    copied.write_bytes(whole[:end])
    assert run(copied, dsn).rows_unchanged >= result.rows_inserted - 3000
    copied.write_bytes(whole)
    run(copied, dsn)
    assert digest(dsn)[0] == medium["first"].table[0]


# -- nothing but its times ------------------------------------------------------------------------


def test_a_touched_file_is_the_same(dsn, copied, medium, at_pass):
    at_pass(copied.touch, None)
    assert not run(copied, dsn, lanes=2, **SEVERAL_PASSES).notes
    medium["first"].check(dsn)


def test_a_file_that_is_replaced_is_read_as_it_was_opened(dsn, copied, medium, at_batch):
    other = copied.with_name("other.csv")
    other.write_bytes(medium["again"].path.read_bytes())
    at_batch(lambda: other.replace(copied), 2)
    run(copied, dsn, lanes=2, **FEW)
    medium["first"].check(dsn)


# -- what cannot be read, or is stopped -----------------------------------------------------------


def test_a_file_that_cannot_be_read_any_more_is_no_changed_file(dsn, copied, medium, at_pass):
    """The descriptor becomes one whose reads fail with EIO."""

    def break_it() -> None:
        broken = os.open("/proc/self/mem", os.O_RDONLY)
        for descriptor in descriptors_of(copied):
            os.dup2(broken, descriptor)
        os.close(broken)

    at_pass(break_it)
    with pytest.raises(SourceUnreadable, match="Input/output error"):
        run(copied, dsn, lanes=2)
    status, text, _, _ = newest(dsn)
    assert status == "INTERRUPTED"
    assert "Input/output error" in str(text)
    run(copied, dsn)
    medium["first"].check(dsn)


def descriptors_of(path: Path) -> list[int]:
    """The descriptors of this process that are open for `path`."""
    return [
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if link.exists() and link.readlink() == path
    ]


@pytest.mark.parametrize("moment", ["resuming", "at the end"])
def test_the_comparison_can_be_stopped(runner, dsn, copied, medium, at_pass, moment):
    """Asked for when it has begun: it ends at its next mebibyte."""
    stop = Stop()
    if moment == "resuming":
        tuning = {"lanes": 2, "batch_rows": 5000}
        assert runner.run(copied, dsn, batches=6, tuning=tuning).exit == -signal.SIGKILL

    def on_progress(progress) -> None:
        if progress.phase == "verifying":
            assert moment == "resuming"
            stop.ask("PAUSED")

    if moment == "at the end":
        at_pass(lambda: (copied.touch(), stop.ask("PAUSED")))
    with pytest.raises(Stopped):
        run(copied, dsn, stop=stop, on_progress=on_progress if moment == "resuming" else None)
    assert newest(dsn)[0] == "PAUSED"
    run(copied, dsn)
    medium["first"].check(dsn)


# -- without an import ----------------------------------------------------------------------------


def test_a_dry_run_says_that_the_file_has_changed(dsn, copied, at_pass):
    at_pass(lambda: flip(copied, 5000))
    with pytest.raises(SourceChanged) as error:
        import_customers(copied, dsn, dry_run=True)
    assert error.value.message == f"file changed between byte 0 and {BLOCK} while it was read"


def test_a_dry_run_counts_what_is_appended(dsn, copied, at_pass):
    whole = copied.read_bytes()
    expected = import_customers(copied, dsn, dry_run=True)
    at = len(whole) // 2
    copied.write_bytes(whole[:at])
    at_pass(lambda: append(copied, whole[at:]))
    result = import_customers(copied, dsn, dry_run=True)
    assert (result.rows_processed, result.rows_inserted, result.bytes_read) == (
        expected.rows_processed,
        expected.rows_inserted,
        len(whole),
    )
    assert not result.notes


def test_a_dry_run_of_a_file_that_grows_for_ever_ends(dsn, copied, at_pass):
    seen = at_pass(lambda: append(copied, b"x,y\n"), None)
    result = import_customers(copied, dsn, dry_run=True)
    assert seen[0] == MOST_GROWTHS + 1
    assert any(f"behind byte {result.bytes_read} was left out" in note for note in result.notes)


def test_parsed_batches_say_that_the_file_has_changed(copied, at_pass):
    at_pass(lambda: flip(copied, BLOCK + 5000))
    with pytest.raises(SourceChanged, match=r"while it was read$"):
        for _ in iter_batches(copied):
            pass


@pytest.mark.parametrize("cut", [0, 10])
def test_parsed_batches_go_on_with_what_is_appended(copied, at_pass, cut):
    expected = [row for batch in iter_batches(copied) for row in batch.rows]
    lines = [line for batch in iter_batches(copied) for line in batch.line_numbers]
    whole = copied.read_bytes()
    at = whole.rindex(b"\n", 0, len(whole) // 2) + 1 - cut
    copied.write_bytes(whole[:at])
    at_pass(lambda: append(copied, whole[at:]))
    batches = list(iter_batches(copied))
    assert [row for batch in batches for row in batch.rows] == expected
    assert [line for batch in batches for line in batch.line_numbers] == lines


def test_parsed_batches_of_a_file_that_grows_for_ever_end(copied, at_pass, caplog):
    whole = copied.read_bytes()
    seen = at_pass(lambda: append(copied, whole[200:-7]), None)
    count = sum(len(batch.rows) for batch in iter_batches(copied))
    assert seen[0] == MOST_GROWTHS + 1
    assert count > 3 * ROWS
    assert "went on growing" in caplog.text
