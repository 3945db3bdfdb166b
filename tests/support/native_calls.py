"""Calls everything of the extension with anything: right and wrong types, values and orders.

`python native_calls.py SEED STEPS` makes random calls in the folder where it runs, and writes each
into the file `calls` before it makes it: so the last line names the call that hung, aborted or
panicked. Raises on any error that is not among those that the stub names.

A new function, method or property has to be given a line in `CALLS`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from customer_panel import _native

# `Broken` is not among them: it means that a thread of the engine panicked.
DOCUMENTED = (
    TypeError,
    ValueError,
    OverflowError,
    OSError,
    BufferError,
    _native.PlanError,
    _native.OverBudget,
    _native.Stopped,
)
HANGS_S = 30  # what waits was told to stop long before
RELIEF_S = 0.1  # so long may a call wait for a source, for memory or for room

NUMBERS = [0, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
NUMBERS += [-number for number in NUMBERS] + [10**30]
HOSTILE: list[Any] = [
    *NUMBERS,
    *(None, True, 1.5, math.nan, math.inf, 1j),
    *("", "x", "||", '"', "\n", "\0", "\ud800", "ü", "id", "x" * 100_000),
    *(b"", b"x", b"\0" * 5000, b"\xff" * 99, bytearray(b"x"), memoryview(b"xyz")[::2]),
    *([], [0], [-1], [None], [2**64], [(0, 0)], [("", "")], [("id", "id")] * 3, [[1]], ["id"]),
    *((), {}, set(), object(), int, len, [0] * 70_000, {"id": "id"}),
]

HEADERS = [b"id,email,city\n", b"id;created at\r", b'\xef\xbb\xbf"id"\tabout\r\n', b"id"]
RECORDS = [
    b"1,a@b,Rome\n",
    b"2,,\r\n",
    b",,\n",
    b'3,"x\n',
    b"4\r",
    b'5,"a""b",\xff\n',
    b"\0\n",
    b"6,",
]

Draw = random.Random


class Objects:
    """What has been made so far, a few of each class."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.kept: dict[str, list[Any]] = {}

    def keep(self, made: Any) -> None:
        kept = self.kept.setdefault(type(made).__name__, [])
        kept.append(made)
        if len(kept) > 4:
            kept.pop(self.draw.randrange(len(kept)))

    def one(self, name: str) -> Any:
        kept = self.kept.get(name)
        if not kept or self.draw.random() < 0.2:
            self.keep(MAKERS[name](self.draw, self))
            kept = self.kept[name]
        return self.draw.choice(kept)

    def relieve(self) -> None:
        """Ends whatever waits."""
        for kept in list(self.kept.values()):
            for made in list(kept):
                if isinstance(made, _native.Pipeline | _native.Source):
                    made.stop()
                if isinstance(made, _native.Feed):
                    made.close("relieved")


# -- arguments that are right ----------------------------------------------------------------------


def text(draw: Draw) -> bytes:
    records = draw.choices(RECORDS, k=draw.choice([0, 1, 5, 5, 200, 30_000]))
    return draw.choice(HEADERS) + b"".join(records)


def file(draw: Draw) -> str:
    path = f"file{draw.randrange(5)}.csv"
    Path(path).write_bytes(text(draw))
    return path


def new_plan(draw: Draw, _: Objects) -> _native.Plan:
    if draw.random() < 0.5:
        return _native.Plan.from_header(draw.choice(HEADERS))
    return _native.Plan.restore(
        draw.choice(",;\t^"),
        ["id", "email", "city"][: draw.randrange(4)],
        [],
        date_order=draw.choice([None, "mdy", "dmy"]),
        data_start=draw.choice([0, 3, 14, 1000, 1 << 20]),
        header_lines=0,
    )


def new_source(draw: Draw, objects: Objects) -> _native.Source:
    if draw.random() < 0.5:
        with Path(file(draw)).open("rb") as opened:
            return _native.Source.from_file(opened.fileno())
    feed = _native.Feed()
    objects.keep(feed)
    threading.Thread(target=lambda: feed.push(text(draw)) and feed.close(), daemon=True).start()
    return _native.Source.from_feed(feed)


