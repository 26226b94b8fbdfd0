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
COMPARED = "inference_shadow_rows_total"  # result: agreed, disagreed, failed, dropped; of a shadow
SHADOW_SECONDS_SUM, SHADOW_SECONDS_BUCKET = "inference_shadow_seconds_sum", "inference_shadow_seconds_bucket"
SHADOW_ERRORS = "inference_shadow_errors_total"  # error: what became of its processes
JUDGED = "inference_judged_rows_total"  # result: right, wrong; of predictions whose outcome is known
UNUSABLE = "inference_rollout_errors_total"  # error: why a worker could not use a version
REVISION = "inference_rollout_revision"  # a gauge: the page a worker serves by
COUNTERS = frozenset(
    {ROWS, SECONDS_SUM, SECONDS_BUCKET, PREDICTIONS, JUDGED}
    | {COMPARED, SHADOW_SECONDS_SUM, SHADOW_SECONDS_BUCKET, SHADOW_ERRORS, UNUSABLE}
)
NAMES = COUNTERS | {REVISION}
LABELS = ("version", "outcome", "result", "le", "error")  # what tells series apart here
TROUBLE = frozenset({UNUSABLE, SHADOW_ERRORS})
GIVEN_UP = "ShadowGivenUp"

Series = tuple[str, tuple[tuple[str, str], ...]]
Totals = dict[Series, float]
Figures = dict[tuple[str, str], float]  # of one version: a metric and what tells its series apart, beside the version


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

    rows: answered, failed (by the model, or not asked because it had failed), or bad output. Of a shadow those that
    were compared are answered, and those without a usable answer failed, for whatever reason.
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


@dataclass(frozen=True, slots=True)
class Unusable:
    """A version that a worker failed to use, anew in so many looks at that worker. error: why, by name.

    given_up: it was a shadow there, and is not started again.
    """

    worker: str
    error: str
    looks: int
    given_up: bool = False

    @property
    def weight(self) -> tuple[bool, int]:
        """By which one worker's trouble is worse than another's."""
        return self.given_up, self.looks


class Tally:
    """Adds up looks at workers. What it gives happened between the first look at each worker and the last."""

    def __init__(self) -> None:
        self._seen: dict[str, Totals] = {}  # worker → its last look
        self._known: dict[str, Totals] = {}  # and where series were when they were seen last
        self._first: Totals = {}
        self._totals: Totals = {}
        self._trouble: dict[str, Totals] = {}  # worker → looks in which it had counted an error anew

    def add(self, look: MetricsLook) -> None:
        """A worker that is not in the look is as it was; looks come in the order of time."""
        for worker, samples in look.workers.items():
            shown = _counters(samples)
            before = self._seen.get(worker)
            self._seen[worker] = shown
            if before is None:
                _add(self._first, shown, {})
                self._known[worker] = shown
                continue
            known = self._known[worker]
            if any(shown.get(series, value) < value for series, value in before.items()):
                known = {}
            # a series that was missing for a while goes on where it was, or alone began again
            known = {series: value for series, value in known.items() if shown.get(series, value) >= value}
            _add(self._totals, shown, known)
            anew = {s: 1.0 for s, value in shown.items() if s[0] in TROUBLE and value > known.get(s, 0.0)}
            _add(self._trouble.setdefault(worker, {}), anew, {})
            self._known[worker] = known | shown

    def counts(self) -> dict[str, Counts]:
        """By version, of what it was to answer."""
        return {version: _counts_of(figures) for version, figures in _by_version(self._totals).items()}

    def shadows(self) -> dict[str, Counts]:
        """By version, of what it was asked as a shadow."""
        return {version: _shadow_of(figures) for version, figures in _by_version(self._totals).items()}

    def unusable(self) -> dict[str, Unusable]:
        """By version, the worker that failed longest to use it; versions that all could use are absent."""
        found: dict[str, Unusable] = {}
        for worker, totals in sorted(self._trouble.items()):
            for version, figures in _by_version(totals).items():
                one = _unusable_of(worker, figures)
                if one is not None and one.weight > (found[version].weight if version in found else (False, 0)):
                    found[version] = one
        return found

    def earlier(self) -> dict[str, Counts]:
        """By version, what workers had counted before they were first seen."""
        return {version: _counts_of(figures) for version, figures in _by_version(self._first).items()}


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
            kept = tuple((label, named[label]) for label in LABELS if label in named)
            totals[name, kept] = totals.get((name, kept), 0.0) + value
    return totals


def _add(totals: Totals, shown: Totals, before: Totals) -> None:
    for series, value in shown.items():
        totals[series] = totals.get(series, 0.0) + value - before.get(series, 0.0)


def _by_version(totals: Totals) -> dict[str, Figures]:
    by_version: dict[str, Figures] = {}
    for (name, labels), value in totals.items():
        named = dict(labels)
        last = next((named[label] for label in LABELS[1:] if named.get(label)), "")
        by_version.setdefault(named.get("version", ""), {})[name, last] = value
    return by_version


def _counts_of(figures: Figures) -> Counts:
    right, wrong = _count(figures, JUDGED, "right"), _count(figures, JUDGED, "wrong")
    return Counts(
        answered=_count(figures, ROWS, "answered"),
        failed=_count(figures, ROWS, "failed"),
        bad_output=_count(figures, ROWS, "bad_output"),
        seconds=figures.get((SECONDS_SUM, ""), 0.0),
        within=_rising(figures, SECONDS_BUCKET),
        classes={last: round(value) for (name, last), value in figures.items() if name == PREDICTIONS},
        judged=right + wrong,
        right=right,
    )


def _shadow_of(figures: Figures) -> Counts:
    agreed, differing = _count(figures, COMPARED, "agreed"), _count(figures, COMPARED, "disagreed")
    right, wrong = _count(figures, JUDGED, "right"), _count(figures, JUDGED, "wrong")
    return Counts(
        answered=agreed + differing,
        failed=_count(figures, COMPARED, "failed"),
        seconds=figures.get((SHADOW_SECONDS_SUM, ""), 0.0),
        within=_rising(figures, SHADOW_SECONDS_BUCKET),
        compared=agreed + differing,
        differing=differing,
        judged=right + wrong,
        right=right,
    )


def _unusable_of(worker: str, figures: Figures) -> Unusable | None:
    """None if the worker had no trouble with this version, or as a shadow's it is over by itself."""
    looks = {error: round(value) for (name, error), value in figures.items() if name == UNUSABLE and value}
    if looks:
        return Unusable(worker, " and ".join(sorted(looks)), max(looks.values()))
    if not _count(figures, SHADOW_ERRORS, GIVEN_UP):
        return None
    lost = {error for (name, error), value in figures.items() if name == SHADOW_ERRORS and value} - {GIVEN_UP}
    return Unusable(worker, " and ".join(sorted(lost)) or GIVEN_UP, 1, given_up=True)


def _count(figures: Figures, name: str, last: str) -> int:
    return round(figures.get((name, last), 0.0))


def _rising(figures: Figures, name: str) -> dict[float, int]:
    """Buckets by bound, and never falling: workers of different programs may not have the same ones."""
    buckets = {float(le): value for (series, le), value in figures.items() if series == name}
    rising: dict[float, int] = {}
    most = 0
    for bound in sorted(buckets):
        most = max(most, round(buckets[bound]))
        rising[bound] = most
    return rising
