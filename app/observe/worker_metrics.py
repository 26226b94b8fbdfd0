"""What a worker or a server counts and measures, as prometheus_client has it: the table's metrics in a registry."""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from app.facts import CacheLookups, Lag, Refused, Sample
from app.observe.column_histogram import ColumnHistogram
from app.observe.metrics import TABLE
from app.records import TopicPartition

REFUSED_KEPT = 20  # dead letters that the live page shows
CAPACITY_SMOOTHING = 0.3  # weight of the newest second; a handful of seconds settle it


class Metrics:
    """The table's metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # `_created` doubles every counter's series and is read by nobody here
        self._registry = CollectorRegistry()
        self.counters: dict[str, Counter] = {}
        self.gauges: dict[str, Gauge] = {}
        self.histograms: dict[str, ColumnHistogram] = {}
        for spec in TABLE:
            if spec.kind == "counter":
                self.counters[spec.name] = Counter(spec.name, spec.meaning, spec.labels, registry=self._registry)
            elif spec.kind == "gauge":
                self.gauges[spec.name] = Gauge(spec.name, spec.meaning, spec.labels, registry=self._registry)
            else:
                histogram = ColumnHistogram(spec.name, spec.meaning, spec.labels, spec.bounds)
                self.histograms[spec.name] = histogram
                self._registry.register(histogram)
        ProcessCollector(registry=self._registry)
        self.refused: deque[Refused] = deque(maxlen=REFUSED_KEPT)
        self.lag: dict[str, Mapping[TopicPartition, Lag]] = {}  # by pipeline; each replaced, never changed
        self._providers: dict[tuple[str, str], str] = {}
        self._busy: dict[str, float] = {}
        self._capacity: dict[str, float] = {}

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)

    def samples(self) -> tuple[Sample, ...]:
        """The same as numbers, in the same order."""
        return tuple(
            (sample.name, tuple(sample.labels.items()), sample.value)
            for family in self._registry.collect()
            for sample in family.samples
        )

    def some_samples(self, families: frozenset[str]) -> list[Sample]:
        """The samples of these families only, which is quicker."""
        kinds: tuple[Mapping[str, Counter | Gauge | ColumnHistogram], ...] = (
            self.counters, self.gauges, self.histograms,
        )  # fmt: skip
        return [
            (sample.name, tuple(sample.labels.items()), sample.value)
            for collectors in kinds
            for name in families & collectors.keys()
            for family in collectors[name].collect()
            for sample in family.samples
        ]

    def model_loaded(self, model: str, version: str, load_s: float) -> None:
        """A model version was loaded, verified and warmed up."""
        self.gauges["inference_model_load_seconds"].labels(model, version).set(load_s)

    def model_runs_on(self, model: str, version: str, provider: str) -> None:
        """A loaded version gives its operators to this execution provider first."""
        self._providers[model, version] = provider
        self.gauges["inference_model_provider_info"].labels(model, version, provider).set(1)

    def cache_looked_up(self, fact: CacheLookups) -> None:
        """A batch was looked up in a version's result cache. Any thread."""
        rows = self.counters["inference_cache_lookups_total"]
        counts = {"hit": fact.hits, "miss": fact.misses, "error": fact.errors, "skipped": fact.skipped}
        for result, count in counts.items():
            if count:
                rows.labels(fact.model, fact.version, result).inc(count)

    def model_unloaded(self, model: str, version: str) -> None:
        """Nobody answers with it any more; another pipeline may have dropped it before."""
        with suppress(KeyError):
            self.gauges["inference_model_load_seconds"].remove(model, version)
            self.gauges["inference_model_provider_info"].remove(model, version, self._providers.pop((model, version)))

    def partitions_changed(self, topic: str) -> None:
        """A topic has another number of partitions than before."""
        self.counters["inference_partition_changes_total"].labels(topic).inc()

    def batch_traced(self, why: str) -> None:
        """why: "record", "request" or "chance". Any thread."""
        self.counters["inference_traced_batches_total"].labels(why).inc()

    def spans_ended(self, result: str, many: int) -> None:
        """result: "exported", "failed" or "dropped". Any thread."""
        self.counters["inference_spans_total"].labels(result).inc(many)

    def busy(self, pipeline: str, ratio: float, records_per_second: float | None) -> None:
        """How busy one pipeline's loop was, and what it could do."""
        self._busy[pipeline] = ratio
        if records_per_second is not None:
            before = self._capacity.get(pipeline, records_per_second)
            self._capacity[pipeline] = before + CAPACITY_SMOOTHING * (records_per_second - before)
        self.gauges["inference_busy_ratio"].set(max(self._busy.values()))
        self.gauges["inference_capacity_records_per_second"].set(sum(self._capacity.values()))


class RequestMetrics:
    """Feeds what one online surface answers into the metrics. surface: rest or grpc."""

    def __init__(self, metrics: Metrics, surface: str) -> None:
        self._surface = surface
        self._requests = metrics.counters["inference_requests_total"]
        self._seconds = metrics.histograms["inference_request_seconds"]

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A request was answered, or refused."""
        self._requests.labels(self._surface, method, code).inc()
        self._seconds.observe_one((self._surface, method), seconds)
