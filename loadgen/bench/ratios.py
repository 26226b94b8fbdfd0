"""Medians, and ratios of what was measured in the same round with their 95 % interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, two-sided 95 %, by degrees of freedom from 1 on; beyond the table the normal value is close enough.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
T_95_MANY = 1.96


@dataclass(frozen=True, slots=True)
class Ratio:
    """The geometric mean of some paired ratios. low, high: its 95 % interval; None if there was one pair."""

    middle: float
    low: float | None
    high: float | None
    pairs: int


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Of the first to the second of each pair; both positive, at least one pair.

    Ratios are compared by their logarithms, so that a/b and b/a say the same; the interval is Student's.
    """
    logs = [math.log(first / second) for first, second in pairs]
    middle = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(middle), None, None, 1)
    freedom = len(logs) - 1
    t = T_95[freedom - 1] if freedom <= len(T_95) else T_95_MANY
    reach = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(logs))
