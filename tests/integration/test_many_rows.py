"""Customers with several rows in a file: judged at its end, and not written if nothing changed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel.errors import Stopped
from customer_panel.imports import Stop, import_customers
from customer_panel.imports.engine import finish
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.engine.request import ImportRequest
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.model import Options
from customer_panel.imports.sources import opened
from support.compare import content, counts, digest, expected, rejects, run
from support.reference import Reference

HEADER = "customer_id,first_name,city,phone1\n"
# With seed 7 the hashes of these two have the same 60 bits in the map of identities.
TWINS = ("625cbad76658ec1", "e722b359281c513")


def file(path: Path, rows: list[str]) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def two_rows_each(count: int, **changed: str) -> list[str]:
    """A customer's rows stand apart: first all first ones. `changed`: second rows by customer."""
    firsts = [f"c{number},Ada {number},Ulm," for number in range(count)]
    seconds = [
        changed.get(f"c{number}", f"c{number},,Bonn,0731-{number}") for number in range(count)
    ]
    return [*firsts, *seconds]


def written(dsn: str) -> tuple[int, ...]:
    """Rows that were ever written: parked, customers inserted and updated; and the locks taken."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute(
            "SELECT p.n_tup_ins, c.n_tup_ins, c.n_tup_upd, c.n_dead_tup,"
            " (SELECT count(*) FROM customers WHERE xmax <> 0)"
            " FROM pg_stat_user_tables AS p, pg_stat_user_tables AS c"
            " WHERE p.relname = 'import_parked' AND c.relname = 'customers'"
        ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("tuning", [{"lanes": 1}, {"lanes": 3}, {"memory_bytes": 40_000}])
def test_the_same_rows_again_write_nothing(dsn, tmp_path, tuning):
    path = file(tmp_path / "two.csv", two_rows_each(3000))
    run(path, dsn, **tuning)
    before, table = written(dsn), digest(dsn)
    result = run(path, dsn, **tuning)
    assert (result.rows_unchanged, result.rows_duplicate) == (3000, 3000)
    assert result.rows_processed == 6000
    assert written(dsn) == before
    assert digest(dsn) == table


CHANGES: dict[str, tuple[list[str], int]] = {
    # The night's rows of c7, and how many rows of it are parked.
    "another value": (["c7,Ada 7,Ulm,", "c7,,Bonn,0731-8"], 2),
    "one row less": (["c7,Ada 7,Ulm,"], 1),
    "one row more": (["c7,Ada 7,Ulm,", "c7,,Bonn,0731-7", "c7,,Köln,"], 3),
    "exchanged": (["c7,,Bonn,0731-7", "c7,Ada 7,Ulm,"], 2),
    "twice the first": (["c7,Ada 7,Ulm,", "c7,Ada 7,Ulm,"], 2),
}


@pytest.mark.parametrize("has_line_end", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_only_a_customer_with_other_rows_is_parked(dsn, tmp_path, change, has_line_end):
    rows, parked = CHANGES[change]
    first = file(tmp_path / "first.csv", two_rows_each(200))
    others = [row for row in two_rows_each(200) if not row.startswith("c7,")]
    again = file(tmp_path / "again.csv", [*others, *rows])
    if not has_line_end:
        # The last row is committed with the end of the file.
        again.write_bytes(again.read_bytes().rstrip(b"\n"))
    reference = Reference()
    for path in (first, again):
        before = written(dsn)
        result = run(path, dsn, lanes=2, batch_rows=150)
        assert counts(result) == reference.load(path.read_bytes())[0]
        assert content(dsn) == expected(reference)
    assert written(dsn)[0] - before[0] == parked
    assert run(again, dsn).rows_unchanged == 200
    assert content(dsn) == expected(reference)


def test_a_stream_parks_them_and_changes_nothing(dsn, tmp_path):
    path = file(tmp_path / "two.csv", two_rows_each(500))
    run(path, dsn)
    table = digest(dsn)
    with path.open("rb") as stream:
        result = import_customers(stream, dsn)
    assert (result.rows_unchanged, result.rows_duplicate) == (500, 500)
    assert digest(dsn) == table


def test_a_second_reading_that_was_interrupted_is_done_again(dsn, tmp_path, monkeypatch):
    first = file(tmp_path / "first.csv", two_rows_each(400))
    changed = {f"c{number}": f"c{number},,Kiel,{number}" for number in range(0, 400, 3)}
    again = file(tmp_path / "again.csv", two_rows_each(400, **changed))
    reference = Reference()
    reference.load(first.read_bytes())
    run(first, dsn)
    stop, park, calls = Stop(), Writer.park, []

    def interrupted(self: Writer, batch: Any) -> Any:
        counted = park(self, batch)
        calls.append(batch.parked_rows)
        if len(calls) == 3:
            stop.ask()
        return counted

    monkeypatch.setattr(Writer, "park", interrupted)
    with pytest.raises(Stopped):
        run(again, dsn, stop=stop, lanes=1, batch_rows=20)
    assert sum(calls) < 2 * len(changed), "it was interrupted in the middle"
    # The file grows by a row of a customer whose rows were parked already.
    with again.open("a", encoding="utf-8") as more:
        more.write("c3,,Jena,\n")
    result = run(again, dsn, lanes=3)
    wanted, _ = reference.load(again.read_bytes())
    assert counts(result) == wanted
    assert content(dsn) == expected(reference)


def test_an_import_that_was_overtaken_by_another_feed_forgets_no_row(dsn, tmp_path):
    """Its rows that waited are judged by what they find when it goes on."""
    both = file(tmp_path / "both.csv", two_rows_each(500))
    changed = {f"c{number}": f"c{number},,Kiel,{number}" for number in range(500)}
    again = file(tmp_path / "again.csv", two_rows_each(500, **changed))
    run(both, dsn, feed="shop")
    stop = Stop()

    def on_progress(progress: Any) -> None:
        if progress.counts.processed > 500:
            stop.ask()

    with pytest.raises(Stopped):
        run(again, dsn, feed="shop", on_progress=on_progress, stop=stop, lanes=1, batch_rows=100)
    # Now none of them has several rows.
    other = file(tmp_path / "other.csv", [f"c{number},Eve,Rom,9" for number in range(500)])
    with opened(other) as source:
        run_import(ImportRequest(source=source, options=Options(source="fair")), dsn)
    result = run(again, dsn, feed="shop", lanes=2)
    assert result.is_resumed
    for number in (0, 7, 499):
        found = content(dsn)[f"c{number}"]
        assert f"Ada {number}" in found
        assert "Kiel" in found
    assert result.rows_processed == 1000
    with psycopg.connect(dsn) as conn:
        left = conn.execute(
            "SELECT sum(rows_pending), (SELECT count(*) FROM import_parked) FROM import_lanes"
        ).fetchone()
    assert left == (0, 0)


@pytest.mark.parametrize("twins", [TWINS, TWINS[::-1]])
@pytest.mark.parametrize("rows_each", [1, 2])
def test_two_identities_whose_hashes_are_equal_are_two_customers(dsn, tmp_path, twins, rows_each):
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE database_seed SET seed = 7")
    reference = Reference()
    for night, city in enumerate(["Ulm", "Ulm", "Bonn", "Bonn", "Kiel"]):
        rows = [
            f"{twin},Ada,{city if number else 'Ulm'},{row}"
            for row in range(rows_each)
            for number, twin in enumerate(twins)
        ]
        path = file(tmp_path / f"night{night}.csv", ["a,A,A,", *rows, "z,Z,Z,"])
        wanted = reference.load(path.read_bytes())[0]
        result = run(path, dsn, lanes=1 + night % 2)
        assert {key: row[:-3] for key, row in content(dsn).items()} == {
            key: row[:-3] for key, row in expected(reference).items()
        }
        assert result.rows_processed == wanted.processed
        if night in (1, 3):
            assert (result.rows_inserted, result.rows_updated) == (0, 0)
    one = file(tmp_path / "one.csv", [f"{twins[1]},Eve,,"])
    run(one, dsn)
    assert content(dsn)[twins[1]][0] == "Eve"
    assert content(dsn)[twins[0]][0] == "Ada"


def resident(pids: set[int]) -> int:
    """Bytes of memory of their own that these processes have."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("RssAnon:")[2].split()[0]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_one_identity_in_very_many_rows_takes_the_memory_of_one(dsn, tmp_path, monkeypatch):
    about = "☂" * 2000
    path = tmp_path / "zero.csv"
    rows = 15_000  # 90 MB of text in one identity
    with path.open("w", encoding="utf-8") as out:
        out.write("customer_id,first_name,about_customer\n")
        for number in range(rows):
            out.write(f"0,Ada {number},{about[: 1990 + number % 10]}\n")
    most, is_over = [0], threading.Event()

    def watch() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not is_over.wait(0.01):
                found = conn.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%import lane%'"
                ).fetchall()
                try:
                    most[0] = max(most[0], resident({pid for (pid,) in found}))
                except (FileNotFoundError, IndexError):
                    continue  # one has just ended

    watcher = threading.Thread(target=watch)
    merge_parked = finish.merge_parked

    def watched(*args: Any) -> bool:
        watcher.start()
        try:
            return merge_parked(*args)
        finally:
            is_over.set()
            watcher.join()

    monkeypatch.setattr(finish, "merge_parked", watched)
    result = run(path, dsn)
    assert (result.rows_inserted, result.rows_duplicate) == (1, rows - 1)
    assert content(dsn)["0"][0] == f"Ada {rows - 1}"
    assert 0 < most[0] < 40 << 20
    assert rejects(dsn, result.job_id) == []


def test_a_portion_begins_behind_the_last_one(dsn, tmp_path, monkeypatch):
    """Rows that were merged stay in the index while an old snapshot needs them."""
    monkeypatch.setattr(finish, "PORTION", 50)
    path = file(tmp_path / "two.csv", two_rows_each(2000))
    with psycopg.connect(dsn) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM customers")
        run(path, dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        (read,) = conn.execute(
            "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'import_parked'"
        ).fetchone() or (0,)
    assert 2000 <= read < 5 * 2000
