"""One pass over the source: a pipeline, and a thread with a connection of its own for each lane of
the pass.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import psycopg

from customer_panel._native import Batch, Known, Pipeline, Plan
from customer_panel.errors import SourceUnreadable
from customer_panel.imports.job.progress import Tally
from customer_panel.imports.model import Counts, Lane, Tuning
from customer_panel.imports.sources import Source

Connection = psycopg.Connection[Any]
WAKE_S = 0.1
PARSERS = 2  # each parses 600 MB/s and more: two keep ahead of any server


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """Which lanes run at once, and how."""

    lanes: list[Lane]
    total: int
    seed: int
    import_id: int
    is_clearing: bool
    parks_changed: bool
    until: int | None = None


class Ended(msgspec.Struct, frozen=True):
    """How a pass ended: with the batch of an open-ended last record (see native Pipeline.outcome),
    at that byte.
    """

    tail: Batch | None
    end: int


def run(
    source: Source,
    plan: Plan,
    known: Known,
    asked: Pass,
    tuning: Tuning,
    tally: Tally,
    apply: Callable[[int], AbstractContextManager[Callable[[Batch], Counts]]],
    should_stop: Callable[[], bool],
) -> Ended | None:
    """Runs the lanes of a pass to the end of the source; None if it was stopped at batch borders.

    `apply(lane)` is entered in the lane's thread and gives the function that takes its batches.
    Raises the first failure of any lane, OverBudget, or SourceUnreadable; the other lanes have
    stopped at a batch border by then.
    """
    pipeline = Pipeline(
        source.native(),
        plan,
        seed=asked.seed,
        head=source.head,
        lanes=asked.total,
        first_lane=asked.lanes[0].lane,
        done_to=[lane.done_to for lane in asked.lanes],
        known=known,
        import_id=asked.import_id,
        blank_clear=asked.is_clearing,
        until=asked.until,
        batch_rows=tuning.batch_rows,
        batch_bytes=tuning.batch_bytes,
        budget=tuning.budget_bytes,
        parks_changed=asked.parks_changed,
        hashes_blocks=tuning.is_safe,
        parsers=min(PARSERS, os.cpu_count() or 1),
    )
    failures: list[BaseException] = []
    ended = threading.Semaphore(0)

    def lane_thread(lane: int) -> None:
        try:
            with apply(lane) as take:
                while (batch := pipeline.next_batch(lane)) is not None:
                    if should_stop() or failures:
                        break
                    began = time.monotonic()
                    counts = take(batch)
                    batch.release()
                    tally.committed(counts, lane, batch.span[1], time.monotonic() - began)
        except BaseException as wrong:  # raised again below, by the thread that waits for this one
            failures.append(wrong)
        finally:
            if should_stop() or failures:
                pipeline.stop()
            ended.release()

    threads = [
        threading.Thread(target=lane_thread, args=(lane.lane,), name=f"cp-lane-{lane.lane}")
        for lane in asked.lanes
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while not ended.acquire(timeout=WAKE_S):
                tally.tell()
                if should_stop() or failures:
                    pipeline.stop()
    except BaseException as wrong:
        failures.append(wrong)
        pipeline.stop()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if should_stop():
        pipeline.stop()
        return None
    try:
        return Ended(*pipeline.outcome())
    except OSError as wrong:
        raise SourceUnreadable(f"the source cannot be read: {wrong.strerror or wrong}") from wrong
