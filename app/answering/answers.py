"""What versions replied to a batch, as columns that have one entry for every row of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.answering.asking import Reply
from app.records import IntArray, Rejection
from app.specs import Output, Quantity

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """Whose answer it is: as `model_version`, `answered_by` and `rollout_revision` in a prediction of the stream."""

    model: str
    version: str
    part: str
    revision: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to n rows, in their order; a row is answered, or is a key of `rejected`.

    predictions: (n,) class labels (int64 or text) or values (float). probabilities: (n, classes), None for a
    regression and where nothing has them all; NaN pads a version that has fewer classes than another.
    confidence: (n,), of the predicted class, or None. At rejected rows all three mean nothing.
    by: (n,) index into `sources`. rejected: row → why, in the order of rows; `Rejection.row` is the same number.
    """

    predictions: Array
    probabilities: Array | None
    confidence: Array | None
    by: IntArray
    sources: tuple[AnsweredBy, ...]
    rejected: Mapping[int, Rejection]

    def __len__(self) -> int:
        return len(self.by)

    def source_of(self, row: int) -> AnsweredBy:
        """Who answered this row, or was to."""
        return self.sources[int(self.by[row])]

    def between(self, start: int, end: int) -> "Answers":
        """The same of these rows alone, counted from 0, as if there were no others. Columns are views."""
        rejected = {
            row - start: Rejection(row - start, why.stage, why.reason, why.error, why.message)
            for row, why in (self.rejected.items() if self.rejected else ())
            if start <= row < end
        }
        probabilities, confidence = self._unpadded(start, end)
        return Answers(
            self.predictions[start:end], probabilities, confidence, self.by[start:end], self.sources, rejected
        )

    def of_row(self, row: int) -> tuple[Array | None, Array | None]:
        """Probabilities, one for each class of the version that answered, and confidence; None where it has none."""
        probabilities, confidence = self._unpadded(row, row + 1)
        return None if probabilities is None else probabilities[0], None if confidence is None else confidence[0]

    def _unpadded(self, start: int, end: int) -> tuple[Array | None, Array | None]:
        """Probabilities and confidence of these rows, without what other versions' rows brought."""
        probabilities = None if self.probabilities is None else self.probabilities[start:end]
        confidence = None if self.confidence is None else self.confidence[start:end]
        if len(self.sources) == 1:
            return probabilities, confidence
        return _narrowed(probabilities), _known(confidence)


