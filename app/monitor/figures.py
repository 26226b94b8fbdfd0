"""What is published of a version: figures of its last complete window, and of its outcomes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from app.models.manifest import Reference
from app.monitor.drift import Drift, DriftPolicy, drift_of
from app.monitor.judged import Judged
from app.monitor.summaries import VersionSummary
from app.monitor.windows import VersionView

LATENCIES = {"0.5": 0.5, "0.95": 0.95, "0.99": 0.99}


@dataclass(frozen=True, slots=True)
class Figures:
    """One version, as of one look.

    window: None if there is no complete one that is fresh; then neither are the figures that come of it.
    judged: of the outcome window, None without outcomes. sample_share: of the keys that outcomes are joined for.
    """

    pipeline: str
    model: str
    version: str
    records_total: int
    window: VersionSummary | None
    window_s: int
    drifts: tuple[Drift, ...]
    judged: Judged | None
    sample_share: float

    @property
    def mean_confidence(self) -> float | None:
        """Of the window; None if nothing had one."""
        if self.window is None or not self.window.confidence.total:
            return None
        return self.window.confidence_sum / self.window.confidence.total

    @property
    def shares(self) -> dict[str, float]:
        """Of the window's predictions, by class."""
        if self.window is None:
            return {}
        total = sum(self.window.classes.values())
        return {label: count / total if total else 0.0 for label, count in self.window.classes.items()}

    @property
    def latencies(self) -> dict[str, float | None]:
        """Upper bounds of the window's latency, by quantile."""
        latency = self.window.latency if self.window else None
        return {name: latency.quantile(share) if latency else None for name, share in LATENCIES.items()}

    def record(self, made_at_ms: int) -> dict[str, Any] | None:
        """As the schema MonitorSummary has it; None without a window."""
        if self.window is None:
            return None
        window = self.window
        shares = self.shares
        return {
            "pipeline": self.pipeline,
            "model": self.model,
            "version": self.version,
            "digest": window.digest,
            "window_start": window.window_start_ms,
            "window_end": window.window_start_ms + 1000 * self.window_s,
            "records": window.records,
            "records_total": self.records_total,
            "records_per_second": window.records / self.window_s,
            "classes": [
                {"label": label, "count": count, "share": shares[label]} for label, count in window.classes.items()
            ],
            "mean_confidence": self.mean_confidence,
            "low_confidence": window.low_confidence,
            **{f"latency_p{name[2:]:0<2}_s": value for name, value in self.latencies.items()},
            "features": [_drift_record(drift) for drift in self.drifts],
            "outcomes": _outcomes_record(self.judged, self.sample_share) if self.judged else None,
            "made_at": made_at_ms,
        }


def figures_of(
    view: VersionView, references: Mapping[str, Reference], drift: DriftPolicy, window_s: int, sample_share: float
) -> Figures | None:
    """What a version's windows and parts come to; None if nothing recent is known of it.

    references: of its manifest; a feature without one is shown and not judged.
    """
    named = view.last or (view.parts[0] if view.parts else None)
    if named is None:
        return None
    judged = reduce(Judged.merged, (part.judged for part in view.parts)) if view.parts else None
    drifts = drift_of(view.last.features, references, drift) if view.last else ()
    return Figures(
        named.pipeline, named.model, named.version, view.records_total, view.last, window_s, drifts, judged,
        sample_share,
    )  # fmt: skip


def _drift_record(drift: Drift) -> dict[str, Any]:
    return {
        "name": drift.name,
        "rows": drift.rows,
        "judged": drift.judged,
        "drifted_by": list(drift.by),
        "mean": drift.mean,
        "std": drift.std,
        "mean_shift": drift.mean_shift,
        "psi": drift.psi,
        "ks": drift.ks,
        "missing_share": drift.missing_share,
        "unknown_share": drift.unknown_share,
        "outside_share": drift.outside_share,
    }


def _outcomes_record(judged: Judged, sample_share: float) -> dict[str, Any]:
    low, high = judged.accuracy_within
    auc = judged.auc
    return {
        "judged": judged.rows,
        "right": judged.right,
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": judged.log_loss,
        "auc": auc[0] if auc else None,
        "auc_within": auc[1] if auc else None,
        "calibration_error": judged.calibration_error,
        "sample_share": sample_share,
    }
