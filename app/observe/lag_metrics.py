"""The lag exporter's metrics: one table, as the worker's. A series goes when what it tells of is no longer known."""

from collections.abc import Iterable

from prometheus_client import disable_created_metrics

from app.observe.metrics import MetricSpec
from app.observe.table_metrics import Sample, TableMetrics, table_page

_GROUP = ("group",)
_PARTITION = ("group", "topic", "partition")

LAG_TABLE = (
    MetricSpec(
        "inference_group_lag_records", "gauge", "records", _PARTITION,
        "Committed records from the group's offset to the last stable offset: what a worker would get to read. "
        "Transaction markers, aborted records and what compaction removed do not count.",
    ),
    MetricSpec(
        "inference_group_lag_seconds", "gauge", "seconds", _PARTITION,
        "Age of the first of those records, by its own timestamp; 0 when there is none, absent while not known.",
    ),
    MetricSpec(
        "inference_group_lag_uncounted_offsets", "gauge", "offsets", _PARTITION,
        "Offsets of the lag not read yet: at most so many of the lag's records are none. 0: it is exact.",
    ),
    MetricSpec(
        "inference_group_missed_offsets", "gauge", "offsets", _PARTITION,
        "From the committed offset to the log's start: gone by retention, never finished by the group; without those "
        "seen to hold no record.",
    ),
    MetricSpec(
        "inference_group_last_stable_offset_lag_records", "gauge", "offsets", _PARTITION,
        "From the last stable offset to the end: of transactions that are open, and what came after their begin. No "
        "part of the lag, since nobody may read it yet.",
    ),
    MetricSpec(
        "inference_group_last_stable_offset_unmoved_seconds", "gauge", "seconds", _PARTITION,
        "For how long the last stable offset stood still with something behind it: a hung transaction upstream.",
    ),
    MetricSpec("inference_group_members", "gauge", "consumers", _GROUP, "In the group now."),
    MetricSpec(
        "inference_group_processes", "gauge", "processes", _GROUP,
        "Worker processes that those are of: each has one consumer for each pipeline of the group.",
    ),
    MetricSpec("inference_group_partitions", "gauge", "partitions", _GROUP, "Of all its topics."),
    MetricSpec(
        "inference_group_arrival_rate", "gauge", "records per second", _GROUP,
        "What arrives, averaged for scaling: it follows a rise sooner than a fall.",
    ),
    MetricSpec(
        "inference_group_capacity_records_per_second", "gauge", "records per second", _GROUP,
        "What one process can do, measured where there was enough to do; absent while not known.",
    ),
    MetricSpec(
        "inference_desired_replicas", "gauge", "processes", _GROUP,
        "How many processes the group needs: docs/SCALING.md. Absent while it is not fully seen, or not yet for long.",
    ),
    MetricSpec(
        "inference_desired_replicas_reason", "gauge", "1", (*_GROUP, "reason"), "1 for why the number is what it is."
    ),
    MetricSpec(
        "inference_lag_up", "gauge", "1", _GROUP, "1 if the last look saw all of the group, 0 if something is missing."
    ),
    MetricSpec(
        "inference_lag_last_success_timestamp_seconds", "gauge", "seconds", _GROUP,
        "Since the epoch: the last look that saw all of the group.",
    ),
    MetricSpec("inference_lag_look_seconds", "gauge", "seconds", _GROUP, "How long the last look at all groups took."),
    MetricSpec(
        "inference_lag_looks_total", "counter", "looks", (*_GROUP, "result"),
        "Looks at the group: complete, partial (something is unknown) or failed (all is).",
    ),
)  # fmt: skip


class LagMetrics(TableMetrics):
    """Any thread may show and ask."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # as the worker's
        super().__init__(LAG_TABLE)

    def show(self, group_id: str, part: str, samples: Iterable[Sample]) -> None:
        """Show these in the place of what this part of the group showed before: what is not among them is gone."""
        self._show((group_id, part), samples)

    def looked(self, group_id: str, result: str, seconds: float) -> None:
        """A look at a group ended: complete, partial or failed."""
        self._counters["inference_lag_looks_total"].labels(group_id, result).inc()
        self._gauges["inference_lag_look_seconds"].labels(group_id).set(seconds)


def lag_metrics_page() -> str:
    """The lag exporter's part of docs/METRICS.md, generated from the table."""
    about = (
        "Of `inference-worker lag`, from `app/observe/lag_metrics.py`. Figures that no look renewed for `lag.keep_s`",
        "are taken away: none is better than an old one. Those of its process, `process_…`, are as the worker's.",
    )
    return table_page("The lag exporter", about, LAG_TABLE)
