"""Every metric, in one table, and the observer that feeds it. The only place that knows Prometheus.

Labels are bounded: never a key, an offset or a message. Counters count what is committed (acknowledged, in
at-least-once), never what an aborted transaction produced; `inference_batches_total`, `inference_model_seconds`
and the batch histograms count work done, committed or not.
"""

from collections import deque
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from app.facts import (
    BatchScored,
    CacheLookups,
    Committed,
    Lag,
    PaceState,
    Pulse,
    Refused,
    Sample,
    Serving,
    ShadowCounted,
)
from app.observe.column_histogram import ColumnHistogram
from app.records import TopicPartition

_FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LATENCY_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
              30, 60, 300, 3600)  # fmt: skip
_ROWS = tuple(float(2**power) for power in range(15))
_DIFFERENCE = (1e-6, 1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SHARE = tuple(step / 20 for step in range(1, 21))


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table.

    bounds: a histogram's upper bounds, in its unit. merge: how several worker processes' gauges become one;
    counters and histograms are always added up.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()
    merge: Literal["max", "min", "mean", "sum"] = "max"


TABLE = (
    MetricSpec(
        "inference_records_total", "counter", "records", ("pipeline", "outcome"),
        "Input records finished: predicted, dead_lettered, expired or skipped (tombstones).",
    ),
    MetricSpec(
        "inference_predictions_total", "counter", "predictions", ("pipeline", "model", "version", "result"),
        "Predictions by predicted class, or `value` for a regression.",
    ),
    MetricSpec(
        "inference_end_to_end_latency_seconds", "histogram", "seconds", ("pipeline",),
        "Record timestamp to commit returned (exactly_once) or acknowledged (at_least_once); a future timestamp is 0.",
        _LATENCY_S,
    ),
    MetricSpec("inference_batch_records", "histogram", "records", ("pipeline",), "Records in a micro-batch.", _ROWS),
    MetricSpec(
        "inference_batch_wait_seconds", "histogram", "seconds", ("pipeline",),
        "How long the oldest record of a batch waited in the batcher.", _FAST_S,
    ),
    MetricSpec(
        "inference_batches_total", "counter", "batches", ("pipeline", "cause"),
        "Batches by what made them due: records, bytes, age or drain.",
    ),
    MetricSpec(
        "inference_model_seconds", "histogram", "seconds", ("model", "version"),
        "Time in the model and its output checks, per batch; those that were taken together share it evenly.", _FAST_S,
    ),
    MetricSpec(
        "inference_cache_lookups_total", "counter", "rows", ("model", "version", "result"),
        "Rows looked up in the result cache: hit; miss; error if the shared store gave nothing usable in time; skipped "
        "if it was not asked, having failed before. The hit ratio is hit over all.",
    ),
    MetricSpec(
        "inference_prediction_confidence", "histogram", "share", ("pipeline", "version"),
        "Probability of the predicted class.", _SHARE,
    ),
    MetricSpec(
        "inference_model_load_seconds", "gauge", "seconds", ("model", "version"),
        "From the stored bytes to a verified and warm model.",
    ),
    MetricSpec(
        "inference_model_provider_info", "gauge", "1", ("model", "version", "provider"),
        "1 for the execution provider of ONNX Runtime that a loaded version prefers; operators that it has no kernel "
        "for run on the CPU all the same.",
    ),
    MetricSpec(
        "inference_answers_total", "counter", "records", ("pipeline", "model", "version", "answered_by", "outcome"),
        "Records by who answered (stable, canary, an arm's name, fallback), predicted or dead_lettered.",
    ),
    MetricSpec(
        "inference_model_failures_total", "counter", "batches", ("pipeline", "model", "version"),
        "Batches that a version failed on by its own fault: its golden rows failed as well.",
    ),
    MetricSpec(
        "inference_model_rows_total", "counter", "rows", ("model", "version", "outcome"),
        "Rows that were a version's to answer, committed or not: answered; failed, also if it was not asked because "
        "it had failed before; or bad_output.",
    ),
    MetricSpec(
        "inference_shadow_rows_total", "counter", "rows", ("pipeline", "model", "version", "result"),
        "Rows that stable answered and a shadow was to answer as well: agreed; disagreed; failed, for want of a usable "
        "answer; or dropped, never asked about for want of time, room or a process.",
    ),
    MetricSpec(
        "inference_shadow_seconds", "histogram", "seconds", ("pipeline", "model", "version"),
        "Time in a shadow's model and its output checks, per batch, as it would be in the worker at least: without "
        "what it waited for a processor, and divided by the threads of the worker's session, as it has one.",
        _FAST_S,
    ),
    MetricSpec(
        "inference_shadow_difference", "histogram", "1", ("pipeline", "model", "version"),
        "Largest absolute difference between a shadow's and stable's probabilities, or values, of a row.", _DIFFERENCE,
    ),
    MetricSpec(
        "inference_shadow_errors_total", "counter", "errors", ("pipeline", "model", "version", "error"),
        "What became of shadow processes, by error: ShadowCrashed, ShadowHung, ShadowGivenUp, what kept one from its "
        "work, or NotPublished for batches with comparisons that are not in the topic.",
    ),
    MetricSpec(
        "inference_model_info", "gauge", "1", ("pipeline", "model", "version", "digest", "part"),
        "1 for each loaded version, by its part: stable, canary, an arm's name, standby, or previous.",
    ),
    MetricSpec(
        "inference_rollout_revision", "gauge", "revision", ("pipeline", "model"),
        "The rollout page in force; of several processes, the oldest that one still serves by.",
        merge="min",
    ),
    MetricSpec(
        "inference_rollout_errors_total", "counter", "looks", ("model", "version", "error"),
        "Looks at the model store that found no usable page (no version), or a version that could not be used, by "
        "error; what was in force stays so.",
    ),
    MetricSpec(
        "inference_dead_letters_total", "counter", "records", ("pipeline", "stage", "reason"),
        "Dead letters by stage (decode, features, model, output) and reason.",
    ),
    MetricSpec(
        "inference_lag_records", "gauge", "records", ("topic", "partition"),
        "From the first unfinished record of an owned partition to its end; gone when the partition is revoked.",
    ),
    MetricSpec(
        "inference_lag_seconds", "gauge", "seconds", ("topic", "partition"),
        "Age of the oldest unfinished record, by its own timestamp; 0 when there is none, absent while unknown.",
    ),
    MetricSpec(
        "inference_transactions_total", "counter", "transactions", ("result",),
        "committed, aborted, or dropped when only the broker knows how it ended.",
    ),
    MetricSpec(
        "inference_offset_resets_total", "counter", "partitions", ("pipeline", "reason"),
        "Starts without a usable committed offset: no_committed_offset (a new group), or out_of_range "
        "(retention overtook the group, or the topic was made anew).",
    ),
    MetricSpec(
        "inference_records_missed_total", "counter", "records", ("pipeline",),
        "Offsets passed over by such a start: those records were never read.",
    ),
    MetricSpec(
        "inference_partition_changes_total", "counter", "changes", ("topic",),
        "A topic's number of partitions changed since the start; where outputs go did not follow.",
    ),
    MetricSpec(
        "inference_waiting_partitions", "gauge", "partitions", ("pipeline",),
        "Owned partitions held back until the schema registry tells a writer schema.",
        merge="sum",
    ),
    MetricSpec("inference_rebalances_total", "counter", "rebalances", ("kind",), "assigned, revoked or lost."),
    MetricSpec(
        "inference_busy_ratio", "gauge", "share", (),
        "Share of the last second that the busiest pipeline's loop did not wait for records.",
        merge="mean",
    ),
    MetricSpec(
        "inference_capacity_records_per_second", "gauge", "records per second", (),
        "Records finished per busy second, smoothed, all pipelines together.",
        merge="sum",
    ),
    MetricSpec(
        "inference_buffered_bytes", "gauge", "bytes", ("pipeline",),
        "Record values read and not yet in a batch, the client's own queue not counted.",
        merge="sum",
    ),
    MetricSpec(
        "inference_slo_seconds", "gauge", "seconds", ("pipeline",),
        "The latency objective, `batch.slo_s`; this and the next three are absent without one.",
    ),
    MetricSpec(
        "inference_batch_cost_seconds", "gauge", "seconds", ("pipeline", "part"),
        "What a batch costs, as fitted: `fixed` of each batch, `per_record` of each record in it.",
    ),
    MetricSpec(
        "inference_delivery_seconds", "gauge", "seconds", ("pipeline",),
        "From a batch taken to durable, less what its steps took; a fading peak, which the objective sets aside.",
    ),
    MetricSpec(
        "inference_records_past_slo_total", "counter", "records", ("pipeline",),
        "Records finished later than the objective allows.",
    ),
    MetricSpec(
        "inference_requests_total", "counter", "requests", ("surface", "method", "code"),
        "Requests answered online, by route or method and by status; 499 hung up before the answer.",
    ),
    MetricSpec(
        "inference_request_seconds", "histogram", "seconds", ("surface", "method"),
        "From a request's head to its answer.", _LATENCY_S,
    ),
    MetricSpec(
        "inference_worker_processes", "gauge", "processes", ("state",),
        "Of `worker.processes`: ready, not_ready, or waiting to be started again; absent with a single one.",
    ),
    MetricSpec(
        "inference_process_restarts_total", "counter", "restarts", ("slot",),
        "Worker processes that were started again; a slot is the number in their transactional ids.",
    ),
)  # fmt: skip

# Of the process itself, by prometheus_client's own collector; where there is no /proc there are none.
PROCESS_TABLE = (
    MetricSpec(
        "process_cpu_seconds_total", "counter", "seconds", (), "CPU time, of the program and of the system for it."
    ),
    MetricSpec("process_resident_memory_bytes", "gauge", "bytes", (), "Memory in use.", merge="sum"),
    MetricSpec("process_virtual_memory_bytes", "gauge", "bytes", (), "Addresses in use.", merge="sum"),
    MetricSpec("process_start_time_seconds", "gauge", "seconds", (), "Since the epoch: when it was started."),
    MetricSpec("process_open_fds", "gauge", "files", (), "Open files and connections.", merge="sum"),
    MetricSpec("process_max_fds", "gauge", "files", (), "How many of these it may have.", merge="sum"),
)  # fmt: skip

_LagSeries = tuple[str, TopicPartition]  # metric name and the partition it is about

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

    def busy(self, pipeline: str, ratio: float, records_per_second: float | None) -> None:
        """How busy one pipeline's loop was, and what it could do."""
        self._busy[pipeline] = ratio
        if records_per_second is not None:
            before = self._capacity.get(pipeline, records_per_second)
            self._capacity[pipeline] = before + CAPACITY_SMOOTHING * (records_per_second - before)
        self.gauges["inference_busy_ratio"].set(max(self._busy.values()))
        self.gauges["inference_capacity_records_per_second"].set(sum(self._capacity.values()))


class PipelineObserver:
    """Feeds one pipeline's facts into the metrics; a `ports.Observer`."""

    def __init__(self, metrics: Metrics, pipeline: str, slo_s: float | None = None) -> None:
        self._metrics, self._pipeline, self._slo_s = metrics, pipeline, slo_s
        self._counters, self._gauges, self._histograms = metrics.counters, metrics.gauges, metrics.histograms
        self._exported: set[_LagSeries] = set()
        self._in_use: set[tuple[str, ...]] = set()  # label values of inference_model_info

    def batch_scored(self, fact: BatchScored) -> None:
        """A batch went through the model."""
        self._histograms["inference_batch_records"].observe((self._pipeline,), np.array(fact.runs))
        self._histograms["inference_batch_wait_seconds"].observe_one((self._pipeline,), fact.waited_s)
        for asked in fact.asked:
            if asked.seconds is not None:
                many = len(fact.runs) if len(fact.asked) == 1 else 1
                self._histograms["inference_model_seconds"].observe(
                    (asked.model, asked.version), np.full(many, asked.seconds / many)
                )
            rows = {"answered": asked.answered, "failed": asked.rows_failed, "bad_output": asked.bad_output}
            for outcome, count in rows.items():
                if count:
                    self._counters["inference_model_rows_total"].labels(asked.model, asked.version, outcome).inc(count)
            if asked.failed:
                self._counters["inference_model_failures_total"].labels(
                    self._pipeline, asked.model, asked.version
                ).inc()
        self._counters["inference_batches_total"].labels(self._pipeline, fact.cause).inc(len(fact.runs))

    def committed(self, fact: Committed) -> None:
        """Outcomes became durable."""
        records = self._counters["inference_records_total"]
        for outcomes in fact.outcomes:
            records.labels(self._pipeline, "predicted").inc(outcomes.predicted)
            records.labels(self._pipeline, "dead_lettered").inc(outcomes.dead_lettered)
            records.labels(self._pipeline, "skipped").inc(outcomes.skipped)
            answers = (self._pipeline, outcomes.model, outcomes.version, outcomes.answered_by)
            for outcome, count in (("predicted", outcomes.predicted), ("dead_lettered", outcomes.dead_lettered)):
                if count:
                    self._counters["inference_answers_total"].labels(*answers, outcome).inc(count)
            for result, count in outcomes.results.items():
                self._counters["inference_predictions_total"].labels(
                    self._pipeline, outcomes.model, outcomes.version, result
                ).inc(count)
            for (stage, reason), count in outcomes.rejected.items():
                self._counters["inference_dead_letters_total"].labels(self._pipeline, stage.value, reason.value).inc(
                    count
                )
            for item in outcomes.refused:
                self._metrics.refused.append(replace(item, pipeline=self._pipeline, at_ms=fact.at_ms))
        latencies_s = fact.latencies_s()
        self._histograms["inference_end_to_end_latency_seconds"].observe((self._pipeline,), latencies_s)
        if self._slo_s is not None:
            late = int(np.count_nonzero(latencies_s > self._slo_s))
            self._counters["inference_records_past_slo_total"].labels(self._pipeline).inc(late)
        confidence: dict[str, list[npt.NDArray[Any]]] = {}
        for outcomes in fact.outcomes:
            if outcomes.confidence is not None:
                confidence.setdefault(outcomes.version, []).append(outcomes.confidence)
        for version, columns in confidence.items():
            self._histograms["inference_prediction_confidence"].observe(
                (self._pipeline, version), np.concatenate(columns)
            )

    def serving(self, fact: Serving) -> None:
        """A rollout page came into force; nothing is exported any more about versions that are no longer loaded."""
        info = self._gauges["inference_model_info"]
        now: set[tuple[str, ...]] = {
            (self._pipeline, fact.model, item.version, item.digest, item.part) for item in fact.versions
        }
        for labels in now:
            info.labels(*labels).set(1)
        for labels in self._in_use - now:
            info.remove(*labels)
        gone = {labels[1:3] for labels in self._in_use} - {labels[1:3] for labels in now}
        for model, version in gone:
            self._metrics.model_unloaded(model, version)
        self._in_use = now
        self._gauges["inference_rollout_revision"].labels(self._pipeline, fact.model).set(fact.revision)

    def rollout_failed(self, model: str, error: str, version: str | None) -> None:
        """A rollout page, or a version it needs, could not be read or used."""
        self._counters["inference_rollout_errors_total"].labels(model, version or "", error).inc()

    def transaction(self, result: str) -> None:
        """A transaction ended, or was left to the broker."""
        self._counters["inference_transactions_total"].labels(result).inc()

    def offset_reset(self, reason: str, missed: int) -> None:
        """A partition started without a usable committed offset."""
        self._counters["inference_offset_resets_total"].labels(self._pipeline, reason).inc()
        self._counters["inference_records_missed_total"].labels(self._pipeline).inc(missed)

    def rebalanced(self, kind: str) -> None:
        """The assignment changed."""
        self._counters["inference_rebalances_total"].labels(kind).inc()

    def revoked(self, sources: Set[TopicPartition]) -> None:
        """Export nothing any more about these partitions."""
        left = self._metrics.lag.get(self._pipeline, {})
        self._metrics.lag[self._pipeline] = {at: lag for at, lag in left.items() if at not in sources}
        self._remove_lag({series for series in self._exported if series[1] in sources})

    def pulse(self, fact: Pulse) -> None:
        """The loop's state, about once a second."""
        self._metrics.busy(self._pipeline, fact.busy_ratio, fact.records_per_second)
        self._gauges["inference_buffered_bytes"].labels(self._pipeline).set(fact.buffered_bytes)
        self._gauges["inference_waiting_partitions"].labels(self._pipeline).set(fact.waiting_partitions)
        if fact.pace is not None:
            self._pace(fact.pace)
        self._metrics.lag[self._pipeline] = fact.lag
        values: dict[_LagSeries, float] = {("inference_lag_records", at): lag.records for at, lag in fact.lag.items()}
        values |= {
            ("inference_lag_seconds", at): lag.seconds for at, lag in fact.lag.items() if lag.seconds is not None
        }
        self._remove_lag(self._exported - values.keys())
        for (name, at), value in values.items():
            self._gauges[name].labels(at.topic, str(at.partition)).set(value)
        self._exported.update(values)

    def _pace(self, fact: PaceState) -> None:
        self._gauges["inference_slo_seconds"].labels(self._pipeline).set(fact.objective_s)
        cost = self._gauges["inference_batch_cost_seconds"]
        cost.labels(self._pipeline, "fixed").set(fact.fixed_s)
        cost.labels(self._pipeline, "per_record").set(fact.per_record_s)
        self._gauges["inference_delivery_seconds"].labels(self._pipeline).set(fact.delivery_s)

    def _remove_lag(self, series: Set[_LagSeries]) -> None:
        for name, at in series:
            self._gauges[name].remove(at.topic, str(at.partition))
        self._exported -= series


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


class ShadowMetrics:
    """Feeds what becomes of one pipeline's shadow into the metrics; a `ports.ShadowObserver`."""

    def __init__(self, metrics: Metrics, pipeline: str, model: str) -> None:
        self._pipeline, self._model = pipeline, model
        self._rows = metrics.counters["inference_shadow_rows_total"]
        self._errors = metrics.counters["inference_shadow_errors_total"]
        self._difference = metrics.histograms["inference_shadow_difference"]
        self._seconds = metrics.histograms["inference_shadow_seconds"]

    def shadow_counted(self, fact: ShadowCounted) -> None:
        """Rows were compared, or were not."""
        results = {
            "agreed": fact.agreed, "disagreed": fact.disagreed, "failed": fact.failed, "dropped": fact.dropped,
        }  # fmt: skip
        for result, count in results.items():
            if count:
                self._rows.labels(self._pipeline, self._model, fact.version, result).inc(count)
        if fact.model_seconds:
            self._seconds.observe_one((self._pipeline, self._model, fact.version), fact.model_seconds)
        if fact.differences is not None and len(fact.differences):
            self._difference.observe((self._pipeline, self._model, fact.version), fact.differences)

    def shadow_failed(self, version: str, error: str) -> None:
        """A shadow's process was lost, or could not do its work."""
        self._errors.labels(self._pipeline, self._model, version, error).inc()


def metrics_page() -> str:
    """docs/METRICS.md, generated from the table."""
    lines = [
        "# Metrics",
        "",
        "Generated from `app/observe/metrics.py` by `make docs`; `make check` compares. Served at `/metrics`.",
        "",
        "With several `worker.processes`, one page is served for all: counters and histograms are added up, with what",
        "ended processes had counted (up to a second of it is lost with one that is killed); gauges are merged as the",
        "table says.",
        "",
        "| name | type | unit | labels | meaning | merged |",
        "|---|---|---|---|---|---|",
    ]
    for spec in (*TABLE, *PROCESS_TABLE):
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "none"
        merged = spec.merge if spec.kind == "gauge" else "sum"
        lines.append(f"| `{spec.name}` | {spec.kind} | {spec.unit} | {labels} | {spec.meaning} | {merged} |")
    lines += [
        "",
        "Group-wide figures (`inference_group_lag_records`, `inference_group_lag_seconds`,",
        "`inference_desired_replicas`) come from the lag exporter, which lives when no worker does: see below.",
        "",
    ]
    return "\n".join(lines)
