"""Two imports of some 3,000 rows in which everything occurs, and one call of the driver disturbed."""

from __future__ import annotations

import csv
import signal
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from customer_panel import _native
from customer_panel.states import WAITING
from support.calls import KINDS
from support.compare import run
from support.databases import Databases
from support.kill_runner import Ended, Runner, Scene, scene

PORTION = 25  # of parked rows: some transactions for a small file
TUNING = {"empty": {"lanes": 2, "batch_rows": 500}, "loaded": {"lanes": 2, "batch_rows": 150}}
# How the resume differs from the run that was disturbed.
RESUMES = (
    {"lanes": 1, "batch_rows": 40},
    {"lanes": 3, "batch_rows": 150},
    {"lanes": 5, "batch_rows": 5_000},
)
STOPS = (signal.SIGTERM, signal.SIGINT, 0)  # 0: a request in the database
HANGS_S = 20.0  # a run that takes so long has to be killed
SCENES = tuple(TUNING)
# What the product does not do yet; not judged until it does.
CLOCKED = ("cp-requests ", "cp-clock ", "cp-cancel ", " try_lock ", " others_wait ")


def prepared(databases: Databases, template: str, folder: Path) -> dict[str, Scene]:
    """A first load, and the night after it, when people have worked with the customers."""
    first, again = folder / "first.csv", folder / "again.csv"
    common = {"seed": 20, "dirty": 0.03}
    _native.generate(str(first), 2500, duplicates=0.02, **common)
    _native.generate(str(again), 3000, duplicates=0.03, changed=0.1, **common)
    # The seed decides which lane a customer is in, so without it calls would have other numbers.
    databases.execute(f"CREATE DATABASE swept_empty TEMPLATE {template}")
    with psycopg.connect(databases.dsn("swept_empty")) as conn:
        conn.execute("UPDATE database_seed SET seed = 20")
    databases.execute("CREATE DATABASE swept TEMPLATE swept_empty")
    run(first, databases.dsn("swept"))
    with psycopg.connect(databases.dsn("swept")) as conn:
        conn.execute("UPDATE customers SET city = 'Atlantis', phone1 = NULL WHERE id % 7 = 0")
        conn.execute("UPDATE customers SET first_name = 'Ed' WHERE many_rows AND id % 3 = 0")
        conn.execute("UPDATE customers SET deleted_at = now() WHERE id % 31 = 0")
        for key in sorted(_keys(again) - _keys(first))[::40]:
            conn.execute("INSERT INTO customers (customer_id, city) VALUES (%s, 'Handtown')", [key])
        # As the API counts what was done here by hand.
        conn.execute("DELETE FROM customer_totals")
        conn.execute(
            "INSERT INTO customer_totals SELECT id >> 13, count(*) FROM customers"
            " WHERE deleted_at IS NULL GROUP BY 1"
        )
    found = {
        "empty": scene(databases, again, "swept_empty"),
        "loaded": scene(databases, again, "swept"),
    }
    _, inserted, updated, protected, same, skipped, pending, warnings = found["loaded"].counts
    assert all([inserted, updated, protected, same, skipped, warnings])
    assert not pending
    return found


def _keys(path: Path) -> set[str]:
    with path.open(newline="", errors="replace") as file:
        return {row[1] for row in csv.reader(file) if len(row) == 12 and row[1].isalnum()}


def _is_clocked(call: str) -> bool:
    return any(part in call for part in CLOCKED)


@dataclass
class Sweep:
    """The calls of a scene's import, and what happens when one is disturbed."""

    name: str
    scene: Scene
    databases: Databases
    runner: Runner

    def __post_init__(self) -> None:
        with self.databases.copy(self.scene.before) as dsn:
            ended = self._run(dsn, call=None)
            self.scene.check(dsn)
        # By threads, each in its own order: so number k is the same call each time. Last those whose
        # number depends on the clock.
        self.calls = sorted(
            ended.answer["calls"], key=lambda name: (_is_clocked(name), name.split()[0])
        )

    def numbers(self, part: int, parts: int) -> range:
        """The numbers of the calls that are `part` modulo `parts`."""
        return range(part or parts, len(self.calls) + 1, parts)

    def _run(self, dsn: str, **job: object) -> Ended:
        job = {"tuning": TUNING[self.name], "portion": PORTION, "grace_s": 0.1} | job
        return self.runner.run(self.scene.path, dsn, kill_after_s=HANGS_S, **job)

    def failure(self, k: int, kind: str) -> str | None:
        """Disturbs call `k`, and finishes the import then; what went wrong, and how to see it again."""
        call = self.calls[k - 1]
        try:
            with self.databases.copy(self.scene.before) as dsn:
                ended = self._run(dsn, call=call, kind=kind, stop=STOPS[k % 3])
                self._check_end(dsn, call, kind, ended)
                if self.scene.newest(dsn) is None:
                    resumed = self._run(dsn, tuning=RESUMES[k % 3])
                    assert resumed.answer.get("result"), f"the resume: {resumed}"
                self.scene.check(dsn)
        except AssertionError as error:
            return f"make chaos-sweep SCENE={self.name} KIND={kind} K={k}  # {call}\n{error}\n"
        return None

    def _check_end(self, dsn: str, call: str, kind: str, ended: Ended) -> None:
        """How the disturbed run ended."""
        if "result" in ended.answer:
            assert self.scene.newest(dsn) is not None, ended.answer["result"]
            assert ended.answer["is_disturbed"] or _is_clocked(call), "the call did not come"
            return
        assert (ended.exit == -signal.SIGKILL) == kind.startswith("kill"), (
            f"it did not end within {HANGS_S:g} s"
        )
        if kind.startswith("kill"):
            return
        with psycopg.connect(dsn) as conn:
            row = conn.execute(
                "SELECT status FROM imports WHERE id >= %s AND epoch > 0", [self.scene.job_id]
            ).fetchone()
        status = row and row[0]
        said = f"{ended.answer['error']}: {ended.answer['message']}; the import is {status}"
        # Before the claim there is nothing to go on with.
        assert status is None or kind not in ("cut-before", "cut-after", "terminated"), said
        # Its result may be what could not be read.
        assert status in (None, "COMPLETED", *WAITING), said
        expected = {"hang": "stopped", "disk-full": "disk_full"}.get(kind)
        assert expected in (None, ended.answer["error"]), said


@pytest.fixture(scope="session")
def sweeps(databases, template, runner, tmp_path_factory) -> dict[str, Sweep]:
    found = prepared(databases, template, tmp_path_factory.mktemp("swept"))
    return {name: Sweep(name, found[name], databases, runner) for name in SCENES}


__all__ = ["KINDS", "SCENES", "Sweep", "sweeps"]
