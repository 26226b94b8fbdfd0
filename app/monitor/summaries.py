"""What a worker says of one version in one bucket of time, and how two of those become one.

Everything adds up: counts, sums and histograms with the same edges; the smallest and the largest by themselves. So the
order and the grouping of summaries do not matter, for integers exactly and for sums to the last bits of a float.
Nothing of a summary is believed: it is checked when it comes in, whoever wrote it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite
from operator import add
from typing import Any

from app.errors import DecodeFailed, Reason

MAX_COUNT = 2**53  # beyond it a count is no double; 10 million a second for 28 years
MAX_TIME_MS = 2**43  # the year 2248
MAX_TEXT = 249
MAX_ITEMS = 10_000  # classes, features, bins: nothing the worker makes comes near

KINDS = frozenset({"number", "category", "tensor"})


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
            raise _refused("histograms with other edges than the window's do not add up")
        return Histogram(self.edges, _added(self.counts, other.counts))

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
    one bin below and one above, or by its categories. low, high: inf and -inf without values.
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

    def merged(self, other: "FeatureTotals") -> "FeatureTotals":
        """Both. Raises DecodeFailed if they are not of the same bins."""
        if self.kind != other.kind or len(self.counts) != len(other.counts):
            raise _refused(f"feature {self.name!r}: {len(other.counts)} bins do not add up with {len(self.counts)}")
        return FeatureTotals(
            self.name,
            self.kind,
            self.rows + other.rows,
            self.missing + other.missing,
            self.unknown + other.unknown,
            self.sum + other.sum,
            self.sum_squares + other.sum_squares,
            min(self.low, other.low),
            max(self.high, other.high),
            _added(self.counts, other.counts),
        )


@dataclass(frozen=True, slots=True)
class Summary:
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
        return f"{self.pipeline}/{self.version}"

    def merged(self, other: "Summary") -> "Summary":
        """Both, as of this one's window; the digest is the newer one's. Raises DecodeFailed if they do not add up."""
        classes = dict(self.classes)
        for label, count in other.classes.items():
            classes[label] = classes.get(label, 0) + count
        features = dict(self.features)
        for name, feature in other.features.items():
            features[name] = features[name].merged(feature) if name in features else feature
        return replace(
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
            score_sum=self.score_sum + other.score_sum,
            score_sum_squares=self.score_sum_squares + other.score_sum_squares,
            latency=self.latency.merged(other.latency),
            latency_sum=self.latency_sum + other.latency_sum,
            features=features,
        )

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


def summary_of(record: Mapping[str, Any]) -> Summary:
    """The summary in a record of the schema ModelSummary. Raises DecodeFailed (out_of_range, missing_value)."""
    try:
        return Summary(
            pipeline=_text(record, "pipeline"),
            model=_text(record, "model"),
            version=_text(record, "version"),
            digest=_text(record, "digest"),
            window_start_ms=_count(record["window_start"], "window_start", MAX_TIME_MS),
            from_ms=_count(record["from_ms"], "from_ms", MAX_TIME_MS),
            to_ms=_count(record["to_ms"], "to_ms", MAX_TIME_MS),
            records=_count(record["records"], "records"),
            classes=_classes(record["classes"]),
            confidence=_histogram(record["confidence"], "confidence"),
            confidence_sum=_number(record["confidence_sum"], "confidence_sum"),
            low_confidence=_count(record["low_confidence"], "low_confidence"),
            score=_histogram(record["score"], "score"),
            score_sum=_number(record["score_sum"], "score_sum"),
            score_sum_squares=_number(record["score_sum_squares"], "score_sum_squares"),
            latency=_histogram(record["latency"], "latency"),
            latency_sum=_number(record["latency_sum"], "latency_sum"),
            features=_features(record["features"]),
        )
    except (KeyError, TypeError) as exc:
        raise DecodeFailed(Reason.MISSING_VALUE, f"summary: {type(exc).__name__}: {exc}") from exc


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


def _histogram(record: Mapping[str, Any], where: str) -> Histogram:
    edges = tuple(_number(edge, where) for edge in _items(record["edges"], where))
    counts = tuple(_count(count, where) for count in _items(record["counts"], where))
    if not edges and not any(counts):
        return Histogram()
    if len(counts) != len(edges) + 1:
        raise _refused(f"{where}: {len(counts)} counts around {len(edges)} edges")
    if any(second <= first for first, second in pairwise(edges)):
        raise _refused(f"{where}: the edges do not rise")
    return Histogram(edges, counts)


def _classes(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    classes: dict[str, int] = {}
    for item in _items(items, "classes"):
        label = _text(item, "label")
        if label in classes:
            raise _refused(f"classes: {label!r} is there twice")
        classes[label] = _count(item["count"], "classes")
    return classes


def _features(items: Sequence[Mapping[str, Any]]) -> dict[str, FeatureTotals]:
    features: dict[str, FeatureTotals] = {}
    for item in _items(items, "features"):
        feature = _feature(item)
        if feature.name in features:
            raise _refused(f"features: {feature.name!r} is there twice")
        features[feature.name] = feature
    return features


def _feature(item: Mapping[str, Any]) -> FeatureTotals:
    name = _text(item, "name")
    counts = tuple(_count(count, name) for count in _items(item["counts"], name))
    rows, missing, unknown = (_count(item[part], name) for part in ("count", "missing", "unknown"))
    if item["kind"] not in KINDS:
        raise _refused(f"{name}: the kind {str(item['kind'])[:20]!r} is none of {', '.join(sorted(KINDS))}")
    if missing + unknown > rows:
        raise _refused(f"{name}: {missing} missing and {unknown} unknown of {rows} rows")
    numeric = item["kind"] != "category" and any(counts)
    low, high = (_number(item[part], name) for part in ("min", "max")) if numeric else (inf, -inf)
    if numeric and low > high:
        raise _refused(f"{name}: the smallest value is {low:g}, the largest {high:g}")
    total, squares = (_number(item[part], name) for part in ("sum", "sum_squares")) if numeric else (0.0, 0.0)
    return FeatureTotals(name, item["kind"], rows, missing, unknown, total, squares, low, high, counts)


def _items(items: Any, where: str) -> Sequence[Any]:  # noqa: ANN401 - a part of a record
    if not isinstance(items, list | tuple):
        raise TypeError(f"{where}: {type(items).__name__} where a list belongs")
    if len(items) > MAX_ITEMS:
        raise _refused(f"{where}: {len(items)} items, at most {MAX_ITEMS} are taken")
    return items


def _text(record: Mapping[str, Any], name: str) -> str:
    text = record[name]
    if not isinstance(text, str):
        raise TypeError(f"{name}: {type(text).__name__} where a text belongs")
    if len(text) > MAX_TEXT or not text.isprintable():
        raise _refused(f"{name}: {len(text)} characters, or some that cannot be printed")
    return text


def _count(value: Any, where: str, most: int = MAX_COUNT) -> int:  # noqa: ANN401 - a part of a record
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{where}: {type(value).__name__} where a whole number belongs")
    if not 0 <= value <= most:
        raise _refused(f"{where}: {value} is not a count")
    return value


def _number(value: Any, where: str) -> float:  # noqa: ANN401 - a part of a record
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{where}: {type(value).__name__} where a number belongs")
    if not isfinite(value):
        raise _refused(f"{where}: {value} is not finite")
    return float(value)


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(add, one, other))


def _refused(why: str) -> DecodeFailed:
    return DecodeFailed(Reason.OUT_OF_RANGE, f"summary refused: {why}")
