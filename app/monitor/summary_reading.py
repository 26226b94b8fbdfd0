"""A record of the schema ModelSummary → a summary. Nothing of it is believed: it is checked, whoever wrote it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, isnan
from typing import Any

from app.errors import DecodeFailed, Reason
from app.monitor.summaries import (
    LARGEST,
    MAX_CLASSES,
    MAX_COUNT,
    MAX_FEATURES,
    FeatureTotals,
    Histogram,
    VersionSummary,
    refused,
)

MAX_TIME_MS = 2**43  # the year 2248
MAX_TEXT = 249
MAX_VERSION = 20
MAX_BINS = 10_000  # nothing the worker makes comes near

KINDS = frozenset({"number", "category", "tensor"})


def counted_of(record: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """Pipeline, version and number of predictions of a summary, also of one that is refused; None if it has none."""
    try:
        return (
            _text(record, "pipeline"),
            _text(record, "version", MAX_VERSION),
            _count(record["records"], "records"),
        )
    except (DecodeFailed, KeyError, TypeError):
        return None


def summary_of(record: Mapping[str, Any]) -> VersionSummary:
    """The summary in a record of the schema ModelSummary. Raises DecodeFailed (out_of_range, missing_value)."""
    try:
        summary = VersionSummary(
            pipeline=_text(record, "pipeline"),
            model=_text(record, "model"),
            version=_text(record, "version", MAX_VERSION),
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
            score_sum=_sum(record["score_sum"], "score_sum"),
            score_sum_squares=_sum(record["score_sum_squares"], "score_sum_squares"),
            latency=_histogram(record["latency"], "latency"),
            latency_sum=_number(record["latency_sum"], "latency_sum"),
            features=_features(record["features"]),
        )
    except (KeyError, TypeError) as exc:
        raise DecodeFailed(Reason.MISSING_VALUE, f"summary: {type(exc).__name__}: {exc}") from exc
    summary.check()
    return summary


def _histogram(record: Mapping[str, Any], where: str) -> Histogram:
    edges = tuple(_number(edge, where) for edge in _items(record["edges"], where))
    counts = tuple(_count(count, where) for count in _items(record["counts"], where))
    if not edges and not any(counts):
        return Histogram()
    if len(counts) != len(edges) + 1:
        raise refused(f"{where}: {len(counts)} counts around {len(edges)} edges")
    if any(second <= first for first, second in pairwise(edges)):
        raise refused(f"{where}: the edges do not rise")
    return Histogram(edges, counts)


def _classes(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    classes: dict[str, int] = {}
    for item in _items(items, "classes", MAX_CLASSES):
        label = _text(item, "label")
        if label in classes:
            raise refused(f"classes: {label!r} is there twice")
        classes[label] = _count(item["count"], "classes")
    return classes


def _features(items: Sequence[Mapping[str, Any]]) -> dict[str, FeatureTotals]:
    features: dict[str, FeatureTotals] = {}
    for item in _items(items, "features", MAX_FEATURES):
        feature = _feature(item)
        if feature.name in features:
            raise refused(f"features: {feature.name!r} is there twice")
        features[feature.name] = feature
    return features


def _feature(item: Mapping[str, Any]) -> FeatureTotals:
    name = _text(item, "name")
    counts = tuple(_count(count, name) for count in _items(item["counts"], name))
    rows, missing, unknown = (_count(item[part], name) for part in ("count", "missing", "unknown"))
    if item["kind"] not in KINDS:
        raise refused(f"{name}: the kind {str(item['kind'])[:20]!r} is none of {', '.join(sorted(KINDS))}")
    if missing + unknown > rows:
        raise refused(f"{name}: {missing} missing and {unknown} unknown of {rows} rows")
    numeric = item["kind"] != "category" and any(counts)
    low, high = (_number(item[part], name) for part in ("min", "max")) if numeric else (inf, -inf)
    if numeric and low > high:
        raise refused(f"{name}: the smallest value is {low:g}, the largest {high:g}")
    total, squares = (_sum(item[part], name) for part in ("sum", "sum_squares")) if numeric else (0.0, 0.0)
    return FeatureTotals(name, item["kind"], rows, missing, unknown, total, squares, low, high, counts)


def _items(items: Any, where: str, most: int = MAX_BINS) -> Sequence[Any]:  # noqa: ANN401 - a part of a record
    if not isinstance(items, list | tuple):
        raise TypeError(f"{where}: {type(items).__name__} where a list belongs")
    if len(items) > most:
        raise refused(f"{where}: {len(items)} items, at most {most} are taken")
    return items


def _text(record: Mapping[str, Any], name: str, most: int = MAX_TEXT) -> str:
    text = record[name]
    if not isinstance(text, str):
        raise TypeError(f"{name}: {type(text).__name__} where a text belongs")
    if len(text) > most or not text.isprintable():
        raise refused(f"{name}: {len(text)} characters, or some that cannot be printed")
    return text


def _count(value: Any, where: str, most: int = MAX_COUNT) -> int:  # noqa: ANN401 - a part of a record
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{where}: {type(value).__name__} where a whole number belongs")
    if not 0 <= value <= most:
        raise refused(f"{where}: {value} is not a count")
    return value


def _number(value: Any, where: str) -> float:  # noqa: ANN401 - a part of a record
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{where}: {type(value).__name__} where a number belongs")
    if not isfinite(value):
        raise refused(f"{where}: {value} is not finite")
    return float(value)


def _sum(value: Any, where: str) -> float:  # noqa: ANN401 - a part of a record
    """A sum of values or of their squares, which the writer may have seen grow beyond all floats."""
    if isinstance(value, float) and not isfinite(value):
        return LARGEST if isnan(value) or value > 0 else -LARGEST
    return _number(value, where)