def new_known(draw: Draw, _: Objects) -> _native.Known:
    lanes = draw.randrange(1, 4)
    return _native.Known(
        draw.choice([0, -1, 7]),
        expected=draw.choice([0, 1000]),
        memory=draw.choice([0, 1 << 20]),
        lanes=lanes,
        first_lane=0,
        lane_count=lanes,
    )


def new_pipeline(draw: Draw, objects: Objects) -> _native.Pipeline:
    lanes = draw.randrange(1, 4)
    for _ in range(20):
        with contextlib.suppress(RuntimeError):
            return _native.Pipeline(
                new_source(draw, objects),
                new_plan(draw, objects),
                seed=draw.choice([0, -(2**63), 2**63 - 1]),
                lanes=lanes,
                done_to=[draw.choice([0, 14, 15, 99, 2**64 - 1]) for _ in range(lanes)],
                batch_rows=draw.choice([0, 1, 100, 2**64 - 1]),
                batch_bytes=draw.choice([0, 1000, 2**64 - 1]),
                budget=draw.choice([0, 1000, 1 << 20, 2**64 - 1]),
                until=draw.choice([None, None, 0, 20, 2**64 - 1]),
                checkpoint_bytes=draw.choice([0, 10, 2**64 - 1]),
                known=draw.choice([None, new_known(draw, objects)]),
                parks_many=draw.random() < 0.5,
                parks_done=draw.random() < 0.3,
                is_second=draw.random() < 0.2,
            )
    raise AssertionError("no pipeline can be made")


def new_batch(draw: Draw, objects: Objects) -> _native.Batch:
    while True:
        pipeline = new_pipeline(draw, objects)
        with relieved(objects, pipeline):
            batch = pipeline.next_batch(0)
        if batch is not None:
            return batch


MAKERS: dict[str, Callable[[Draw, Objects], Any]] = {
    "Plan": new_plan,
    "Feed": lambda *_: _native.Feed(),
    "Source": new_source,
    "Known": new_known,
    "Pipeline": new_pipeline,
    "Batch": new_batch,
    "Pieces": lambda draw, objects: objects.one("Batch").changed(0),
}


def descriptor(draw: Draw) -> int:
    """Of a file, a folder, a socket, a device, or of nothing."""
    kept: list[Any] = globals().setdefault("_open", [])
    if not kept:
        kept += [Path(file(draw)).open("rb"), *socket.socketpair()]  # noqa: SIM115
        kept += [os.open(".", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY), *os.pipe()]
    found = draw.choice([*kept, -1, 10_000])
    return found if isinstance(found, int) else found.fileno()


def array(draw: Draw) -> bytes:
    """A one-dimensional array as PostgreSQL sends it, often cut off or with wrong lengths."""
    items = draw.choices([b"1", b"abcdefgh", b"", b"\xff" * 4], k=draw.randrange(5))
    whole = b"\0\0\0\1" + bytes(16) + b"".join(len(i).to_bytes(4) + i for i in items)
    return draw.choice([whole, whole[: draw.randrange(len(whole))], whole + b"\x7f\xff\xff\xff"])


def number(*most: int) -> Callable[[Draw], Any]:
    return lambda draw: draw.choice([0, 1, 2, 7, *most])


def word(draw: Draw) -> str:
    return draw.choice(["", "a@b", "J\u030c@X", "'7", '="7"', "\u0130", "\ud800", "x" * 10_000])


def ids(draw: Draw) -> list[tuple[int, int]]:
    return draw.choice([[], [(1, 1)], [(7, 2)], [(2**63 - 1, 2)], [(1, 2**62)], [(0, -1), (5, 3)]])


def stop_progress(_: int) -> None:
    raise ValueError("enough")


# -- the calls -------------------------------------------------------------------------------------

Argument = Callable[[Draw], Any]
OF = "of"  # an argument that is one of the objects: (OF, class)
SEED = number(2**63 - 1, -(2**63))

