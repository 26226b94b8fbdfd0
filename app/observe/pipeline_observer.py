"""Facts of one pipeline, and of the shadow beside it, as numbers of the table. Labels come from closed lists."""

from collections.abc import Set
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from app.facts import BatchScored, Committed, PaceState, Pulse, Serving, ShadowCounted
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition

_LagSeries = tuple[str, TopicPartition]  # metric name and the partition it is about


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
