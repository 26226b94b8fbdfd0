"""The monitor's metrics: one table, as the worker's. Gauges are of the last complete window, or of the outcome window.

A series goes when what it tells of goes: a version that nothing predicts with any more, a partition that another
instance has. Names of classes and features come from manifests, so there are few.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.observe.metrics import MetricSpec
from app.observe.table_metrics import TableMetrics, table_page

_VERSION = ("pipeline", "model", "version")
_FEATURE = (*_VERSION, "feature")

MONITOR_TABLE = (
    MetricSpec(
        "inference_judged_rows_total",
        "counter",
        "rows",
        (*_VERSION, "result"),
        "Sampled predictions, a shadow's too, whose outcome became known to this process: right or wrong. What "
        "`models rollout watch` decides on.",
    ),
    MetricSpec(
        "inference_monitor_predictions",
        "gauge",
        "predictions",
        _VERSION,
        "Predictions that summaries told of since the monitor's group began, each counted once.",
    ),
    MetricSpec("inference_window_predictions", "gauge", "predictions", _VERSION, "In the last complete window."),
    MetricSpec(
        "inference_window_end_seconds", "gauge", "seconds", _VERSION, "Since the epoch: the last complete window's end."
    ),
    MetricSpec("inference_class_share", "gauge", "share", (*_VERSION, "class"), "Of the window's predictions."),
    MetricSpec("inference_mean_confidence", "gauge", "share", _VERSION, "Of the window's predictions."),
    MetricSpec(
        "inference_low_confidence_share",
        "gauge",
        "share",
        _VERSION,
        "Of the window's predictions, those below pipelines[].monitoring.low_confidence.",
    ),
    MetricSpec(
        "inference_window_latency_seconds",
        "gauge",
        "seconds",
        (*_VERSION, "quantile"),
        "From an event's timestamp to its prediction; the upper bound of the bin.",
    ),
    MetricSpec(
        "inference_feature_drifted",
        "gauge",
        "1",
        _FEATURE,
        "1 if the window's values are not as in training; absent while there are too few rows to judge.",
    ),
    MetricSpec("inference_feature_psi", "gauge", "1", _FEATURE, "Population stability index against training."),
    MetricSpec("inference_feature_ks", "gauge", "share", _FEATURE, "Kolmogorov-Smirnov distance to training, binned."),
    MetricSpec(
        "inference_feature_mean_shift",
        "gauge",
        "1",
        _FEATURE,
        "Of the mean from training's, in standard deviations of the training data.",
    ),
    MetricSpec("inference_feature_std", "gauge", "1", _FEATURE, "Standard deviation, in the feature's unit."),
    MetricSpec("inference_feature_missing_share", "gauge", "share", _FEATURE, "Rows without a value."),
    MetricSpec("inference_feature_unknown_share", "gauge", "share", _FEATURE, "Rows with a category not in training."),
    MetricSpec("inference_feature_outside_share", "gauge", "share", _FEATURE, "Values beyond all of training's."),
    MetricSpec("inference_outcomes", "gauge", "rows", _VERSION, "Predictions judged, in the outcome window."),
    MetricSpec(
        "inference_accuracy",
        "gauge",
        "share",
        (*_VERSION, "bound"),
        "Right answers of those judged: value, and low and high of its 95 % interval.",
    ),
    MetricSpec("inference_log_loss", "gauge", "1", _VERSION, "Of those judged whose probabilities are known."),
    MetricSpec("inference_auc", "gauge", "share", _VERSION, "Of those judged, two classes; within half a bin's ties."),
    MetricSpec(
        "inference_calibration_error", "gauge", "share", _VERSION, "Expected calibration error, ten bins; likewise."
    ),
    MetricSpec(
        "inference_outcome_sample_share",
        "gauge",
        "share",
        ("pipeline",),
        "Of the keys, those in the sample that outcomes are joined with.",
    ),
    MetricSpec(
        "inference_monitor_outcomes_total",
        "counter",
        "records",
        ("pipeline", "result"),
        "Sampled predictions, comparisons and outcomes: paired, pending (waiting for the other), duplicate, "
        "contradicting (a second, other outcome), late, unmatched (a prediction forgotten without outcome), or "
        "too_old (a pair of a window that is no longer kept).",
    ),
    MetricSpec(
        "inference_monitor_summaries_total",
        "counter",
        "summaries",
        ("topic", "result"),
        "Summaries read: taken, or late (their window is no longer kept; only the total counts them).",
    ),
    MetricSpec(
        "inference_monitor_rejected_total",
        "counter",
        "records",
        ("topic", "reason"),
        "Records that could not be used, by reason as in dead letters.",
    ),
    MetricSpec(
        "inference_monitor_lag_records",
        "gauge",
        "records",
        ("topic", "partition"),
        "What the monitor has not taken in, of its partitions; transaction markers at the end may count.",
    ),
)


class Shown(NamedTuple):
    """One sample of a gauge."""

    name: str
    labels: tuple[str, ...]
    value: float


class MonitorMetrics(TableMetrics):
    """Any thread may show, count and ask."""

    def __init__(self) -> None:
        super().__init__(MONITOR_TABLE)

    def count(self, name: str, labels: Mapping[str, str], by: int) -> None:
        """Count `by` more."""
        if by:
            self._counters[name].labels(**labels).inc(by)

    def show(self, group: str, samples: Iterable[Shown]) -> None:
        """Show these in the place of what the group showed before: what is not among them is gone."""
        self._show(group, samples)


def monitor_metrics_page() -> str:
    """The monitor's part of docs/METRICS.md, generated from the table."""
    about = (
        "Of `inference-worker monitor`, from `app/observe/monitor_metrics.py`. Gauges of versions are of the last",
        "complete window, or of the outcome window; they go with what they tell of. Those of its process,",
        "`process_…`, are as the worker's.",
    )
    return table_page("The monitor", about, MONITOR_TABLE)