# For each function, constructor, method and property: its arguments, by position or by name.
CALLS: dict[str, dict[str | int, Argument | tuple[str, str]] | None] = {
    "customer_fields": {},
    "full_name_aliases": {},
    "finding_codes": {},
    # A huge number of rows is right: then only `progress` ends it.
    "generate": {
        0: lambda draw: draw.choice(["made.csv", "none/made.csv", "."]),
        1: number(2**64 - 1),
        "progress": lambda _: stop_progress,
        "about": lambda draw: draw.random() < 0.5,
        "duplicates": lambda draw: draw.choice([0.0, 0.5, math.nan, -1.0, math.inf]),
        "dirty": lambda draw: draw.choice([0.0, 1.0, 2.0]),
        "changed": lambda draw: draw.choice([0.0, 1.0, -math.inf]),
        "seed": number(2**64 - 1),
    },
    "scan_speed": {0: file, 1: number()},
    "verify": {
        0: (OF, "Source"),
        1: lambda draw: {draw.randrange(3): draw.randrange(99) for _ in range(3)},
        2: lambda draw: {draw.choice([0, 14, 40, 2**64 - 1]): draw.randrange(99)},
        3: lambda _: int,
    },
    "normalize_email": {0: word},
    "normalize_identity": {0: word},
    "email_identity": {0: word},
    "Plan.from_header": {
        0: text,
        "delimiter": lambda draw: draw.choice(
            [None, ",", ";", "", "||", "t", '"', "\n", "\0", "ü"]
        ),
        "overrides": lambda draw: draw.choice([[], [("city", "")], [("x", "city"), ("id", "zip")]]),
        "date_order": lambda draw: draw.choice([None, "mdy", "dmy", "ymd"]),
    },
    "Plan.restore": {
        0: lambda draw: draw.choice([",", "", "||", "\r"]),
        1: lambda draw: draw.choice([[], ["id", "city"], ["id"] * 5]),
        2: lambda draw: draw.choice([[], [("id", "customer_id")], [("city", "city"), ("id", "x")]]),
        "date_order": lambda draw: draw.choice([None, "mdy", ""]),
        "data_start": number(2**20, 2**64 - 1),
        "header_lines": number(2**64 - 1),
    },
    "Plan.data_start": None,
    "Plan.header_lines": None,
    "Plan.delimiter": None,
    "Plan.headers": None,
    "Plan.mapping": None,
    "Plan.unmapped": None,
    "Plan.fields": None,
    "Plan.header_hash": {0: text},
    "Plan.average_record_bytes": {0: text},
    "Known": {
        0: SEED,
        "expected": number(1000, 2**64 - 1),
        "memory": number(1 << 20),
        "lanes": number(2**32 - 1),
        "first_lane": number(2**32 - 1),
        "lane_count": number(2**32 - 1),
    },
    "Known.load_hashes": {0: array, 1: array},
    "Known.load_flags": {0: array, 1: array},
    "Feed": {},
    "Feed.push": {0: text},
    "Feed.close": {"error": lambda draw: draw.choice([None, "the wire is cut"])},
    "Source.from_file": {0: descriptor},
    "Source.from_feed": {0: (OF, "Feed")},
    "Source.is_rewindable": None,
    "Source.head": {0: number(14, 1 << 20, 64 << 20)},
    "Source.stop": {},
    "Pipeline": {
        0: (OF, "Source"),
        1: (OF, "Plan"),
        "seed": SEED,
        "lanes": number(4, 2**32 - 1),
        "done_to": lambda draw: draw.choice([[0], [14], [99, 3, 2**64 - 1], [], [5] * 70_000]),
        "batch_rows": number(2**64 - 1),
        "batch_bytes": number(2**64 - 1),
        "budget": number(1 << 20, 2**64 - 1),
        "first_lane": number(2**32 - 1),
        "known": lambda _: None,
        "import_id": SEED,
        "blank_clear": lambda draw: draw.random() < 0.5,
        "until": lambda draw: draw.choice([None, 0, 20, 2**64 - 1]),
        "checkpoint_bytes": number(2**64 - 1),
        "parks_changed": lambda draw: draw.random() < 0.5,
        "parks_many": lambda draw: draw.random() < 0.5,
        "parks_done": lambda draw: draw.random() < 0.5,
        "is_second": lambda draw: draw.random() < 0.3,
        "hashes_blocks": lambda draw: draw.random() < 0.5,
        "parsers": number(64, 65, 2**64 - 1),
    },
    "Pipeline.next_batch": {0: number(2**32 - 1)},
    "Pipeline.outcome": {},
    "Pipeline.stop": {},
    "Batch.BLOCK_BYTES": None,
    "Batch.lane": None,
    "Batch.span": None,
    "Batch.counts": None,
    "Batch.parked_rows": None,
    "Batch.last_row_hash": None,
    "Batch.last_line": None,
    "Batch.blocks": None,
    "Batch.tail_hash": None,
    "Batch.sort": {},
    "Batch.release": {},
    "Batch.rows": {},
    "Batch.lines": {},
    "Batch.findings": {},
    "Batch.new_rows": {0: ids, 1: SEED, 2: number(2**31 - 1, -(2**31))},
    "Batch.changed": {0: number(2**31 - 1)},
    "Batch.new_to_stage": {0: number(2**31 - 1)},
    "Batch.parked": {0: SEED},
    "Pieces.__iter__": {},
    "Pieces.__next__": {},
}
STATIC = {"Plan.from_header", "Plan.restore", "Source.from_file", "Source.from_feed"}
WAITS = {"Feed.push", "Source.head", "Pipeline.next_batch", "Pipeline.outcome", "Pipeline"}


