"""The metrics of several worker processes as those of one.

Counters and histograms are added up, with what ended processes had counted: a sum never falls when one is started
again. Gauges are merged as the table says (`MetricSpec.merge`): of an ended process none is left. A partition's
lag is told by its one owner; while it changes hands two may tell, and the larger is shown.

prometheus_client's own multiprocess mode does not fit: it knows only its own metric classes, whose values it keeps
in memory-mapped files (our histograms take whole columns), it cannot remove a series, as a revoked partition's lag
must be, and its files of ended processes grow without end.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from threading import Lock

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.facts import Refused, Sample
from app.observe.look import Look, lags_in
from app.observe.metrics import PROCESS_TABLE, TABLE, MetricSpec
from app.observe.worker_metrics import REFUSED_KEPT

Series = tuple[str, tuple[tuple[str, str], ...]]  # name and labels
Samples = Mapping[Series, float]
Counted = Mapping[Series, Fraction]  # exact: a sum that falls by a rounding error is a reset to Prometheus

_PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_SPECS: Mapping[str, MetricSpec] = {
    spec.name + part: spec for spec in (*TABLE, *PROCESS_TABLE) for part in _PARTS[spec.kind]
}
STATES = "inference_worker_processes"
RESTARTS = "inference_process_restarts_total"


def merge(processes: Sequence[Samples], ended: Counted | None = None) -> dict[Series, float]:
    """One set of samples, with what ended processes had counted. Series keep the order in which they come first.

    A name that the table does not have, from a newer program on the disk, is left out.
    """
    values: dict[Series, list[float | Fraction]] = {series: [value] for series, value in (ended or {}).items()}
    for samples in processes:
        for series, value in samples.items():
            if series[0] in _SPECS:
                values.setdefault(series, []).append(value)
    return {series: _merged(_SPECS[series[0]], several) for series, several in values.items()}


def with_ended(ended: Counted, samples: Samples) -> dict[Series, Fraction]:
    """The same with what one more process had counted, and nothing else of it."""
    more = dict(ended)
    for series, value in samples.items():
        if series[0] in _SPECS and _SPECS[series[0]].kind != "gauge":
            more[series] = more.get(series, Fraction(0)) + Fraction(value)
    return more


def _merged(spec: MetricSpec, values: Sequence[float | Fraction]) -> float:
    if spec.kind == "gauge" and spec.merge == "max":
        return float(max(values))
    if spec.kind == "gauge" and spec.merge == "min":
        return float(min(values))
    if spec.kind == "gauge" and spec.merge == "mean":
        return float(sum(values) / len(values))
    return float(sum((Fraction(value) for value in values), Fraction(0)))


def _last(refused: Sequence[Refused]) -> list[Refused]:
    return sorted(refused, key=lambda item: item.at_ms)[-REFUSED_KEPT:]


class ProcessMetrics(Collector):
    """What all processes reported, as one page; a `ports.ProcessObserver`. Any thread may read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._lock = Lock()
        self._living: dict[int, Samples] = {}
        self._ended: Counted = {}
        self._own: dict[Series, float] = {}  # of the supervision itself
        self._refused: dict[int, Sequence[Refused]] = {}
        self._refused_before: list[Refused] = []  # by processes that have ended

    def started(self, slot: int, *, again: bool) -> None:
        """Count it if it is a restart."""
        key = (RESTARTS, (("slot", str(slot)),))
        with self._lock:
            self._own[key] = self._own.get(key, 0.0) + again

    def reported(self, slot: int, samples: Sequence[Sample]) -> None:
        """These instead of what the slot's process reported before."""
        with self._lock:
            self._living[slot] = {(name, labels): value for name, labels, value in samples}

    def refused(self, slot: int, last: Sequence[Refused]) -> None:
        """These instead of what it told before."""
        with self._lock:
            self._refused[slot] = last

    def ended(self, slot: int) -> None:
        """Keep what it counted."""
        with self._lock:
            self._refused_before = _last([*self._refused_before, *self._refused.pop(slot, ())])
            self._ended = with_ended(self._ended, self._living.pop(slot, {}))

    def counted(self, states: Mapping[str, int]) -> None:
        """How many slots are in which state."""
        with self._lock:
            self._own |= {(STATES, (("state", state),)): float(count) for state, count in states.items()}

    def samples(self) -> Samples:
        """All of it, merged."""
        with self._lock:
            return merge([*self._living.values(), self._own], self._ended)

    def look(self) -> Look:
        """Each process as it reported last, and the rest, with all its families."""
        with self._lock:
            rest = {series: float(value) for series, value in self._ended.items()} | self._own
            refused = _last([*self._refused_before, *(item for several in self._refused.values() for item in several)])
            lags = {slot: lags_in(samples) for slot, samples in self._living.items()}
            return Look(dict(self._living), rest, refused, lags)

    def exposition(self) -> bytes:
        """Prometheus text format, in the table's order."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """One family for each metric of the table."""
        families = {
            spec.name: Metric(spec.name.removesuffix("_total"), spec.meaning, spec.kind)
            for spec in (*TABLE, *PROCESS_TABLE)
        }
        for (name, labels), value in self.samples().items():
            families[_SPECS[name].name].add_sample(name, dict(labels), value)
        return families.values()
