"""How right predictions were, as sums that add up: accuracy, log loss, AUC and calibration of what was judged.

AUC is of scores in SCORE_BINS bins: pairs of a positive and a negative in one bin count half, as ties do, so it is at
most half the share of such pairs off, which is told beside it. Calibration is the expected calibration error over ten
bins of confidence (C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017).
The interval of the accuracy is Wilson's (E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 22 (1927)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

SCORE_BINS = 500
CALIBRATION_BINS = 10
LEAST_PROBABILITY = 1e-15  # as scikit-learn's log_loss clips float64, about: an impossible answer costs 34.5
MAX_COUNT = 2**53  # beyond it a count is no double
MAX_NAME = 249
DEVIATIONS_95 = 1.959963984540054

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Sums over predictions whose outcome is known.

    numbered: how many of the rows had probabilities; log loss, AUC and calibration are of these.
    positives, negatives: by bin of the score, of two classes; empty for more. calibration_…: by bin of confidence.
    """

    rows: int = 0
    right: int = 0
    numbered: int = 0
    log_loss_sum: float = 0.0
    positives: tuple[int, ...] = ()
    negatives: tuple[int, ...] = ()
    calibration_rows: tuple[int, ...] = (0,) * CALIBRATION_BINS
    calibration_right: tuple[int, ...] = (0,) * CALIBRATION_BINS
    calibration_sum: tuple[float, ...] = (0.0,) * CALIBRATION_BINS

    def merged(self, other: "Judged") -> "Judged":
        """Both."""
        return Judged(
            self.rows + other.rows,
            self.right + other.right,
            self.numbered + other.numbered,
            self.log_loss_sum + other.log_loss_sum,
            added(self.positives, other.positives),
            added(self.negatives, other.negatives),
            added(self.calibration_rows, other.calibration_rows),
            added(self.calibration_right, other.calibration_right),
            tuple(map(add, self.calibration_sum, other.calibration_sum)),
        )

    @property
    def accuracy(self) -> float:
        """Share of right answers; 0.0 of none."""
        return self.right / self.rows if self.rows else 0.0

    @property
    def accuracy_within(self) -> tuple[float, float]:
        """Its 95 % interval."""
        if not self.rows:
            return 0.0, 1.0
        z2 = DEVIATIONS_95**2 / self.rows
        middle = self.accuracy + z2 / 2
        reach = DEVIATIONS_95 * sqrt(self.accuracy * (1 - self.accuracy) / self.rows + z2 / (4 * self.rows))
        return max(0.0, (middle - reach) / (1 + z2)), min(1.0, (middle + reach) / (1 + z2))

    @property
    def log_loss(self) -> float:
        """Mean of -log of the probability that the true class was given; 0.0 of none."""
        return self.log_loss_sum / self.numbered if self.numbered else 0.0

    @property
    def auc(self) -> tuple[float, float] | None:
        """(area under the ROC curve, how far the bins may put it off); None unless both of two classes were seen."""
        positives, negatives = np.array(self.positives, np.float64), np.array(self.negatives, np.float64)
        pairs = positives.sum() * negatives.sum()
        if not pairs:
            return None
        below = negatives.cumsum() - negatives
        ties = float((positives * negatives).sum()) / 2
        return (float((positives * below).sum()) + ties) / float(pairs), ties / float(pairs)

    @property
    def calibration_error(self) -> float:
        """Mean distance of confidence and accuracy, by bin of confidence; 0.0 of none."""
        right, total = np.array(self.calibration_right), np.array(self.calibration_sum)
        return float(np.abs(right - total).sum() / self.numbered) if self.numbered else 0.0

    def record(self) -> dict[str, Any]:
        """As JSON; `judged_of` is its opposite."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Part:
    """What one partition of the sample knows of a version in one window; the newest one counts."""

    pipeline: str
    model: str
    version: str
    sample_partition: int
    window_start_ms: int
    judged: Judged

    @property
    def key(self) -> str:
        """The version's."""
        return f"{self.pipeline}/{self.version}"

    def record(self) -> dict[str, Any]:
        """As JSON; `part_of` is its opposite."""
        return {
            "pipeline": self.pipeline,
            "model": self.model,
            "version": self.version,
            "partition": self.sample_partition,
            "window_start": self.window_start_ms,
            "judged": self.judged.record(),
        }

    def encoded(self) -> bytes:
        """The record as JSON text."""
        return orjson.dumps(self.record())


def judge(truth: IntArray, predicted: IntArray, numbers: FloatArray) -> Judged:
    """Judge rows of one version.

    truth, predicted: (n,) indexes of classes. numbers: (n, n_classes) probabilities, or (n, 0) where they are not
    known: then only right and wrong are counted.
    """
    rows, classes = numbers.shape
    hits = truth == predicted
    if not classes or not rows:
        return Judged(rows, int(hits.sum()))
    row = np.arange(rows)
    given = np.clip(numbers[row, truth], LEAST_PROBABILITY, 1.0)
    confidence = np.clip(numbers[row, predicted], 0.0, 1.0)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    positives: tuple[int, ...] = ()
    negatives: tuple[int, ...] = ()
    if classes == 2:
        scores = np.clip(numbers[:, 1], 0.0, 1.0)
        at = np.minimum((scores * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        positives, negatives = (
            tuple(np.bincount(at[truth == label], minlength=SCORE_BINS).tolist()) for label in (1, 0)
        )
    return Judged(
        rows,
        int(hits.sum()),
        rows,
        float(-np.log(given).sum()),
        positives,
        negatives,
        tuple(np.bincount(bins, minlength=CALIBRATION_BINS).tolist()),
        tuple(np.bincount(bins, weights=hits, minlength=CALIBRATION_BINS).astype(np.int64).tolist()),
        tuple(np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS).tolist()),
    )


def judged_of(record: Mapping[str, Any]) -> Judged:
    """The sums in what `Judged.record` made. Raises ValueError, TypeError or LookupError for anything else."""
    positives, negatives, rows, right = (
        tuple(_count(count) for count in record[name])
        for name in ("positives", "negatives", "calibration_rows", "calibration_right")
    )
    sums, loss = tuple(map(float, record["calibration_sum"])), float(record["log_loss_sum"])
    if {len(positives), len(negatives)} not in ({0}, {SCORE_BINS}):
        raise ValueError(f"scores in other bins than {SCORE_BINS}")
    if {len(bins) for bins in (rows, right, sums)} != {CALIBRATION_BINS}:
        raise ValueError(f"confidence in other bins than {CALIBRATION_BINS}")
    if not all(map(isfinite, (*sums, loss))):
        raise ValueError("a sum is not finite")
    counted, hits, numbered = (_count(record[name]) for name in ("rows", "right", "numbered"))
    if hits > counted or numbered > counted:
        raise ValueError(f"{hits} right and {numbered} with numbers of {counted}")
    return Judged(counted, hits, numbered, loss, positives, negatives, rows, right, sums)


def part_of(record: Mapping[str, Any]) -> Part:
    """The part in what `Part.record` made. Raises likewise."""
    pipeline, model, version = (_name(record[name]) for name in ("pipeline", "model", "version"))
    return Part(
        pipeline,
        model,
        version,
        _count(record["partition"]),
        _count(record["window_start"]),
        judged_of(record["judged"]),
    )


def added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Counts of the same bins; of nothing there may be none."""
    return tuple(map(add, one, other)) if one and other else one or other


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError("a pipeline, model or version is no name")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return value