def everything() -> set[str]:
    """The names of all that can be called or read."""
    names = set()
    for name, found in vars(_native).items():
        if not isinstance(found, type):
            names |= {name} if callable(found) and not name.startswith("__") else set()
        elif not issubclass(found, BaseException):
            names |= {name} if "__new__" in vars(found) else set()
            names |= {
                f"{name}.{member}"
                for member in vars(found)
                if not member.startswith("_") or member in ("__iter__", "__next__")
            }
    return names


@contextlib.contextmanager
def relieved(objects: Objects, *more: Any) -> Iterator[None]:
    """Inside `with`, what waits is told to stop."""

    def relieve() -> None:
        for made in more:
            made.stop()
        objects.relieve()

    timer = threading.Timer(RELIEF_S, relieve)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def call(name: str, draw: Draw, objects: Objects, log: Any) -> None:
    owner, _, member = name.partition(".")
    wanted = CALLS[name]
    on = (
        _native if not member else getattr(_native, owner) if name in STATIC else objects.one(owner)
    )
    target = getattr(on, member or owner)
    if wanted is None:
        return
    arguments: dict[str | int, Any] = {}
    hostile = draw.sample(sorted(wanted, key=str), min(len(wanted), draw.choice([0, 0, 1, 1, 2])))
    for key, good in wanted.items():
        # What is left away has its default, or is an error.
        if draw.random() < 0.05 and isinstance(key, str) and key != "progress":
            continue
        if key in hostile and (name, key) != ("generate", "progress"):
            arguments[key] = draw.choice(HOSTILE)
        elif isinstance(good, tuple):
            arguments[key] = objects.one(good[1])
        else:
            arguments[key] = good(draw)
    positional = [arguments[key] for key in wanted if isinstance(key, int)]
    named = {key: value for key, value in arguments.items() if isinstance(key, str)}
    shown = ", ".join([*map(shorten, positional), *(f"{k}={shorten(v)}" for k, v in named.items())])
    print(f"{name}({shown})", file=log, flush=True)
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    with relieved(objects) if name in WAITS else contextlib.nullcontext():
        made = target(*positional, **named)
    is_large = name == "Known" and named.get("memory", 0) > 1 << 30
    if type(made).__name__ in MAKERS and not is_large:
        objects.keep(made)


def shorten(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:50]}... ({len(shown)})"


def main(seed: int, steps: int) -> None:
    draw = Draw(seed)
    objects = Objects(draw)
    names = sorted(CALLS)
    outcomes = {"returned": 0, "raised": 0}
    with Path("calls").open("w", encoding="utf-8", errors="backslashreplace") as log:
        for _ in range(steps):
            try:
                call(draw.choice(names), draw, objects, log)
            except StopIteration:
                outcomes["returned"] += 1
            except _native.Broken:
                raise
            except (*DOCUMENTED, RuntimeError):
                outcomes["raised"] += 1
            else:
                outcomes["returned"] += 1
    faulthandler.cancel_dump_traceback_later()
    objects.relieve()
    print(outcomes)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
