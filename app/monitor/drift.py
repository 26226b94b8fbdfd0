"""How far the inputs of a window are from the training data, and whether chance could have done it.

A feature has drifted if both hold: a test says that chance does this with a probability below its level, and the
difference is large enough to matter. The first alone calls every difference a drift as soon as there are millions of
rows; the second alone calls chance a drift while there are few.

mean          Welch's test of the live mean against training's; matters from `least_shift` training deviations
distribution  numbers: Kolmogorov and Smirnov's test over the reference's bins, which can only make the statistic
              smaller and so the test more careful (W. J. Conover, "A Kolmogorov goodness-of-fit test for discontinuous
              distributions", JASA 67 (1972)); matters from `least_distance`. Categories: the chi-square test of
              homogeneity; matters from a PSI of `least_psi`
missing, unknown, outside (beyond the smallest and largest value of training)
              the normal test of two shares; matters from `least_share` more than in training

PSI: B. Yurdakul, J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
Validation 14 (2020); shares are smoothed by half a row per bin, so an empty bin is no infinity. The bins below and
above all training values join their neighbours: training has nothing there, and the test for `outside` is sharper.

`significance` is the chance of a false alarm per window and version; it is split evenly over features and tests. The
elements of an array are not independent of one another, so the tests count its rows. Rows that follow one another are
taken as independent: traffic that comes in bursts of alike rows has fewer than it seems, and `least_…` is what holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, kolmogorov

from app.models.manifest import CategoryReference, NumberReference, Reference
from app.monitor.summaries import FeatureTotals

TESTS = 5  # of a number: mean, distribution, missing, unknown, outside
MAX_SHIFT = 1e6  # of a mean from a training set that knew one value only

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When a difference is a drift. min_rows: below it a feature of a window is not judged."""

    min_rows: int = 500
    significance: float = 1e-5
    least_shift: float = 0.1
    least_distance: float = 0.05
    least_psi: float = 0.02
    least_share: float = 0.01


@dataclass(frozen=True, slots=True)
class Drift:
    """One feature of one window beside its reference; None where it has no such figure.

    judged: there was a reference that fits, enough rows, and no sum beyond all floats.
    by: what shows a drift; empty if nothing does.
    mean_shift: in standard deviations of the training data; 0.0 if both are constant and the same.
    """

    name: str
    rows: int
    judged: bool
    by: tuple[str, ...]
    mean: float | None
    std: float | None
    mean_shift: float | None
    psi: float | None
    ks: float | None
    missing_share: float
    unknown_share: float
    outside_share: float


def drift_of(
    features: Mapping[str, FeatureTotals], references: Mapping[str, Reference], policy: DriftPolicy
) -> tuple[Drift, ...]:
    """Every feature of a window, by the references of its version."""
    level = policy.significance / (TESTS * max(len(features), 1))
    return tuple(_drift(feature, references.get(feature.name), policy, level) for feature in features.values())


def psi(expected: FloatArray, actual: FloatArray) -> float:
    """The population stability index of two rows of counts; 0.0 if either is of nothing."""
    if not expected.sum() or not actual.sum():
        return 0.0
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (expected, actual))
    return float(((q - p) * np.log(q / p)).sum())


def ks(expected: FloatArray, actual: FloatArray) -> float:
    """The largest distance of the two distribution functions at the edges between bins; 0.0 if either is of nothing."""
    if not expected.sum() or not actual.sum():
        return 0.0
    return float(np.abs(expected.cumsum() / expected.sum() - actual.cumsum() / actual.sum()).max())


def ks_chance(distance: float, rows: int, others: int) -> float:
    """The probability of at least this distance between samples of one distribution, for large samples."""
    return float(kolmogorov(distance * sqrt(rows * others / (rows + others))))


def chi_square_chance(expected: FloatArray, actual: FloatArray) -> float:
    """The probability that two samples of one distribution differ at least so, for large samples."""
    both = expected + actual
    seen = both > 0
    if seen.sum() < 2 or not expected.sum() or not actual.sum():
        return 1.0
    both, first, second = both[seen], expected[seen], actual[seen]
    statistic = 0.0
    for counts in (first, second):
        fair = both * counts.sum() / both.sum()
        statistic += float(((counts - fair) ** 2 / fair).sum())
    return float(chdtrc(seen.sum() - 1, statistic))


def share_chance(share: float, rows: float, other: float, others: float) -> float:
    """The probability that two shares of one rate differ at least so, either way.

    One row is added to each side, so that a share of nothing is not taken for certain.
    """
    pooled = (share * rows + other * others + 1) / (rows + others + 2)
    spread = sqrt(pooled * (1 - pooled) * (1 / rows + 1 / others))
    return _two_sided((share - other) / spread) if spread else 1.0


