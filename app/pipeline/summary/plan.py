"""Where each figure of a summary stands: everything that adds up is one vector of counts and one of sums.

So to merge is to add. Whoever adds to a figure, merges it or tells of it goes by the places a `SummaryPlan` gives it.
Rows are kept as the columns they came in and folded thousands at a time: of a few rows a fold costs what its calls
cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.pipeline.summary.bins import LATENCIES_S, SHARES, Bins, score_edges
from app.pipeline.summary.looked_at import LookedAt, SeenTogether
from app.ports import Model
from app.records import IntArray
from app.specs import Feature, NumberFeature, OneHotFeature, OrdinalFeature, ProbabilitiesOutput, ValueOutput

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

# Where these stand: among all counts, among those of a feature, and among all sums. What is named last starts a run.
_RECORDS, _LOW, _CLASSES = range(3)
_SEEN, _MISSING, _UNKNOWN, _BINS = range(4)
_CONFIDENCE_SUM, _SCORE_SUM, _SCORE_SQUARES, _LATENCY_SUM, _FEATURE_SUMS = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class SummedRows:
    """The rows of a batch that one version answered, as they are added up.

    at_ms: their predicted_at. rows: (m,) batch rows predicted, rising. timestamps_ms: (m,) of their events.
    fields, classes, winner, confidence: as in `infer.Inference`.
    looked_at: None where a handler made the inputs, or they were made for another version than the one that answered.
    """

    plan: "SummaryPlan"
    at_ms: int
    rows: IntArray
    timestamps_ms: IntArray
    fields: Mapping[str, Array]
    classes: Sequence[str | int]
    winner: Array | None
    confidence: Array | None
    looked_at: LookedAt | None

    def __len__(self) -> int:
        return max(len(self.rows), 0 if self.looked_at is None else len(self.looked_at.columns.rows))


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What some rows add up to. counts, sums, lows, highs: vectors, in the places of the plan."""

    plan: "SummaryPlan"
    first_ms: int
    last_ms: int
    counts: IntArray
    sums: FloatArray
    lows: FloatArray
    highs: FloatArray

    def plus(self, other: "Summary") -> "Summary":
        """Both together. They are of the same plan."""
        return Summary(
            self.plan,
            min(self.first_ms, other.first_ms),
            max(self.last_ms, other.last_ms),
            self.counts + other.counts,
            self.sums + other.sums,
            np.minimum(self.lows, other.lows),
            np.maximum(self.highs, other.highs),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a feature stands. start: its first column in the tensor. number: which low and high are its own."""

    feature: Feature
    tensor: str
    start: int
    bins: Bins | None
    counts: slice
    number: int

    @property
    def kind(self) -> str:
        if self.bins is None:
            return "category"
        return "number" if isinstance(self.feature, NumberFeature) else "tensor"


class SummaryPlan:
    """What is added up of the predictions of one version, and where it stands."""

    def __init__(
        self,
        pipeline: str,
        model: Model,
        references: Mapping[str, Sequence[float]],
        low_confidence: float,
        *,
        with_features: bool = True,
    ) -> None:
        """references: edges of the training reference by field, of numbers; a field without has a single bin.

        low_confidence: less than this is counted apart. with_features: False where a handler makes the inputs.
        """
        self.pipeline, self.model, self.with_features, self._low = pipeline, model, with_features, low_confidence
        classifying = [spec for spec in model.outputs if isinstance(spec, ProbabilitiesOutput)]
        self._classes: Sequence[str | int] = classifying[-1].classes if classifying else ()
        self._labels = [str(label) for label in self._classes]
        self._field_of = {quantity: name for spec in classifying[-1:] for name, quantity in spec.fields.items()}
        value = next((spec for spec in model.outputs if isinstance(spec, ValueOutput)), None)
        if not classifying and value is not None:
            self._field_of["value"] = next(iter(value.fields))
        self._confidence, self._latency = Bins(SHARES), Bins(LATENCIES_S)
        self._score = Bins(score_edges(len(self._classes), value))
        self._size, self._numbers = _CLASSES, 0
        self._at_classes = self._take(len(self._classes))
        self._at_confidence, self._at_score = self._take(len(self._confidence)), self._take(len(self._score))
        self._at_latency = self._take(len(self._latency))
        self._widths = {spec.name: spec.width for spec in model.inputs}
        self._places = self._place_features(references) if with_features else []

    def _take(self, count: int) -> slice:
        start, self._size = self._size, self._size + count
        return slice(start, self._size)

    def _place_features(self, references: Mapping[str, Sequence[float]]) -> list[_Place]:
        """A field that feeds two inputs is told of once, where it comes first."""
        places: dict[str, _Place] = {}
        for spec in self.model.inputs:
            start = 0
            for feature in spec.features:
                if feature.field not in places:
                    is_category = isinstance(feature, OneHotFeature | OrdinalFeature)
                    dtype = "float64" if spec.dtype.startswith("int") else spec.dtype
                    bins = None if is_category else Bins(references.get(feature.field, ()), dtype)
                    length = len(feature.categories) if bins is None else len(bins)  # type: ignore[union-attr]
                    counts = self._take(_BINS + length)
                    places[feature.field] = _Place(feature, spec.name, start, bins, counts, self._numbers)
                    self._numbers += bins is not None
                start += feature.width
        return list(places.values())

    # -- adding up -----------------------------------------------------------------------------------------------

    def nothing(self, first_ms: int = 0, last_ms: int = 0) -> Summary:
        """No rows."""
        return Summary(
            self,
            first_ms,
            last_ms,
            np.zeros(self._size, np.int64),
            np.zeros(_FEATURE_SUMS + 2 * self._numbers),
            np.full(self._numbers, np.inf),
            np.full(self._numbers, -np.inf),
        )

    def fold(self, several: Sequence[SummedRows]) -> Summary:
        """These batches of rows, at least one, added up."""
        at_ms = [rows.at_ms for rows in several]
        into = self.nothing(min(at_ms), max(at_ms))
        with np.errstate(over="ignore", invalid="ignore"):  # squares of what only just is a float64
            self._add_answers([rows for rows in several if len(rows.rows)], into)
            self._add_features([rows for rows in several if rows.looked_at is not None], into)
        return into

    def _add_answers(self, several: Sequence[SummedRows], into: Summary) -> None:
        if not several:
            return
        counts, sums = into.counts, into.sums
        counts[_RECORDS] = sum(len(rows.rows) for rows in several)
        self._add_classes(several, counts[self._at_classes])
        certain = [rows.confidence for rows in several if rows.confidence is not None]
        if certain:
            confidence = _ascending(certain)
            counts[_LOW] = np.searchsorted(confidence, self._low)
            counts[self._at_confidence] = self._confidence.count(confidence)
            sums[_CONFIDENCE_SUM] = confidence.sum()
        scores = [score for rows in several if (score := self._scores(rows)) is not None]
        if scores:
            score = _ascending(scores)
            counts[self._at_score] = self._score.count(score)
            sums[_SCORE_SUM], sums[_SCORE_SQUARES] = score.sum(), np.einsum("i,i->", score, score)
        latency = _ascending([np.maximum(rows.at_ms - rows.timestamps_ms, 0) for rows in several]) / 1000
        counts[self._at_latency] = self._latency.count(latency)
        sums[_LATENCY_SUM] = latency.sum()

    def _add_classes(self, several: Sequence[SummedRows], counts: IntArray) -> None:
        own = [rows.winner for rows in several if rows.winner is not None and rows.classes == self._classes]
        if own:
            counts += np.bincount(np.concatenate(own), minlength=len(counts))
        for rows in several:  # a constant answer knows one class only
            if rows.winner is not None and rows.classes != self._classes:
                labels = [self._labels.index(str(label)) for label in rows.classes]
                np.add.at(counts, np.array(labels)[rows.winner], 1)

    def _scores(self, rows: SummedRows) -> Array | None:
        """(m,) the value, or the probability of the second of two classes."""
        name = self._field_of.get("value") or self._field_of.get("probability")
        if name is not None:
            return rows.fields[name]
        if len(self._classes) != 2:
            return None
        if "probabilities" in self._field_of:
            return rows.fields[self._field_of["probabilities"]][:, 1]
        if rows.confidence is None or rows.winner is None or rows.classes != self._classes:
            return None
        return np.where(rows.winner == 1, rows.confidence, 1 - rows.confidence)

    def _add_features(self, several: Sequence[SummedRows], into: Summary) -> None:
        if not several or not self._places:
            return
        looked = SeenTogether([(rows.rows, rows.looked_at) for rows in several if rows.looked_at is not None])
        tensors = {name: looked.tensor(name, self._widths[name]) for name in {place.tensor for place in self._places}}
        for place in self._places:
            counts, tensor = into.counts[place.counts], tensors[place.tensor]
            counts[_SEEN], counts[_MISSING] = looked.seen, looked.missing(place.feature.field)
            values = tensor[:, place.start : place.start + place.feature.width]
            if place.bins is not None:
                if counts[_MISSING] and place.feature.missing != "reject":
                    values = values[looked.has(place.feature.field)]
                self._add_numbers(place, values, into)
            elif isinstance(place.feature, OneHotFeature | OrdinalFeature):
                counts[_BINS:] = _category_counts(place.feature, values)
                known = counts[_BINS:].sum() + looked.known_elsewhere(place.feature.field, place.feature.categories)
                counts[_UNKNOWN] = looked.seen - counts[_MISSING] - known

    @staticmethod
    def _add_numbers(place: _Place, values: Array, into: Summary) -> None:
        if place.bins is None or not values.size:
            return
        ascending = np.sort(values.astype(np.float64) if values.dtype.kind == "i" else values, axis=None)
        into.counts[place.counts][_BINS:] = place.bins.count(ascending)
        exact = ascending.astype(np.float64, copy=False)
        at = _FEATURE_SUMS + 2 * place.number
        into.sums[at : at + 2] = exact.sum(), np.einsum("i,i->", exact, exact)
        into.lows[place.number], into.highs[place.number] = exact[0], exact[-1]

    # -- telling --------------------------------------------------------------------------------------------------

    def record(self, summary: Summary, window_start_ms: int) -> dict[str, object]:
        """As schemas/model_summary.avsc has it; times in milliseconds."""
        counts, sums = summary.counts.tolist(), summary.sums.tolist()
        return {
            "pipeline": self.pipeline,
            "model": self.model.name,
            "version": self.model.version,
            "digest": self.model.digest,
            "window_start": window_start_ms,
            "from_ms": summary.first_ms,
            "to_ms": summary.last_ms,
            "records": counts[_RECORDS],
            "classes": [
                {"label": label, "count": count}
                for label, count in zip(self._labels, counts[self._at_classes], strict=True)
            ],
            "confidence": {"edges": self._confidence.edges, "counts": counts[self._at_confidence]},
            "confidence_sum": sums[_CONFIDENCE_SUM],
            "low_confidence": counts[_LOW],
            "score": {"edges": self._score.edges, "counts": counts[self._at_score]},
            "score_sum": sums[_SCORE_SUM],
            "score_sum_squares": sums[_SCORE_SQUARES],
            "latency": {"edges": self._latency.edges, "counts": counts[self._at_latency]},
            "latency_sum": sums[_LATENCY_SUM],
            "features": [_feature_record(place, summary, counts[place.counts]) for place in self._places],
        }


def _ascending(parts: Sequence[Array]) -> FloatArray:
    return np.sort(np.concatenate(parts).astype(np.float64, copy=False))


def _category_counts(feature: OneHotFeature | OrdinalFeature, values: Array) -> IntArray:
    """values: the feature's columns of the tensor."""
    if isinstance(feature, OneHotFeature):
        ones: Array = np.einsum("ij->j", values)  # add.reduce takes four times as long where rows are short
        return ones.astype(np.int64)
    return np.bincount(values[:, 0].astype(np.int64), minlength=len(feature.categories))


def _feature_record(place: _Place, summary: Summary, counts: list[int]) -> dict[str, object]:
    at, is_number = _FEATURE_SUMS + 2 * place.number, place.bins is not None
    return {
        "name": place.feature.field,
        "kind": place.kind,
        "count": counts[_SEEN],
        "missing": counts[_MISSING],
        "unknown": counts[_UNKNOWN],
        "sum": float(summary.sums[at]) if is_number else 0.0,
        "sum_squares": float(summary.sums[at + 1]) if is_number else 0.0,
        "min": float(summary.lows[place.number]) if is_number else float("inf"),
        "max": float(summary.highs[place.number]) if is_number else float("-inf"),
        "counts": counts[_BINS:],
    }
