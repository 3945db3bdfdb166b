"""The benchmarks, small: each scene runs, and what it compares is the same table. A scene itself raises where not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run
from customer_panel.benchmarks import place as places
from customer_panel.benchmarks import report
from customer_panel.benchmarks.engines import ours, plain_sql
from customer_panel.benchmarks.engines.served import WrkMissing
from customer_panel.benchmarks.figures import Figure, Result, ratio
from customer_panel.benchmarks.figures import Run as Ran
from customer_panel.benchmarks.place import BenchBusy, BenchVoid, Place
from customer_panel.benchmarks.scenes import (
    api,
    first_load,
    many_rows,
    memory,
    resync,
    safety,
    scan,
)
from customer_panel.db import embedded
from customer_panel.settings import Settings
from support.databases import make_home

ROWS = 3000


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    home = make_home()
    with places.opened(Settings(home=home), lambda _: None) as place:
        yield place
    assert not (home / "bench").exists(), "a benchmark leaves nothing behind"
    home.rmdir()


@pytest.mark.parametrize("about", [False, True])
def test_first_load_leaves_equal_tables(place: Place, about: bool) -> None:
    result = first_load.run(place, rows=ROWS, runs=1, about=about)
    assert [run.engine for run in result.runs] == [ours.NAME, plain_sql.NAME]
    assert result.runs[0].facts["rows_inserted"] == ROWS


def test_resync_of_an_unchanged_file_writes_no_customer(place: Place) -> None:
    result = resync.run(place, rows=ROWS, runs=1)
    mine = result.runs[0].facts
    assert (mine["rows_unchanged"], mine["row_versions"]) == (ROWS, 0)


def test_resync_changes_the_share_that_was_asked_for_in_each_run(place: Place) -> None:
    result = resync.run(place, rows=ROWS, runs=2, changed=0.05)
    for run in result.runs:
        assert 0.03 * ROWS < int(run.facts["row_versions"]) < 0.07 * ROWS
    both = {int(run.facts["row_versions"]) for run in result.runs}
    assert len(both) == 1, "both engines wrote the same rows, there and back"


def test_scan_measures_files_short_and_long(place: Place) -> None:
    result = scan.run(place, rows=ROWS, runs=2)
    assert len(result.runs) == 4
    assert all(run.facts["mb_per_s"] for run in result.runs)


def test_memory_is_measured_for_few_and_many_rows(place: Place) -> None:
    result = memory.run(place, rows=ROWS, runs=1)
    inserted = [run.facts["rows_inserted"] for run in result.runs]
    assert inserted == [ROWS, ROWS, ROWS * memory.MANY, ROWS * memory.MANY]


def test_two_rows_of_a_customer_are_not_written_again(place: Place) -> None:
    result = many_rows.run(place, rows=ROWS, runs=1)
    assert [run.engine for run in result.runs] == [many_rows.ONE, many_rows.TWO]
    wal = next(figure for figure in result.figures if figure.unit == "bytes")
    assert wal.is_met


def test_safety_changes_no_customer(place: Place) -> None:
    result = safety.run(place, rows=ROWS, runs=2)
    # The two take turns at going first.
    assert [run.engine for run in result.runs] == [ours.NAME, ours.UNSAFE, ours.UNSAFE, ours.NAME]


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_api_answers_every_request(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MANY_STREAMS", 30)
    monkeypatch.setattr(api, "SILENT", 10)
    result = api.run(place, rows=ROWS, runs=1, seconds=1)
    assert {run.engine for run in result.runs} >= {api.EMPTY, api.LOOKUP, api.OVER_HTTP, api.BUSY}
    assert not any(run.facts.get("failed") for run in result.runs)
    assert len(result.figures) >= 12


def test_a_missing_wrk_is_said_before_anything_is_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WrkMissing):
        api.run(place, rows=10**9, runs=1)


def test_unequal_tables_void_a_benchmark(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = iter(["1 rows, 1", "1 rows, 2"])
    monkeypatch.setattr(place, "checksum", lambda _: next(sums))
    with pytest.raises(BenchVoid):
        first_load.run(place, rows=ROWS, runs=1)


def test_two_benchmarks_at_once_are_refused(place: Place) -> None:
    settings = Settings(home=place.home.parent)
    with pytest.raises(BenchBusy), places.opened(settings, lambda _: None):
        pass
    assert place.file(ROWS).exists(), "the one that runs keeps its files"


def test_the_command_prints_one_object_with_every_run(run: Run, home: Path) -> None:
    done = run("bench", "first-load", "--rows", "500", "--runs", "2", "--json", CP_HOME=home)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [run["engine"] for run in report["runs"]] == [ours.NAME, plain_sql.NAME] * 2
    assert report["figures"][0]["bound"] == first_load.BOUND
    assert report["machine"]["cores"]
    assert report["machine"]["settings"]["wal_level"]
    assert not (home / "bench").exists()


def test_kept_files_serve_the_next_benchmark(run: Run, home: Path) -> None:
    first = run("bench", "scan", "--rows", "500", "--keep", CP_HOME=home)
    assert first.returncode == 0, first.stderr
    assert "reached" in first.stdout or "missed" in first.stdout
    files = sorted((home / "bench" / "files").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    assert run("bench", "scan", "--rows", "500", "--keep", CP_HOME=home).returncode == 0
    assert [file.stat().st_mtime_ns for file in files] == written
    embedded.stop(home / "bench" / "server", force=True)


def test_a_ratio_is_median_over_median_with_the_span_of_its_pairs() -> None:
    runs = [
        Ran(engine=name, seconds=s)
        for s, t in ((1, 4), (2, 4), (9, 6))
        for name, s in (("a", s), ("b", t))
    ]
    figure = ratio("x", runs, "a", "b", 0.5)
    assert (figure.value, figure.runs_below, figure.runs_above) == (0.5, 0.25, 1.5)
    assert figure.is_met
    assert not Figure(name="y", value=1, bound=2, kind="at least").is_met


def test_json_says_which_figure_is_met() -> None:
    result = Result(scene="s", rows=1, runs=[], figures=[Figure(name="y", value=1, bound=2)])
    assert json.loads(report.as_json(result, {}))["figures"][0]["is_met"] is True