def _drift(feature: FeatureTotals, reference: Reference | None, policy: DriftPolicy, level: float) -> Drift:
    rows, values = feature.rows, feature.values
    missing, unknown = (feature.missing / rows, feature.unknown / rows) if rows else (0.0, 0.0)
    numeric = feature.kind != "category"
    mean = feature.sum / values if numeric and values and not feature.overflowed else None
    variance = max(feature.sum_squares / values - mean * mean, 0.0) if mean is not None else 0.0
    if isinstance(reference, NumberReference) and numeric and len(feature.counts) == len(reference.counts) + 2:
        return _number(feature, reference, policy, level, (mean, variance), (missing, unknown))
    if isinstance(reference, CategoryReference) and not numeric and len(feature.counts) == len(reference.counts):
        return _category(feature, reference, policy, level, (missing, unknown))
    std = sqrt(variance) if mean is not None else None
    return Drift(feature.name, rows, False, (), mean, std, None, None, None, missing, unknown, 0.0)  # noqa: FBT003


def _number(
    feature: FeatureTotals,
    reference: NumberReference,
    policy: DriftPolicy,
    level: float,
    moments: tuple[float | None, float],
    shares: tuple[float, float],
) -> Drift:
    mean, variance = moments
    missing, unknown = shares
    live = np.array(feature.counts, np.float64)
    trained = np.array(reference.counts, np.float64)
    outside = float(live[0] + live[-1]) / feature.values if feature.values else 0.0
    inner = live[1:-1].copy()
    inner[0] += live[0]
    inner[-1] += live[-1]
    distance, index = ks(trained, inner), psi(trained, inner)
    shift = _shift(mean, reference)
    present = min(feature.values, feature.rows)
    others = int(trained.sum() * present / feature.values) if feature.values else int(trained.sum())
    judged = feature.rows >= policy.min_rows and others >= policy.min_rows and not feature.overflowed
    by: list[str] = []
    if judged and present >= policy.min_rows and mean is not None:
        if abs(shift) >= policy.least_shift and _mean_chance(mean, variance, present, reference, others) < level:
            by.append("mean")
        if distance >= policy.least_distance and ks_chance(distance, present, others) < level:
            by.append("distribution")
        if outside >= policy.least_share and share_chance(outside, present, 0.0, others) < level:
            by.append("outside")
    if judged:
        by += _by_shares(feature.rows, missing, unknown, reference.missing, others, policy, level)
    std = sqrt(variance) if mean is not None else None
    shown = None if mean is None else shift
    return Drift(feature.name, feature.rows, judged, tuple(by), mean, std, shown, index, distance, missing, unknown,
                 outside)  # fmt: skip


def _category(
    feature: FeatureTotals, reference: CategoryReference, policy: DriftPolicy, level: float, shares: tuple[float, float]
) -> Drift:
    missing, unknown = shares
    live = np.array(feature.counts, np.float64)
    trained = np.array(list(reference.counts.values()), np.float64)
    index = psi(trained, live)
    others = int(trained.sum())
    judged = feature.rows >= policy.min_rows and others >= policy.min_rows
    by: list[str] = []
    if judged:
        if feature.values >= policy.min_rows and index >= policy.least_psi and chi_square_chance(trained, live) < level:
            by.append("distribution")
        by += _by_shares(feature.rows, missing, unknown, reference.missing, others, policy, level)
    return Drift(feature.name, feature.rows, judged, tuple(by), None, None, None, index, None, missing, unknown, 0.0)


def _by_shares(
    rows: int, missing: float, unknown: float, trained_missing: float, others: int, policy: DriftPolicy, level: float
) -> list[str]:
    """More missing or unknown values than training had; it had no unknown ones."""
    by = []
    for name, share, trained in (("missing", missing, trained_missing), ("unknown", unknown, 0.0)):
        if share - trained >= policy.least_share and share_chance(share, rows, trained, others) < level:
            by.append(name)
    return by


def _shift(mean: float | None, reference: NumberReference) -> float:
    if mean is None:
        return 0.0
    difference = mean - reference.mean
    if reference.std > 0:
        return difference / reference.std
    # training knew one value only: another one is as far away as anything can be told
    return 0.0 if abs(difference) <= 1e-9 * max(1.0, abs(reference.mean)) else MAX_SHIFT * (1 if difference > 0 else -1)


def _mean_chance(mean: float, variance: float, rows: int, reference: NumberReference, others: int) -> float:
    spread = sqrt(variance / rows + reference.std**2 / others)
    if not spread:
        return 0.0 if mean != reference.mean else 1.0
    return _two_sided((mean - reference.mean) / spread)


def _two_sided(deviations: float) -> float:
    return erfc(abs(deviations) / sqrt(2.0))
