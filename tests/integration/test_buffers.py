"""Sources of buffers: of any kind and size, and never in memory twice."""

from __future__ import annotations

import array
import io
import subprocess
import sys
from typing import Any

import pytest

from customer_panel import iter_batches
from support.databases import environment

TEXT = b"id,city\n" + b"".join(b"%d,Rome%90s\n" % (number, b"") for number in range(16_000))
IDS = [str(number) for number in range(16_000)]
HALF = len(TEXT) // 2


def ids(source: Any) -> list[Any]:
    return [row[0] for batch in iter_batches(source) for row in batch.rows]


def padded() -> bytes:
    """`TEXT`, a multiple of eight bytes long."""
    return TEXT + b"\n" * (-len(TEXT) % 8)


def spread(step: int) -> memoryview:
    """`TEXT` as every `step`-th byte of a buffer: it is not contiguous."""
    buffer = bytearray(len(TEXT) * step)
    buffer[::step] = TEXT
    return memoryview(buffer)[::step]


def numbers() -> memoryview:
    return memoryview(array.array("d", padded()))


BUFFERS = {
    "bytes": lambda: [TEXT],
    "a bytearray": lambda: [bytearray(TEXT)],
    "a view": lambda: [memoryview(TEXT)],
    "a view of a part": lambda: [memoryview(b"..." + TEXT + b"...")[3:-3]],
    "a view with gaps": lambda: [spread(3)],
    "a view backwards": lambda: [memoryview(TEXT[::-1])[::-1]],
    "a view of numbers": lambda: [numbers()],
    "a view of numbers backwards": lambda: [memoryview(array.array("d", numbers()[::-1]))[::-1]],
    "a table": lambda: [numbers().cast("B").cast("B", [len(padded()) // 8, 8])],
    "single bytes as items": lambda: [memoryview(padded()).cast("c")],
    "empty ones between": lambda: [
        b"",
        TEXT[:HALF],
        b"",
        bytearray(),
        memoryview(b""),
        TEXT[HALF:],
    ],
    "empty numbers between": lambda: [TEXT[:HALF], memoryview(array.array("d")), TEXT[HALF:]],
    "many of one byte": lambda: [
        *(TEXT[at : at + 1] for at in range(HALF // 20)),
        TEXT[HALF // 20 :],
    ],
    "a buffer used again": lambda: used_again(),
    "a file object": lambda: io.BytesIO(TEXT),
    "a file object of views": lambda: Views(TEXT),
}


def used_again() -> Any:
    buffer, text = bytearray(5000), io.BytesIO(TEXT)
    while count := text.readinto(buffer):
        yield memoryview(buffer)[:count]


class Views:
    """A file object that gives more than it is asked for."""

    def __init__(self, text: bytes) -> None:
        self.pieces = [memoryview(text)[:HALF], memoryview(text)[HALF:], b""]

    def read(self, count: int) -> Any:
        return self.pieces.pop(0)


@pytest.mark.parametrize("name", BUFFERS)
def test_the_rows_are_the_same_whatever_the_buffers(name):
    assert ids(BUFFERS[name]()) == IDS


def test_a_bytearray_may_grow_again_behind_its_turn():
    buffer = bytearray(TEXT)
    assert ids([buffer]) == IDS
    buffer += b"more"


BIG = 160 << 20
ROOM = 80 << 20  # queues, chunks, batches, the rows of one batch as Python objects
CHILD = """
import sys
from customer_panel import import_customers, iter_batches

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) << 10

row = b"7,%s\\n" % (b"x" * 1990)
made = {kind}(b"id,about\\n" + row * ({size} // len(row)))
# What was needed to make it does not count.
open("/proc/self/clear_refs", "w").write("5")
before = peak()
rows = {use}
assert rows == {size} // len(row), rows
print(peak() - before)
"""
USES = {
    "iter_batches": "sum(len(batch.rows) for batch in iter_batches([made], batch_rows=1000))",
    "dry run": "import_customers([made], dry_run=True).rows_processed",
}


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        ("bytes", "iter_batches"),
        ("bytearray", "iter_batches"),
        ("memoryview", "iter_batches"),
        ("bytes", "dry run"),
    ],
)
def test_one_big_buffer_is_not_copied_as_a_whole(dsn, kind, use):
    script = CHILD.format(kind=kind, size=BIG, use=USES[use])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(DATABASE_URL=dsn),
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    taken = int(done.stdout)
    print(taken >> 20, "MiB")
    assert taken < ROOM
