"""The metrics of `inference-worker audit run`: one table, as the worker's."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from app.observe.metrics import MetricSpec

_PIPELINE = ("pipeline",)

AUDIT_TABLE = (
    MetricSpec("inference_audit_files_total", "counter", "files", _PIPELINE, "Written to the trail."),
    MetricSpec("inference_audit_rows_total", "counter", "rows", _PIPELINE, "In these files."),
    MetricSpec("inference_audit_bytes_total", "counter", "bytes", _PIPELINE, "Of these files."),
    MetricSpec(
        "inference_audit_waiting_rows",
        "gauge",
        "rows",
        _PIPELINE,
        "Read, and in no file yet. What was not read yet is the lag of the group.",
    ),
)


class AuditMetrics:
    """An `AuditObserver`. Any thread may tell and ask."""

    def __init__(self, pipelines: list[str]) -> None:
        self._registry = CollectorRegistry()
        self._counters, self._gauges = {}, {}
        for spec in AUDIT_TABLE:
            if spec.kind == "counter":
                self._counters[spec.name] = Counter(spec.name, spec.meaning, spec.labels, registry=self._registry)
            else:
                self._gauges[spec.name] = Gauge(spec.name, spec.meaning, spec.labels, registry=self._registry)
        for pipeline in pipelines:
            self.file_written(pipeline, 0, 0, files=0)
        self._waiting: Callable[[], Mapping[str, int]] = dict

    def watch(self, waiting: Callable[[], Mapping[str, int]]) -> None:
        """waiting: rows without a file, by pipeline; asked at each scrape."""
        self._waiting = waiting

    def file_written(self, pipeline: str, rows: int, size: int, files: int = 1) -> None:
        """A file has so many rows and bytes."""
        for name, by in (("files", files), ("rows", rows), ("bytes", size)):
            self._counters[f"inference_audit_{name}_total"].labels(pipeline).inc(by)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        for pipeline, rows in self._waiting().items():
            self._gauges["inference_audit_waiting_rows"].labels(pipeline).set(rows)
        return generate_latest(self._registry)


def audit_metrics_page() -> str:
    """The audit trail's part of docs/METRICS.md, generated from the table."""
    lines = [
        "## The audit trail",
        "",
        "Of `inference-worker audit run`, from `app/observe/audit_metrics.py`.",
        "",
        "| name | type | unit | labels | meaning |",
        "|---|---|---|---|---|",
    ]
    for spec in AUDIT_TABLE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        lines.append(f"| `{spec.name}` | {spec.kind} | {spec.unit} | {labels} | {spec.meaning} |")
    return "\n".join([*lines, ""])