def answers_of(replies: Sequence[Reply], n: int, rejected: Sequence[Rejection] = ()) -> Answers:
    """The answers to a batch of n rows; each of them is in one of the replies' parts, or in `rejected`.

    replies: at least one.
    """
    found = {item.row: item for item in rejected}
    by = np.zeros(n, np.int64)
    sources: list[AnsweredBy] = []
    columns: list[tuple[IntArray, _Columns]] = []
    for reply in replies:
        answerer, inference = reply.lane.answerer, reply.inference
        whose = AnsweredBy(answerer.model.name, answerer.model.version, answerer.answered_by, answerer.rollout_revision)
        if whose not in sources:
            sources.append(whose)
        by[inference.rows] = sources.index(whose)
        for item in (*reply.part.rejected, *inference.rejected):
            found[item.row] = item
            by[item.row] = sources.index(whose)
        if len(inference.rows):
            columns.append((inference.rows, _columns(reply)))
    in_order = dict(sorted(found.items()))
    if len(columns) == 1 and len(columns[0][0]) == n:  # the usual case: everything is in its place already
        one = columns[0][1]
        return Answers(one.predictions, one.probabilities, one.confidence, by, tuple(sources), in_order)
    return Answers(
        _placed([(rows, each.predictions) for rows, each in columns], n),
        _placed_rows([(rows, each.probabilities) for rows, each in columns], n),
        _placed_if_all([(rows, each.confidence) for rows, each in columns], n),
        by,
        tuple(sources),
        in_order,
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers to several runs of rows, one after the other, as if they had been one. parts: at least one."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    n = starts[-1]
    spans = [np.arange(start, start + len(part)) for start, part in zip(starts, parts, strict=False)]
    sources = list(dict.fromkeys(source for part in parts for source in part.sources))
    own = [np.array([sources.index(source) for source in part.sources], np.int64) for part in parts]
    rejected = {
        start + row: Rejection(start + row, why.stage, why.reason, why.error, why.message)
        for start, part in zip(starts, parts, strict=False)
        for row, why in part.rejected.items()
    }
    answered = [(span, part) for span, part in zip(spans, parts, strict=True) if len(part.rejected) < len(part)]
    return Answers(
        _placed([(span, part.predictions) for span, part in answered], n),
        _placed_rows([(span, part.probabilities) for span, part in answered], n),
        _placed_if_all([(span, part.confidence) for span, part in answered], n),
        np.concatenate([index[part.by] for index, part in zip(own, parts, strict=True)]),
        tuple(sources),
        rejected,
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    predictions: Array
    probabilities: Array | None
    confidence: Array | None


def _columns(reply: Reply) -> _Columns:
    inference = reply.inference
    return _Columns(
        _predictions(inference.fields, reply.lane.answerer.model.outputs, inference.classes, inference.winner),
        inference.probabilities,
        inference.confidence,
    )


def _predictions(
    fields: Mapping[str, Array], outputs: Sequence[Output], classes: Sequence[str | int], winner: Array | None
) -> Array:
    """What was predicted: the class, or the value of a regression; a classification beside values is meant first."""
    quantities: dict[Quantity, tuple[str, Output]] = {
        quantity: (name, spec) for spec in outputs for name, quantity in spec.fields.items()
    }
    if "class" in quantities:
        return fields[quantities["class"][0]]
    if winner is not None:
        return np.asarray(classes)[winner]
    if "positive" in quantities:
        name, spec = quantities["positive"]
        return np.asarray(getattr(spec, "classes"))[fields[name].astype(np.intp)]  # noqa: B009 - mypy: of one kind only
    wanted = "value" if "value" in quantities else next(iter(quantities))
    return fields[quantities[wanted][0]]


def _narrowed(columns: Array | None) -> Array | None:
    """Without the last columns that are NaN in every row; None if all are."""
    if columns is None:
        return None
    there = np.flatnonzero(~np.isnan(columns).all(axis=0))
    return columns[:, : there[-1] + 1] if len(there) else None


def _known(column: Array | None) -> Array | None:
    """None if every entry is NaN."""
    return None if column is None or np.isnan(column).all() else column


def _placed(columns: Sequence[tuple[IntArray, Array]], n: int) -> Array:
    """Each column at its rows of n."""
    if not columns:
        return np.zeros(n, np.int64)
    kind = np.result_type(*(column for _, column in columns))
    placed = np.zeros(n, kind)
    for rows, column in columns:
        placed[rows] = column
    return placed


def _placed_if_all(columns: Sequence[tuple[IntArray, Array | None]], n: int) -> Array | None:
    """The same; NaN for those that have none, None if nobody has one."""
    there = [(rows, column) for rows, column in columns if column is not None]
    if not there:
        return None
    placed = np.full(n, np.nan, np.result_type(*(column for _, column in there)))
    for rows, column in there:
        placed[rows] = column
    return placed


def _placed_rows(columns: Sequence[tuple[IntArray, Array | None]], n: int) -> Array | None:
    """The same for rows of numbers, as wide as the widest."""
    there = [(rows, column) for rows, column in columns if column is not None]
    if not there:
        return None
    width = max(column.shape[1] for _, column in there)
    placed = np.full((n, width), np.nan, np.result_type(*(column for _, column in there)))
    for rows, column in there:
        placed[rows, : column.shape[1]] = column
    return placed
