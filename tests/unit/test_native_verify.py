"""`verify` finds any change before the checkpoint, and none behind it."""

from __future__ import annotations

import os
import random

import pytest

from customer_panel import _native

BLOCK = _native.Batch.BLOCK_BYTES


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A file of three blocks and some, and what an import keeps of it: (done_to, blocks, tail)."""
    path = tmp_path_factory.mktemp("verify") / "file.csv"
    _native.generate(str(path), 300_000, seed=2)
    size = path.stat().st_size
    assert size > 3 * BLOCK
    with path.open("rb") as file:
        source = _native.Source.from_file(file.fileno())
    plan = _native.Plan.from_header(source.head(1 << 20))
    pipeline = _native.Pipeline(
        source,
        plan,
        seed=1,
        lanes=1,
        done_to=[plan.data_start],
        batch_rows=7001,
        batch_bytes=8 << 20,
        budget=64 << 20,
    )
    kept, blocks = [], []
    while (batch := pipeline.next_batch(0)) is not None:
        blocks = [*blocks, *batch.blocks]
        kept.append((batch.span[1], blocks, batch.tail_hash))
        batch.release()
    assert kept[-1][0] == size
    return path, kept


def verify(file, checkpoint, check=lambda: None):
    done_to, blocks, tail_hash = checkpoint
    return _native.verify(
        _native.Source.from_file(file.fileno()), dict(blocks), {done_to: tail_hash}, check
    )


def test_an_unchanged_file_passes_at_every_checkpoint(checkpoints):
    path, kept = checkpoints
    with path.open("rb") as file:
        for checkpoint in kept:
            assert verify(file, checkpoint) is None
        tails = {done_to: tail_hash for done_to, _, tail_hash in kept}
        source = _native.Source.from_file(file.fileno())
        assert _native.verify(source, dict(kept[-1][1]), tails, lambda: None) is None


@pytest.mark.parametrize("number", range(20))
def test_a_changed_byte_is_in_the_span_that_is_named(checkpoints, number):
    path, kept = checkpoints
    draw = random.Random(number)
    done_to, blocks, tail_hash = draw.choice(kept)
    behind = number % 4 == 0 and done_to < path.stat().st_size
    at = done_to if behind else draw.randrange(done_to)
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)
        found = verify(file, (done_to, blocks, tail_hash))
        os.pwrite(file.fileno(), bytes([byte]), at)
    if behind:
        assert found is None
    else:
        assert found is not None
        assert found[0] <= at < found[1] <= done_to
        assert found[0] == at // BLOCK * BLOCK


def test_a_shorter_file_is_changed_where_it_ends(checkpoints, tmp_path):
    path, kept = checkpoints
    done_to, blocks, tail_hash = kept[-1]
    short = tmp_path / "short.csv"
    short.write_bytes(path.read_bytes()[: BLOCK + 5])
    with short.open("rb") as file:
        low, high = verify(file, (done_to, blocks, tail_hash))
    assert low <= BLOCK + 5 <= high <= done_to


def test_the_comparison_ends_with_what_its_check_raises(checkpoints):
    path, kept = checkpoints
    checks = []

    def check() -> None:
        checks.append(None)
        if len(checks) == 5:
            raise KeyboardInterrupt

    with path.open("rb") as file, pytest.raises(KeyboardInterrupt):
        verify(file, kept[-1], check)
    assert len(checks) == 5


def test_a_block_has_one_hash_and_needs_one(checkpoints):
    path, kept = checkpoints
    done_to, blocks, tail_hash = kept[-1]
    with path.open("rb") as file:
        assert verify(file, (done_to, blocks[:1] + blocks[2:], tail_hash)) == (BLOCK, 2 * BLOCK)
        other = [*blocks, (0, blocks[0][1] ^ 1)]
        assert verify(file, (done_to, other, tail_hash)) == (0, BLOCK)
