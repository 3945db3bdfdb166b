"""One pass over the source: a pipeline, and for each lane of the pass a thread with its own
connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from customer_panel._native import Batch, Known, Pipeline, Plan
from customer_panel.imports.job.progress import Tally
from customer_panel.imports.job.sessions import Sessions
from customer_panel.imports.model import Counts, Lane, Tuning
from customer_panel.imports.sources import Source, reading
from customer_panel.imports.stop import Stop
from customer_panel.imports.unchanged import Read, Unchanged

WAKE_S = 0.1  # how often the waiting thread looks for a stop and reports progress
PARSERS = 2  # each parses 600 MB/s and more: two parse faster than any server can write


# Commits a batch and returns what is counted; opened for a lane, in the lane's thread.
Write = Callable[[Batch], Counts]
OpenWriter = Callable[[int], AbstractContextManager[Write]]


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What all passes of one run share."""

    source: Source
    plan: Plan
    tuning: Tuning
    sessions: Sessions
    tally: Tally
    stop: Stop
    unchanged: Unchanged


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """The lanes that run at once, the number of all lanes, and how they read and write."""

    lanes: list[Lane]
    total: int
    seed: int
    import_id: int | None
    clears_blanks: bool
    parks_changed: bool
    parks_many: bool = False
    parks_done: bool = False
    is_second: bool = False
    until: int | None = None


class Ended(msgspec.Struct, frozen=True):
    """The end of a pass: the batches of its tail; the byte where the tail begins, whichever lanes it
    has rows for; the byte where the source ended; the hashes of what was read; how many customers
    with several rows have the same ones as before; and the map for the second reading, unless all
    have. See native Pipeline.outcome.
    """

    tails: list[Batch]
    decided: int
    end: int
    read: Read
    unchanged: int
    changed: Known | None


def run_pass(
    scan: Scan,
    this: Pass,
    known: Known,
    writer: OpenWriter,
) -> Ended | None:
    """Runs the lanes of a pass to the end of the source; None if a stop ended it at batch borders.

    `writer(lane)` is entered in the lane's thread and gives the function that writes its batches.
    Raises the first error of any lane, OverBudget, SourceUnreadable, or EngineBroken, when all other
    lanes have stopped at a batch border; SourceChanged and StopRequested when what was read is
    compared.
    """
    with reading(scan.source):
        pipeline = _pipeline(scan, this, known)
    failures: list[BaseException] = []
    ended = threading.Semaphore(0)

    def should_stop() -> bool:
        return scan.stop.is_asked() or bool(failures)

    def lane_thread(lane: int) -> None:
        try:
            with writer(lane) as write:
                while (batch := pipeline.next_batch(lane)) is not None:
                    if should_stop():
                        break
                    began = time.monotonic()
                    counts = write(batch)
                    batch.release()
                    if not this.is_second:
                        seconds = time.monotonic() - began
                        scan.tally.committed(counts, lane, batch.span[1], seconds)
        except BaseException as error:  # raised again below, by the thread that waits for this one
            failures.append(error)
        finally:
            if should_stop():
                pipeline.stop()
            ended.release()

    threads = [
        threading.Thread(target=lane_thread, args=(lane.lane,), name=f"cp-lane-{lane.lane}")
        for lane in this.lanes
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while not ended.acquire(timeout=WAKE_S):
                scan.tally.report()
                if should_stop():
                    pipeline.stop()
    except BaseException as error:
        failures.append(error)
        pipeline.stop()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if should_stop():
        pipeline.stop()
        return None
    # Lanes end when no more batches come. Only this says that it was the end of the source.
    with reading(scan.source):
        reached = Ended(*pipeline.outcome())
    scan.unchanged.passed(reached.read)
    return reached


def _pipeline(scan: Scan, this: Pass, known: Known) -> Pipeline:
    return Pipeline(
        scan.source.native,
        scan.plan,
        seed=this.seed,
        lanes=this.total,
        first_lane=this.lanes[0].lane,
        done_to=[lane.done_to for lane in this.lanes],
        known=known,
        import_id=this.import_id or 0,
        blank_clear=this.clears_blanks,
        until=this.until,
        batch_rows=scan.tuning.batch_rows,
        batch_bytes=scan.tuning.batch_bytes,
        budget=scan.tuning.budget_bytes,
        parks_changed=this.parks_changed,
        parks_many=this.parks_many,
        parks_done=this.parks_done,
        is_second=this.is_second,
        hashes_blocks=scan.tuning.is_safe,
        parsers=min(PARSERS, os.cpu_count() or 1),
    )
