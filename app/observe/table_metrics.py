"""Counters and gauges made of one table of specs, for programs whose gauges come and go with what they tell of."""

from collections.abc import Hashable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from app.observe.metrics import MetricSpec

Sample = tuple[str, tuple[str, ...], float]  # a gauge's name, its labels' values, its value


class TableMetrics:
    """Any thread may show and ask."""

    def __init__(self, table: Sequence[MetricSpec]) -> None:
        """Beside the table there are memory, CPU time, start and open files of this process."""
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._showing: dict[Hashable, set[tuple[str, tuple[str, ...]]]] = {}
        for spec in table:
            if spec.kind == "counter":
                self._counters[spec.name] = Counter(spec.name, spec.meaning, spec.labels, registry=self._registry)
            else:
                self._gauges[spec.name] = Gauge(spec.name, spec.meaning, spec.labels, registry=self._registry)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)

    def _show(self, group: Hashable, samples: Iterable[Sample]) -> None:
        """Show these in the place of what the group showed before: what is not among them is gone."""
        now: set[tuple[str, tuple[str, ...]]] = set()
        for name, labels, value in samples:
            self._gauges[name].labels(*labels).set(value)
            now.add((name, labels))
        for name, labels in self._showing.get(group, set()) - now:
            self._gauges[name].remove(*labels)
        self._showing[group] = now


def table_page(title: str, about: Sequence[str], table: Sequence[MetricSpec]) -> str:
    """A part of docs/METRICS.md. about: lines of prose above the table."""
    lines = [f"## {title}", "", *about, "", "| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for spec in table:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        lines.append(f"| `{spec.name}` | {spec.kind} | {spec.unit} | {labels} | {spec.meaning} |")
    return "\n".join([*lines, ""])
