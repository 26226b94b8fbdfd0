"""What a worker says of one version in one bucket of time, and how two of those become one.

Everything adds up: counts, sums and histograms with the same edges; the smallest and the largest by themselves. So the
order and the grouping of summaries do not matter, for integers exactly and for sums to the last bits of a float.
What they add up to stays what a reader of summaries accepts (`summary_reading.py`): beyond that it is refused, and the
window stays as it was. Only sums of values may be beyond all floats, as of one value of 1e200: they stay at the largest
one, and what would follow from them is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from sys import float_info
from typing import Any

from app.errors import DecodeFailed, Reason
from app.monitor.judged import added

MAX_COUNT = 2**53  # beyond it a count is no double; 10 million a second for 28 years
MAX_CLASSES, MAX_FEATURES = 1_000, 2_000  # of a version: each is a series of its own in the metrics
LARGEST = float_info.max


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts: one more than edges; the first is below them all, the last above. A value on an edge is above it."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """All values counted."""
        return sum(self.counts)

    def merged(self, other: "Histogram") -> "Histogram":
        """Both; one of nothing has no edges. Raises DecodeFailed if the edges differ."""
        if not self.counts or not other.counts:
            return self if self.counts else other
        if self.edges != other.edges:
            raise refused("histograms with other edges than the window's do not add up")
        return Histogram(self.edges, added(self.counts, other.counts))

    def quantile(self, share: float) -> float | None:
        """The upper edge of the bin in which it lies, the last edge if that has none; None of nothing."""
        wanted, seen = share * self.total, 0
        if not self.total or not self.edges:
            return None
        for edge, count in zip(self.edges, self.counts[:-1], strict=True):
            seen += count
            if seen >= wanted:
                return edge
        return self.edges[-1]


@dataclass(frozen=True, slots=True)
class FeatureTotals:
    """One field of the events.

    rows: all that were seen; missing and unknown are among them. counts: of values, by the manifest's reference with
    one bin below and one above, or by its categories. low, high: inf and -inf without values. sum and sum_squares are
    finite, and at most LARGEST.
    """

    name: str
    kind: str
    rows: int
    missing: int
    unknown: int
    sum: float
    sum_squares: float
    low: float
    high: float
    counts: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many were counted; of an array field, all its elements."""
        return sum(self.counts)

    @property
    def overflowed(self) -> bool:
        """Whether mean and deviation are not known: the squares, and perhaps the sum, are beyond all floats."""
        return self.sum_squares >= LARGEST

    def merged(self, other: "FeatureTotals") -> "FeatureTotals":
        """Both. Raises DecodeFailed if they are not of the same bins."""
        if self.kind != other.kind or len(self.counts) != len(other.counts):
            raise refused(f"feature {self.name!r}: {len(other.counts)} bins do not add up with {len(self.counts)}")
        return FeatureTotals(
            self.name,
            self.kind,
            self.rows + other.rows,
            self.missing + other.missing,
            self.unknown + other.unknown,
            _capped(self.sum + other.sum),
            _capped(self.sum_squares + other.sum_squares),
            min(self.low, other.low),
            max(self.high, other.high),
            added(self.counts, other.counts),
        )


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version in one bucket or window. Everything but the first five adds up."""

    pipeline: str
    model: str
    version: str
    digest: str
    window_start_ms: int
    from_ms: int
    to_ms: int
    records: int
    classes: Mapping[str, int]
    confidence: Histogram
    confidence_sum: float
    low_confidence: int
    score: Histogram
    score_sum: float
    score_sum_squares: float
    latency: Histogram
    latency_sum: float
    features: Mapping[str, FeatureTotals]

    @property
    def key(self) -> str:
        """Of its record, and of what the monitor publishes."""
        return version_key(self.pipeline, self.version)

    def merged(self, other: "VersionSummary") -> "VersionSummary":
        """Both, as of this one's window; the digest is the newer one's.

        Raises DecodeFailed if they do not add up, or to more than a summary may have.
        """
        classes = dict(self.classes)
        for label, count in other.classes.items():
            classes[label] = classes.get(label, 0) + count
        features = dict(self.features)
        for name, feature in other.features.items():
            features[name] = features[name].merged(feature) if name in features else feature
        whole = replace(
            self,
            digest=other.digest if other.to_ms >= self.to_ms else self.digest,
            from_ms=min(self.from_ms, other.from_ms),
            to_ms=max(self.to_ms, other.to_ms),
            records=self.records + other.records,
            classes=classes,
            confidence=self.confidence.merged(other.confidence),
            confidence_sum=self.confidence_sum + other.confidence_sum,
            low_confidence=self.low_confidence + other.low_confidence,
            score=self.score.merged(other.score),
            score_sum=_capped(self.score_sum + other.score_sum),
            score_sum_squares=_capped(self.score_sum_squares + other.score_sum_squares),
            latency=self.latency.merged(other.latency),
            latency_sum=self.latency_sum + other.latency_sum,
            features=features,
        )
        whole.check()
        return whole

    def check(self) -> None:
        """Raises DecodeFailed if there is more of something than may be."""
        if len(self.classes) > MAX_CLASSES or len(self.features) > MAX_FEATURES:
            raise refused(
                f"{len(self.classes)} classes and {len(self.features)} features; at most {MAX_CLASSES} and "
                f"{MAX_FEATURES} are taken"
            )
        totals = [self.records, self.low_confidence, sum(self.classes.values())]
        totals += [histogram.total for histogram in (self.confidence, self.score, self.latency)]
        totals += [max(feature.rows, feature.values) for feature in self.features.values()]
        if max(totals) > MAX_COUNT:
            raise refused(f"it counts {max(totals)}, more than there can be")

    def record(self) -> dict[str, Any]:
        """As the schema ModelSummary has it; `summary_of` is its opposite. No value is not finite."""
        return {
            "pipeline": self.pipeline,
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "window_start": self.window_start_ms,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "records": self.records,
            "classes": [{"label": label, "count": count} for label, count in self.classes.items()],
            "confidence": _histogram_record(self.confidence),
            "confidence_sum": self.confidence_sum,
            "low_confidence": self.low_confidence,
            "score": _histogram_record(self.score),
            "score_sum": self.score_sum,
            "score_sum_squares": self.score_sum_squares,
            "latency": _histogram_record(self.latency),
            "latency_sum": self.latency_sum,
            "features": [_feature_record(feature) for feature in self.features.values()],
        }


def _histogram_record(histogram: Histogram) -> dict[str, Any]:
    return {"edges": list(histogram.edges), "counts": list(histogram.counts)}


def _feature_record(feature: FeatureTotals) -> dict[str, Any]:
    seen = feature.low <= feature.high
    return {
        "name": feature.name,
        "kind": feature.kind,
        "count": feature.rows,
        "missing": feature.missing,
        "unknown": feature.unknown,
        "sum": feature.sum,
        "sum_squares": feature.sum_squares,
        "min": feature.low if seen else 0.0,
        "max": feature.high if seen else 0.0,
        "counts": list(feature.counts),
    }


def _capped(value: float) -> float:
    """A sum that is beyond all floats stays at the largest one."""
    return max(-LARGEST, min(LARGEST, value))


def version_key(pipeline: str, version: str) -> str:
    """What a version's windows, totals and published figures are found by."""
    return f"{pipeline}/{version}"


def refused(why: str) -> DecodeFailed:
    """What a summary is refused with."""
    return DecodeFailed(Reason.OUT_OF_RANGE, f"summary refused: {why}")
