"""The metrics of a server, for Prometheus. Each app has its own registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from customer_panel.imports.model import Counts, Progress

# A look-up takes half a millisecond, a page three; a request of five seconds has failed.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
OUTCOMES = ("inserted", "updated", "unchanged", "protected", "duplicate", "skipped")
UNKNOWN = "unknown"  # the route of a request that no route matched

# How to count one more answer, and how to record its seconds.
Recorders = tuple[Callable[[], None], Callable[[float], None]]


class Metrics:
    """Counts requests and what imports commit; everything else is read when it is asked for."""

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
        # Labels are looked up once for each kind of answer: that costs more than counting does.
        self._recorders: dict[tuple[str, str, int], Recorders] = {}
        self._last: Progress | None = None

    def show(
        self,
        pool_stats: Callable[[], Mapping[str, int]],
        stream_count: Callable[[], int],
        is_running: Callable[[], bool],
    ) -> None:
        """Adds the gauges; the three are called whenever the metrics are read.

        pool_stats: the pool's own figures, as psycopg_pool names them.
        stream_count: how many progress streams are open.
        is_running: whether this process runs an import.
        """
        self.registry.register(Gauges(pool_stats, stream_count, is_running))

    def count_answer(self, route: str, method: str, status: int, seconds: float) -> None:
        recorders = self._recorders.get((route, method, status))
        if recorders is None:
            name = route or UNKNOWN
            recorders = (
                self._requests.labels(name, method, status).inc,
                self._seconds.labels(name, method).observe,
            )
            self._recorders[route, method, status] = recorders
        count, record_seconds = recorders
        count()
        record_seconds(seconds)

    def count_progress(self, progress: Progress) -> None:
        """Adds what an import has committed since its last `progress`, whose counts are totals."""
        last, self._last = self._last, progress
        batches, seconds = progress.batches, progress.batch_sec
        if last is not None and last.batches <= batches:
            # Otherwise this is the first progress of another run, which starts at zero.
            batches, seconds = batches - last.batches, seconds - last.batch_sec
        self._batches.inc(batches)
        self._batch_seconds.inc(max(seconds, 0.0))
        if last is None or last.job_id != progress.job_id:
            # Before its first batch, a run reports what earlier runs of its import committed.
            if not progress.counts.processed:
                self._bytes.inc(progress.bytes_read)  # the header
            return
        for outcome, counter in self._rows.items():
            counter.inc(_increase(last.counts, progress.counts, outcome))
        self._bytes.inc(max(progress.bytes_read - last.bytes_read, 0))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _increase(before: Counts, after: Counts, outcome: str) -> int:
    # Negative when PostgreSQL crashed and lost the last commits.
    increase: int = getattr(after, outcome) - getattr(before, outcome)
    return max(increase, 0)


class Gauges(Collector):
    """The state of the server at the moment of reading."""

    def __init__(
        self,
        pool_stats: Callable[[], Mapping[str, int]],
        stream_count: Callable[[], int],
        is_running: Callable[[], bool],
    ) -> None:
        self._pool_stats = pool_stats
        self._stream_count = stream_count
        self._is_running = is_running

    def collect(self) -> Iterable[Metric]:
        pool = self._pool_stats()
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
            "customer_panel_streams", "Open progress streams.", self._stream_count()
        )
        yield GaugeMetricFamily(
            "customer_panel_import_running",
            "1 while this process runs an import.",
            self._is_running(),
        )
