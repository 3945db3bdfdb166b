"""How the work is divided changes nothing: any lanes, batches, memory, passes give one outcome."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest

from customer_panel import _native
from support.compare import counts, digest, rejects, run

ROWS = 20_000
BASE = {"rows": ROWS, "seed": 5, "duplicates": 0.03, "dirty": 0.03}
ROOM = 130_000  # bytes: a map of some 6,000 identities
WAYS = [
    {"lanes": 1},
    {"lanes": 2},
    {"lanes": 3},
    {"lanes": 8},
    {"lanes": 1, "batch_rows": 1000},
    {"lanes": 2, "batch_rows": 777},
    {"lanes": 3, "batch_bytes": 60_000},
    {"lanes": 8, "batch_rows": 300},
    {"lanes": 2, "budget_bytes": 300_000},
    {"lanes": 3, "budget_bytes": 60_000},
]


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> list[Path]:
    """The files of four nights: first load, the same again, a tenth changed, other duplicates."""
    folder = tmp_path_factory.mktemp("nights")
    paths = []
    for name, options in {
        "1": BASE,
        "2": BASE,
        "3": BASE | {"changed": 0.1},
        "4": BASE | {"changed": 0.05, "duplicates": 0.1},
    }.items():
        _native.generate(str(folder / name), **options)
        paths.append(folder / name)
    return paths


def outcome(dsn: str, result) -> tuple:
    """All that must be equal; databases of one template have one seed, so hashes too."""
    return digest(dsn), counts(result), rejects(dsn, result.job_id)


@pytest.fixture(scope="module")
def undisturbed(nights, databases, template) -> list[tuple]:
    """The outcome of each night by one lane in one batch."""
    with databases.copy(template) as dsn:
        return [outcome(dsn, run(night, dsn, lanes=1)) for night in nights]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_lanes_batches_and_budgets_change_no_night(nights, undisturbed, dsn, way):
    for night, wanted in zip(nights, undisturbed, strict=True):
        assert outcome(dsn, run(night, dsn, **way)) == wanted


def lanes_of(database, result) -> int:
    return database.execute(
        "SELECT count(*) FROM import_lanes WHERE import_id = %s", [result.job_id]
    ).fetchone()[0]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_several_passes_change_no_night(nights, undisturbed, dsn, database, lanes):
    for night, wanted in zip(nights, undisturbed, strict=True):
        result = run(night, dsn, lanes=lanes, memory_bytes=ROOM)
        assert outcome(dsn, result) == wanted
        assert lanes_of(database, result) >= lanes * 2


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_too_low_a_guess_of_identities_divides_the_lanes_and_changes_no_night(
    nights, undisturbed, dsn, database, lanes, monkeypatch
):
    monkeypatch.setattr("customer_panel.imports.engine.identities.identity_count", lambda *_: 10)
    for night, wanted in zip(nights, undisturbed, strict=True):
        result = run(night, dsn, lanes=lanes, memory_bytes=ROOM, batch_rows=500)
        assert outcome(dsn, result) == wanted
        assert lanes_of(database, result) >= lanes * 2


class Untouched:
    """Where every customer lies, and what was ever written to their table."""

    def __init__(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_stat_force_next_flush()")
            self.places = conn.execute(
                "SELECT customer_id, ctid::text, xmin::text FROM customers ORDER BY customer_id"
            ).fetchall()
            self.history = conn.execute("SELECT count(*) FROM customer_history").fetchone()
            self.written = conn.execute(
                "SELECT n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables"
                " WHERE relname = 'customers'"
            ).fetchone()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Untouched) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("way", [{"lanes": 1}, {"lanes": 3, "batch_rows": 900}], ids=str)
def test_a_file_with_duplicates_imported_twice_writes_nothing_the_second_time(nights, dsn, way):
    first = run(nights[0], dsn, lanes=2)
    assert first.rows_duplicate > 100
    before = Untouched(dsn)
    again = run(nights[0], dsn, **way)
    assert Untouched(dsn) == before
    assert (again.rows_inserted, again.rows_updated, again.rows_protected) == (0, 0, 0)
    assert again.rows_unchanged == first.rows_inserted
    assert again.rows_duplicate == first.rows_duplicate


def test_two_feeds_in_turn_with_the_same_rows_write_nothing(nights, dsn):
    run(nights[0], dsn, feed="main")
    before = Untouched(dsn)
    for feed in ("crm", "main", "crm"):
        result = run(nights[0], dsn, feed=feed)
        assert Untouched(dsn) == before
        assert result.rows_updated == 0


def test_waiting_rows_are_gone_at_the_end(nights, dsn, database):
    run(nights[0], dsn)
    assert database.execute("SELECT count(*) FROM import_parked").fetchone() == (0,)


def test_shuffled_batches_of_unrelated_sizes_agree(nights, undisturbed, dsn):
    draw = random.Random(1)
    for night, wanted in zip(nights, undisturbed, strict=True):
        way = {"lanes": draw.randint(1, 6), "batch_rows": draw.randint(50, 5000)}
        assert outcome(dsn, run(night, dsn, **way)) == wanted, way
