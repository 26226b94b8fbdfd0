"""Figures and facts → samples of metrics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from app.monitor.figures import Figures
from app.monitor.stage import Fact, JudgedRows, OutcomesTaken, Rejected
from app.observe.monitor_metrics import Shown


class Metrics(Protocol):
    """`app.observe.monitor_metrics.MonitorMetrics`."""

    def count(self, name: str, labels: Mapping[str, str], by: int) -> None:
        """Count `by` more."""
        ...

    def show(self, group: str, samples: Iterable[Shown]) -> None:
        """Show these in the place of what the group showed before."""
        ...


class Board:
    """Knows which figure has which name."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def show(self, figures: Sequence[Figures]) -> None:
        """All there is."""
        self._metrics.show("figures", [sample for one in figures for sample in _samples(one)])

    def show_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """By topic and partition of ours."""
        name = "inference_monitor_lag_records"
        self._metrics.show(
            "lag", [Shown(name, (topic, str(partition)), records) for (topic, partition), records in lag.items()]
        )

    def tell(self, fact: Fact) -> None:
        """Something happened, and is durable."""
        if isinstance(fact, JudgedRows):
            version = {"pipeline": fact.pipeline, "model": fact.model, "version": fact.version}
            self._metrics.count("inference_judged_rows_total", {**version, "result": "right"}, fact.right)
            self._metrics.count("inference_judged_rows_total", {**version, "result": "wrong"}, fact.wrong)
        elif isinstance(fact, OutcomesTaken):
            labels = {"pipeline": fact.pipeline, "result": fact.result}
            self._metrics.count("inference_monitor_outcomes_total", labels, fact.records)
        elif isinstance(fact, Rejected):
            labels = {"topic": fact.topic, "reason": fact.reason}
            self._metrics.count("inference_monitor_rejected_total", labels, 1)
        else:
            name = "inference_monitor_summaries_total"
            self._metrics.count(name, {"topic": fact.topic, "result": "late"}, fact.late)
            self._metrics.count(name, {"topic": fact.topic, "result": "taken"}, fact.summaries - fact.late)


def _samples(figures: Figures) -> list[Shown]:
    of = (figures.pipeline, figures.model, figures.version)
    found = [Shown("inference_monitor_predictions", of, figures.records_total)]
    if figures.window is not None:
        window = figures.window
        found += [
            Shown("inference_window_predictions", of, window.records),
            Shown("inference_window_end_seconds", of, window.window_start_ms / 1000 + figures.window_s),
            *(Shown("inference_class_share", (*of, label), share) for label, share in figures.shares.items()),
            *(
                Shown("inference_window_latency_seconds", (*of, quantile), value)
                for quantile, value in figures.latencies.items()
                if value is not None
            ),
        ]
        if figures.mean_confidence is not None:
            share = window.low_confidence / window.confidence.total
            found += [
                Shown("inference_mean_confidence", of, figures.mean_confidence),
                Shown("inference_low_confidence_share", of, share),
            ]
    for drift in figures.drifts:
        feature = (*of, drift.name)
        values = {
            "drifted": float(bool(drift.by)) if drift.judged else None,
            "psi": drift.psi,
            "ks": drift.ks,
            "mean_shift": drift.mean_shift,
            "std": drift.std,
            "missing_share": drift.missing_share,
            "unknown_share": drift.unknown_share,
            "outside_share": drift.outside_share,
        }
        found += [Shown(f"inference_feature_{name}", feature, value) for name, value in values.items()
                  if value is not None]  # fmt: skip
    return found + _outcomes(figures, of)


def _outcomes(figures: Figures, of: tuple[str, str, str]) -> list[Shown]:
    judged = figures.judged
    if judged is None or not judged.rows:
        return []
    low, high = judged.accuracy_within
    found = [
        Shown("inference_outcomes", of, judged.rows),
        Shown("inference_accuracy", (*of, "value"), judged.accuracy),
        Shown("inference_accuracy", (*of, "low"), low),
        Shown("inference_accuracy", (*of, "high"), high),
        Shown("inference_outcome_sample_share", (figures.pipeline,), figures.sample_share),
    ]
    if judged.numbered:
        found += [
            Shown("inference_log_loss", of, judged.log_loss),
            Shown("inference_calibration_error", of, judged.calibration_error),
        ]
    if judged.auc is not None:
        found.append(Shown("inference_auc", of, judged.auc[0]))
    return found
