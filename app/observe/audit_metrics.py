"""The metrics of `inference-worker audit run`: one table, as the worker's."""

from collections.abc import Callable, Mapping

from app.observe.metrics import MetricSpec
from app.observe.table_metrics import TableMetrics, table_page

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


class AuditMetrics(TableMetrics):
    """An `AuditObserver`. Any thread may tell and ask."""

    def __init__(self, pipelines: list[str]) -> None:
        super().__init__(AUDIT_TABLE)
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
        return super().exposition()


def audit_metrics_page() -> str:
    """The audit trail's part of docs/METRICS.md, generated from the table."""
    about = (
        "Of `inference-worker audit run`, from `app/observe/audit_metrics.py`. Those of its process, `process_…`, are",
        "as the worker's.",
    )
    return table_page("The audit trail", about, AUDIT_TABLE)
