"""One look at the metrics of a worker, of one process or several: what the live page is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.facts import Refused
from app.observe.distribution import Distribution, of_cumulative
from app.observe.metrics import TABLE, Metrics

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]  # name and labels
Samples = Mapping[Series, float]

_HISTOGRAMS = (
    "inference_end_to_end_latency_seconds",
    "inference_batch_records",
    "inference_batch_wait_seconds",
    "inference_model_seconds",
)
_OTHERS = (
    "inference_records_total",
    "inference_batches_total",
    "inference_model_load_seconds",
    "inference_answers_total",
    "inference_model_failures_total",
    "inference_shadow_rows_total",
    "inference_shadow_errors_total",
    "inference_model_info",
    "inference_rollout_revision",
    "inference_rollout_errors_total",
    "inference_dead_letters_total",
    "inference_lag_records",
    "inference_lag_seconds",
    "inference_transactions_total",
    "inference_offset_resets_total",
    "inference_records_missed_total",
    "inference_partition_changes_total",
    "inference_waiting_partitions",
    "inference_rebalances_total",
    "inference_busy_ratio",
    "inference_capacity_records_per_second",
    "inference_buffered_bytes",
    "inference_slo_seconds",
    "inference_records_past_slo_total",
    "inference_worker_processes",
    "inference_process_restarts_total",
)
FAMILIES = frozenset((*_HISTOGRAMS, *_OTHERS))  # what is looked at; collecting the rest would cost for nothing
_NAMES = frozenset((*_OTHERS, *(name + part for name in _HISTOGRAMS for part in ("_bucket", "_sum"))))
# There may be thousands of partitions, and their lag is known more directly than from gauges.
_COLLECTED = FAMILIES - {"inference_lag_records", "inference_lag_seconds"}
_GAUGES = {spec.name: spec.merge for spec in TABLE if spec.kind == "gauge"}


@dataclass(frozen=True, slots=True)
class Look:
    """processes: number → what it shows now. rest: what ended processes had counted, and what supervision knows.

    refused: the last dead letters, oldest first.
    """

    processes: Mapping[int, Samples]
    rest: Samples = field(default_factory=dict)
    refused: Sequence[Refused] = ()


class Watched(Protocol):
    """Metrics that can be looked at, of one process or of several. Any thread."""

    def look(self) -> Look:
        """As they are now; `FAMILIES` at least."""
        ...


class OneProcess:
    """A `Watched`: the metrics of this process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def look(self) -> Look:
        """As they are now."""
        samples = {(name, labels): value for name, labels, value in self._metrics.some_samples(_COLLECTED)}
        for lags in tuple(self._metrics.lag.values()):
            for at, lag in lags.items():
                labels = (("topic", at.topic), ("partition", str(at.partition)))
                samples["inference_lag_records", labels] = lag.records
                if lag.seconds is not None:
                    samples["inference_lag_seconds", labels] = lag.seconds
        return Look({0: samples}, refused=tuple(self._metrics.refused))


class Figures:
    """Samples by name, several processes' merged as `MetricSpec.merge` says; rounding is no matter here."""

    def __init__(self, several: Sequence[Samples]) -> None:
        names: dict[str, dict[Labels, float]] = {name: {} for name in _NAMES}
        means: dict[str, dict[Labels, int]] = {}
        for samples in several:
            for (name, labels), value in samples.items():
                if name not in _NAMES:
                    continue
                known = names[name]
                how = _GAUGES.get(name, "sum")
                if labels not in known:
                    known[labels] = value
                elif how == "max":
                    known[labels] = max(known[labels], value)
                elif how == "min":
                    known[labels] = min(known[labels], value)
                else:
                    known[labels] += value
                if how == "mean":
                    means.setdefault(name, {})[labels] = means.get(name, {}).get(labels, 0) + 1
        for name, counts in means.items():
            for labels, count in counts.items():
                names[name][labels] /= count
        self._names = names

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each series."""
        return ((dict(labels), value) for labels, value in self._names[name].items())

    def series(self, name: str) -> Mapping[Labels, float]:
        """The same, unread."""
        return self._names[name]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels."""
        wanted = set(labels.items())
        return sum(value for found, value in self._names[name].items() if wanted.issubset(found))

    def distributions(self, name: str) -> dict[Labels, Distribution]:
        """A histogram, by its labels without `le`."""
        buckets: dict[Labels, list[tuple[float, float]]] = {}
        for labels, value in self._names[f"{name}_bucket"].items():
            rest = tuple(pair for pair in labels if pair[0] != "le")
            bound = next(float(text) for key, text in labels if key == "le")
            buckets.setdefault(rest, []).append((bound, value))
        totals = self._names[f"{name}_sum"]
        return {labels: of_cumulative(several, totals.get(labels, 0.0)) for labels, several in buckets.items()}
