"""The elapsed time of an import never goes back, and a killed run counts to its last sign of life."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import threading
import time

from customer_panel.db.pool import make_pool
from customer_panel.imports.job import clock
from customer_panel.imports.queries.snapshot import Watch
from support.kill_runner import kill
from support.workers import ask

LOOK_S = 0.02


class Observer(threading.Thread):
    """Reads the elapsed time all the time: as one process does, and as one that was just started."""

    def __init__(self, dsn):
        super().__init__()
        self.dsn, self.seen, self._is_over = dsn, [], threading.Event()
        self.start()

    def run(self):
        asyncio.run(self._look())

    async def _look(self):
        async with make_pool(self.dsn) as pool:
            watch = Watch(pool)
            while not self._is_over.is_set():
                for reader in (watch, Watch(pool)):
                    shown = (await reader.read(recent=1)).shown
                    if shown is not None:
                        self.seen.append(shown.elapsed_sec)
                await asyncio.sleep(LOOK_S)  # how often a page may look

    def close(self):
        self._is_over.set()
        self.join()


def test_elapsed_never_goes_back_however_often_it_is_killed(runner, databases, large):
    draw = random.Random(20)
    scene = large["first"]
    with databases.copy(scene.before) as dsn:
        observer = Observer(dsn)
        try:
            for _ in range(8):
                pid = runner.start(scene.path, dsn, tuning={"lanes": 2, "batch_rows": 5000})
                timer = threading.Timer(draw.uniform(0.1, scene.seconds / 2), kill, [pid])
                timer.start()
                ended = runner.wait()
                timer.cancel()
                if ended.exit == 0:
                    break
            else:
                assert runner.run(scene.path, dsn).exit == 0
        finally:
            observer.close()
        ((last,),) = ask(dsn, "SELECT elapsed_ms / 1000.0 FROM import_clocks")
    backwards = [pair for pair in itertools.pairwise(observer.seen) if pair[0] > pair[1]]
    assert not backwards
    assert len(set(observer.seen)) > 10
    assert observer.seen[-1] <= float(last)


def test_a_killed_run_counts_to_its_last_sign_of_life(runner, databases, large):
    """Also while it commits nothing: it waits for somebody's lock."""
    scene = large["first"]
    elapsed = "SELECT coalesce(max(elapsed_ms), 0) / 1000.0 FROM import_clocks"
    with databases.copy(scene.before) as dsn:
        began = time.monotonic()
        pid = runner.start(scene.path, dsn, tuning={"lanes": 2, "batch_rows": 5000})
        while ask(dsn, "SELECT count(*) FROM import_clocks WHERE elapsed_ms > 0") == [(0,)]:
            pass
        claimed = time.monotonic()
        while time.monotonic() - claimed < 0.5 * scene.seconds:
            pass
        kill(pid)
        killed = time.monotonic()
        assert runner.wait().exit == -signal.SIGKILL
        counted = float(ask(dsn, elapsed)[0][0])
        assert counted <= killed - began
        # A beat comes every twentieth of the time, or twice a second; the machine may be busy.
        assert counted >= (killed - claimed) / 2 - clock.LONGEST_S
        result = runner.run(scene.path, dsn).result
        assert result.elapsed_sec >= counted
