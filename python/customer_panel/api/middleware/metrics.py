"""The figures of a server, in Prometheus' terms. Each app has its own registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from customer_panel.imports.model import Counts, Progress

if TYPE_CHECKING:
    from customer_panel.api.state import AppState

# A look-up takes half a millisecond, a page three; what takes five seconds has failed.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
OUTCOMES = ("inserted", "updated", "unchanged", "protected", "duplicate", "skipped")
UNKNOWN = "unknown"  # the route of a request that none matched

Told = tuple[Callable[[], None], Callable[[float], None]]


class Metrics:
    """Counts requests and what imports commit; the rest is read when it is asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "customer_panel_requests",
            "Answers, by route and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "customer_panel_request_seconds",
            "From a request to the beginning of its answer.",
            ("route", "method"),
            buckets=SECONDS,
            registry=self.registry,
        )
        rows = Counter(
            "customer_panel_import_rows",
            "Rows that imports of this process have committed.",
            ("outcome",),
            registry=self.registry,
        )
        self._rows = {outcome: rows.labels(outcome) for outcome in OUTCOMES}
        self._bytes = Counter(
            "customer_panel_import_bytes",
            "Bytes of files that imports of this process are through with.",
            registry=self.registry,
        )
        self._batches = Counter(
            "customer_panel_import_batches",
            "Batches that imports of this process have committed.",
            registry=self.registry,
        )
        self._batch_seconds = Counter(
            "customer_panel_import_batch_seconds",
            "How long those batches took, from the first row sent to the commit.",
            registry=self.registry,
        )
        # Labels are looked up once for each kind of answer: that costs more than the counting.
        self._told: dict[tuple[str, str, int], Told] = {}
        self._last: Progress | None = None

    def show(self, state: AppState) -> None:
        """Adds what `state` is asked for whenever the figures are read."""
        self.registry.register(Gauges(state))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        told = self._told.get((route, method, status))
        if told is None:
            name = route or UNKNOWN
            told = (
                self._requests.labels(name, method, status).inc,
                self._seconds.labels(name, method).observe,
            )
            self._told[route, method, status] = told
        told[0]()
        told[1](seconds)

    def moved(self, progress: Progress) -> None:
        """Takes over what an import tells; it tells sums, of all its runs."""
        last, self._last = self._last, progress
        batches, seconds = progress.batches, progress.batch_sec
        if last is not None and last.batches <= batches:
            # Else another run has begun, which counts its own.
            batches, seconds = batches - last.batches, seconds - last.batch_sec
        self._batches.inc(batches)
        self._batch_seconds.inc(max(seconds, 0.0))
        if last is None or last.job_id != progress.job_id:
            # Before its first batch it tells what earlier runs have committed.
            if not progress.counts.processed:
                self._bytes.inc(progress.bytes_read)  # the header
            return
        for outcome, counter in self._rows.items():
            counter.inc(_more(last.counts, progress.counts, outcome))
        self._bytes.inc(max(progress.bytes_read - last.bytes_read, 0))

    def shown(self) -> bytes:
        return generate_latest(self.registry)


def _more(before: Counts, after: Counts, outcome: str) -> int:
    # Less, when PostgreSQL crashed and lost the last commits.
    more: int = getattr(after, outcome) - getattr(before, outcome)
    return max(more, 0)


class Gauges(Collector):
    """How things stand at the moment of asking."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        pool = self._state.pool.get_stats()
        connections = GaugeMetricFamily(
            "customer_panel_pool_connections", "Connections of the API's pool.", labels=["state"]
        )
        idle = pool.get("pool_available", 0)
        connections.add_metric(["idle"], idle)
        connections.add_metric(["used"], pool.get("pool_size", 0) - idle)
        yield connections
        yield GaugeMetricFamily(
            "customer_panel_pool_waiting",
            "Requests that wait for a connection.",
            pool.get("requests_waiting", 0),
        )
        yield GaugeMetricFamily(
            "customer_panel_streams", "Open progress streams.", self._state.hub.stream_count
        )
        yield GaugeMetricFamily(
            "customer_panel_import_running",
            "1 while this process runs an import.",
            self._state.worker.running is not None,
        )


__all__ = ["Metrics"]
