"""One look at the metrics of a worker, of one process or several: what the live page is made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.facts import Lag, Refused
from app.observe.distribution import Distribution, of_cumulative
from app.observe.metrics import TABLE
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]  # name and labels
Samples = Mapping[Series, float]
Lags = Mapping[TopicPartition, Lag]

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
_GAUGES = {spec.name: spec.merge for spec in TABLE if spec.kind == "gauge"}


@dataclass(frozen=True, slots=True)
class Look:
    """processes: number → what it shows now. rest: what ended processes had counted, and what supervision knows.

    refused: the last dead letters, oldest first. lags: of each process; there may be thousands of partitions, so that
    they are no samples.
    """

    processes: Mapping[int, Samples]
    rest: Samples = field(default_factory=dict)
    refused: Sequence[Refused] = ()
    lags: Mapping[int, Lags] = field(default_factory=dict)


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
        samples = {(name, labels): value for name, labels, value in self._metrics.some_samples(FAMILIES)}
        return Look({0: samples}, refused=tuple(self._metrics.refused), lags={0: together(self._metrics.lag.values())})


def lags_in(samples: Samples) -> Lags:
    """What a process that is elsewhere shows in its gauges."""
    return {
        TopicPartition(topic, int(number)): Lag(int(records), samples.get(("inference_lag_seconds", labels)))
        for (name, labels), records in samples.items()
        if name == "inference_lag_records"
        for (_, topic), (_, number) in [labels]
    }


def together(several: Iterable[Lags]) -> Lags:
    """All of them. While a partition changes hands two may tell of it: the larger counts."""
    first, *others = [lags for lags in tuple(several) if lags] or [{}]
    if not others:
        return first
    found = dict(first)
    for lags in others:
        for at, lag in lags.items():
            if at not in found or lag.records > found[at].records:
                found[at] = lag
    return found


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
