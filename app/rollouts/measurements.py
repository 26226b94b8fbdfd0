"""What versions have done, out of the counters of many workers, which start again at 0 and come and go.

A counter is only ever compared with itself, of the same worker: what a worker had counted when it was first seen is
not ours; what it counts after that is, once. A worker one of whose counters fell was started again: all that it shows
was counted since. What it counted between the last look and its end is lost, never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.facts import MetricsLook, Sample
from app.rollouts.confidence import Rate

ROWS = "inference_model_rows_total"  # outcome: answered, failed, bad_output
SECONDS_SUM, SECONDS_BUCKET = "inference_model_seconds_sum", "inference_model_seconds_bucket"
PREDICTIONS = "inference_predictions_total"  # result: the predicted class
COMPARED = "inference_shadow_rows_total"  # result: agreed, disagreed; of the version beside stable
JUDGED = "inference_judged_rows_total"  # result: right, wrong; of predictions whose outcome is known
REVISION = "inference_rollout_revision"  # a gauge: the page a worker serves by
COUNTERS = frozenset({ROWS, SECONDS_SUM, SECONDS_BUCKET, PREDICTIONS, COMPARED, JUDGED})
NAMES = COUNTERS | {REVISION}

Series = tuple[str, tuple[tuple[str, str], ...]]
Totals = dict[Series, float]


class Measurements(Protocol):
    """Where the figures of one model come from. Neither method raises: what cannot be read is named in the look."""

    def now(self) -> MetricsLook:
        """What every worker shows at this moment."""
        ...

    def since(self, epoch_s: float) -> Sequence[MetricsLook]:
        """What they showed from then on, oldest first; nothing if past figures are not kept there."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What one version did.

    rows: answered, failed (by the model, or not asked because it had failed), or bad output.
    seconds: in the model, of all batches. within: upper bound in seconds → batches that took no longer.
    classes: predicted class → rows. compared, differing: rows that stable answered too, and otherwise.
    judged, right: predictions whose outcome is known, and was predicted.
    """

    answered: int = 0
    failed: int = 0
    bad_output: int = 0
    seconds: float = 0.0
    within: Mapping[float, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    compared: int = 0
    differing: int = 0
    judged: int = 0
    right: int = 0

    @property
    def rows(self) -> int:
        """All that were its to answer."""
        return self.answered + self.failed + self.bad_output

    @property
    def errors(self) -> Rate:
        """Rows it gave no usable answer to."""
        return Rate(self.failed + self.bad_output, self.rows)

    @property
    def batches(self) -> int:
        """Times it was asked."""
        return max(self.within.values(), default=0)

    @property
    def predictions(self) -> int:
        """Rows with a predicted class."""
        return sum(self.classes.values())

    def figures(self) -> dict[str, float | None]:
        """What is worth a line for machines."""
        return {
            "rows": self.rows,
            "failed": self.failed,
            "bad_output": self.bad_output,
            "batches": self.batches,
            "seconds_per_batch": self.seconds / self.batches if self.batches else None,
            "compared": self.compared,
            "differing": self.differing,
            "judged": self.judged,
            "right": self.right,
        }


class Tally:
    """Adds up looks at workers. `counts` is what happened between the first look at each worker and the last."""

    def __init__(self) -> None:
        self._seen: dict[str, Totals] = {}
        self._first: Totals = {}
        self._totals: Totals = {}

    def add(self, look: MetricsLook) -> None:
        """A worker that is not in the look is as it was; looks come in the order of time."""
        for worker, samples in look.workers.items():
            shown = _counters(samples)
            before = self._seen.get(worker)
            if before is None:
                _add(self._first, shown, {})
            elif any(shown.get(series, value) < value for series, value in before.items()):
                _add(self._totals, shown, {})
            else:
                _add(self._totals, shown, before)
            self._seen[worker] = shown

    def counts(self) -> dict[str, Counts]:
        """By version."""
        return _counts(self._totals)

    def earlier(self) -> dict[str, Counts]:
        """By version, what workers had counted before they were first seen."""
        return _counts(self._first)


def revisions(look: MetricsLook) -> dict[str, int]:
    """Worker → the oldest rollout page that any of its pipelines serves by; workers that do not say are absent."""
    found: dict[str, int] = {}
    for worker, samples in look.workers.items():
        shown = [int(value) for name, _, value in samples if name == REVISION]
        if shown:
            found[worker] = min(shown)
    return found


def _counters(samples: Sequence[Sample]) -> Totals:
    """Pipelines and other labels that do not matter here are added up."""
    totals: Totals = {}
    for name, labels, value in samples:
        if name in COUNTERS:
            named = dict(labels)
            kept = tuple((label, named[label]) for label in ("version", "outcome", "result", "le") if label in named)
            totals[name, kept] = totals.get((name, kept), 0.0) + value
    return totals


def _add(totals: Totals, shown: Totals, before: Totals) -> None:
    for series, value in shown.items():
        totals[series] = totals.get(series, 0.0) + value - before.get(series, 0.0)


def _counts(totals: Totals) -> dict[str, Counts]:
    by_version: dict[str, dict[tuple[str, str], float]] = {}
    for (name, labels), value in totals.items():
        named = dict(labels)
        last = named.get("outcome") or named.get("result") or named.get("le") or ""
        by_version.setdefault(named.get("version", ""), {})[name, last] = value
    return {version: _counts_of(figures) for version, figures in by_version.items()}


def _counts_of(figures: Mapping[tuple[str, str], float]) -> Counts:
    def count(name: str, last: str) -> int:
        return round(figures.get((name, last), 0.0))

    agreed, differing = count(COMPARED, "agreed"), count(COMPARED, "disagreed")
    right = count(JUDGED, "right")
    return Counts(
        answered=count(ROWS, "answered"),
        failed=count(ROWS, "failed"),
        bad_output=count(ROWS, "bad_output"),
        seconds=figures.get((SECONDS_SUM, ""), 0.0),
        within=_rising({float(le): value for (name, le), value in figures.items() if name == SECONDS_BUCKET}),
        classes={last: round(value) for (name, last), value in figures.items() if name == PREDICTIONS},
        compared=agreed + differing,
        differing=differing,
        judged=right + count(JUDGED, "wrong"),
        right=right,
    )


def _rising(buckets: Mapping[float, float]) -> dict[float, int]:
    """By bound, and never falling: workers of different programs may not have the same buckets."""
    rising: dict[float, int] = {}
    most = 0
    for bound in sorted(buckets):
        most = max(most, round(buckets[bound]))
        rising[bound] = most
    return rising
