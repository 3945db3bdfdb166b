"""The HTTP API: look-ups compared with the empty route, pages, and look-ups during an import.

Server and clients share the machine, as they did for the predecessor's figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from customer_panel.benchmarks.engines import ours, served
from customer_panel.benchmarks.engines.served import Paced, Served, Streams, serving
from customer_panel.benchmarks.figures import Facts, Figure, Result, Run, fact, median
from customer_panel.benchmarks.place import BenchVoid, Place

LOOKUP_SHARE = 0.55
PAGE_MS, DEEP_PAGE_MS = 5, 10
# Pages of 50 a second at 4 connections: 100 times the predecessor's 4.5.
PAGES_PER_S = 450
P99_MS = 50
IMPORT = 1.05
STREAMS_BYTES = 64 << 20
PER_SECOND = 50
FEW_STREAMS, MANY_STREAMS, SILENT = 20, 500, 100
LIMIT, DEEP_PAGE = 50, 20_000

EMPTY, LOOKUP = "empty route", "look-up"
OVER_HTTP, MANY_OVER_HTTP = (
    f"import over HTTP, {FEW_STREAMS} streams",
    f"import over HTTP, {MANY_STREAMS} streams",
)
BUSY, BUSY_RESYNC = "look-ups in a first load", "look-ups in a re-sync"


def run(place: Place, *, rows: int, runs: int, seconds: float = 5.0) -> Result:
    """Each load of wrk lasts `seconds`. Raises WrkMissing, BenchVoid."""
    served.wrk()
    file = place.file(rows)
    done: list[Run] = []
    with place.database() as dsn:
        place.report("a first load, not timed")
        ours.load(place, dsn, file)
        for number in range(1, runs + 1):
            done += _reads(place, dsn, file, rows, seconds, f"{number} of {runs}")
        for number in range(1, runs + 1):
            done += _loads(place, file, rows, f"{number} of {runs}")
        # The last part, because its files change the table.
        for number in range(1, runs + 1):
            changed = place.file(rows, changed=0.01) if number % 2 else file
            done.append(
                _import_during_reads(place, dsn, changed, rows, BUSY_RESYNC, f"{number} of {runs}")
            )
    return Result(scene="api", rows=rows, runs=done, figures=_figures(done))


def _reads(place: Place, dsn: str, file: Path, rows: int, seconds: float, which: str) -> list[Run]:
    """Reads of a table that is not written."""
    last_page = -(-rows // LIMIT)
    lookup, base = "/api/v1/customers/", f"/api/v1/customers?limit={LIMIT}&page="
    done: list[Run] = []
    with serving(dsn, file.parent, place.home) as server:
        for engine, path, connections, last in (
            (EMPTY, "/health/live", 16, 0),
            (LOOKUP, lookup, 16, rows),
            (f"{LOOKUP}, 1 connection", lookup, 1, rows),
            ("page 1", f"{base}1", 1, 0),
            ("deep page", f"{base}{min(DEEP_PAGE, max(1, last_page // 2))}", 1, 0),
            ("last page", f"{base}{last_page}", 1, 0),
            ("page 1, 4 connections", f"{base}1", 4, 0),
        ):
            place.report(f"{engine} {which}")
            # Not measured: it makes connections and plans, and fills the caches.
            server.load(engine, path, connections, 1, last)
            done.append(server.load(engine, path, connections, seconds, last))
    with serving(dsn, file.parent, place.home, module=f"{served.__package__}.direct") as server:
        place.report(f"{served.DIRECT} {which}")
        server.load(served.DIRECT, lookup, 1, 1, rows)
        done.append(server.load(served.DIRECT, lookup, 1, seconds, rows))
    failed = {run.engine: run.facts["failed"] for run in done if run.facts["failed"]}
    if failed:
        raise BenchVoid(f"requests failed: {failed}")
    return done


def _loads(place: Place, file: Path, rows: int, which: str) -> list[Run]:
    """First loads: by the command line, over HTTP with few and many streams, and during look-ups."""
    done: list[Run] = []
    checksums = set()
    place.report(f"import {which}: {ours.NAME}")
    with place.database() as dsn:
        done.append(ours.load(place, dsn, file))
        checksums.add(place.checksum(dsn))
    for engine, count, silent in (
        (OVER_HTTP, FEW_STREAMS, 0),
        (MANY_OVER_HTTP, MANY_STREAMS, SILENT),
    ):
        place.report(f"{engine} {which}")
        with (
            place.database() as dsn,
            serving(dsn, file.parent, place.home) as server,
            Streams(server, count, silent) as streams,
        ):
            job, facts = _imported(place, server, file)
            facts["messages"] = streams.messages
            peak = server.peak_rss_bytes()
            if peak is not None:
                facts["peak_rss_bytes"] = peak
            done.append(Run(engine=engine, seconds=float(job["elapsedSec"]), facts=facts))
            checksums.add(place.checksum(dsn))
    if len(checksums) > 1:
        raise BenchVoid(f"the tables differ: {checksums}")
    with place.database() as dsn:
        done.append(_import_during_reads(place, dsn, file, rows, BUSY, which))
    return done


def _import_during_reads(
    place: Place, dsn: str, file: Path, rows: int, engine: str, which: str
) -> Run:
    """An import, and look-ups at a fixed rate meanwhile."""
    place.report(f"{engine} {which}")
    with serving(dsn, file.parent, place.home) as server:
        with Paced(server, PER_SECOND, rows) as paced:
            job, facts = _imported(place, server, file)
        facts |= {
            "p50_ms": paced.percentile(0.5),
            "p99_ms": paced.percentile(0.99),
            "max_ms": max(paced.milliseconds),
            "requests_per_s": len(paced.milliseconds) / float(facts["wall_s"]),
            "failed": paced.failed,
        }
    return Run(engine=engine, seconds=float(job["elapsedSec"]), facts=facts)


def _imported(place: Place, server: Served, file: Path) -> tuple[dict[str, Any], Facts]:
    """The finished job, and what was measured besides its own time."""
    return place.measured(lambda: server.wait(server.sync(file)))


def _figures(done: list[Run]) -> list[Figure]:
    figures = [
        _share("look-ups against the empty route, 16 connections", done, LOOKUP, EMPTY),
        Figure(
            name=f"look-up alone against {served.DIRECT}",
            value=fact(done, f"{LOOKUP}, 1 connection", "p50_ms")
            / fact(done, served.DIRECT, "p50_ms"),
            bound=1.0,
        ),
    ]
    for engine, bound in (
        ("page 1", PAGE_MS),
        ("deep page", DEEP_PAGE_MS),
        ("last page", DEEP_PAGE_MS),
    ):
        figures.append(_of_runs(f"{engine} of {LIMIT}, p50", done, engine, "p50_ms", bound, "ms"))
    figures.append(
        _of_runs(
            "page 1 at 4 connections",
            done,
            "page 1, 4 connections",
            "requests_per_s",
            PAGES_PER_S,
            "/s",
            "at least",
        )
    )
    for engine in (BUSY, BUSY_RESYNC):
        figures.append(_of_runs(f"{engine}, p99", done, engine, "p99_ms", P99_MS, "ms"))
        failed = sum(int(run.facts["failed"]) for run in done if run.engine == engine)
        figures.append(Figure(name=f"{engine}, answers 5xx", value=failed, bound=0))
    figures += [
        Figure(
            name=f"{engine}, against the command line's",
            value=median(done, engine) / median(done, ours.NAME),
            bound=IMPORT,
        )
        for engine in (OVER_HTTP, MANY_OVER_HTTP)
    ]
    if all(
        "peak_rss_bytes" in run.facts for run in done if run.engine in (OVER_HTTP, MANY_OVER_HTTP)
    ):
        more = fact(done, MANY_OVER_HTTP, "peak_rss_bytes") - fact(
            done, OVER_HTTP, "peak_rss_bytes"
        )
        figures.append(
            Figure(
                name=f"memory of {MANY_STREAMS} streams, {SILENT} of them never read",
                value=max(0.0, more),
                bound=STREAMS_BYTES,
                unit="bytes",
            )
        )
    return figures


def _share(name: str, done: list[Run], ours: str, yardstick: str) -> Figure:
    """Our requests a second divided by the yardstick's, with the range over pairs of successive runs."""

    def rates(engine: str) -> list[float]:
        return [float(run.facts["requests_per_s"]) for run in done if run.engine == engine]

    pairs = [mine / theirs for mine, theirs in zip(rates(ours), rates(yardstick), strict=True)]
    return Figure(
        name=name,
        value=fact(done, ours, "requests_per_s") / fact(done, yardstick, "requests_per_s"),
        bound=LOOKUP_SHARE,
        kind="at least",
        runs_below=min(pairs),
        runs_above=max(pairs),
    )


def _of_runs(
    name: str,
    done: list[Run],
    engine: str,
    of: str,
    bound: float,
    unit: str,
    kind: Literal["at most", "at least"] = "at most",
) -> Figure:
    """The median of a fact, with its range."""
    values = [float(run.facts[of]) for run in done if run.engine == engine]
    return Figure(
        name=name,
        value=fact(done, engine, of),
        bound=bound,
        kind=kind,
        unit=unit,
        runs_below=min(values),
        runs_above=max(values),
    )
