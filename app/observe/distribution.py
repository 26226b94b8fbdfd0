"""How values are spread, as far as a histogram's buckets tell: what lies within one bucket is not told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """bounds: inclusive upper bounds, ascending, the last one infinite. counts: of each bucket, not cumulative.

    total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        """How many values."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """None of nothing."""
        count = self.count
        return self.total / count if count else None

    @property
    def largest_bound(self) -> float:
        """What is larger is known to be larger, and no more."""
        return self.bounds[-2] if len(self.bounds) > 1 else 0.0

    def since(self, before: "Distribution | None") -> "Distribution":
        """What came since then. A count that fell, because its process is gone, is nothing new."""
        if before is None or before.bounds != self.bounds:
            return self
        counts = tuple(max(0.0, now - then) for now, then in zip(self.counts, before.counts, strict=True))
        return Distribution(self.bounds, counts, max(0.0, self.total - before.total))

    def quantile(self, share: float) -> float | None:
        """The value that this share (0 to 1) of all is not above; None of nothing, infinity past the last bound.

        By rank: the exact value is the ceil(share * n)-th smallest. This lies in the same bucket as that one,
        where its rank puts it if the bucket's values are spread evenly, as in Prometheus' histogram_quantile.
        """
        count = self.count
        if not count:
            return None
        rank = max(1.0, math.ceil(share * count))
        below, low = 0.0, 0.0
        for bound, many in zip(self.bounds, self.counts, strict=True):
            if many and below + many >= rank:
                if math.isinf(bound):
                    return bound
                return min(bound, low + (bound - low) * (rank - below) / many)  # rounded, it may be just above
            below, low = below + many, bound
        return math.inf


def of_cumulative(buckets: Sequence[tuple[float, float]], total: float) -> Distribution:
    """From the buckets that are exposed, (bound, how many are not above it), in any order."""
    ordered = sorted(buckets)
    counts, before = [], 0.0
    for _, cumulative in ordered:
        counts.append(max(0.0, cumulative - before))
        before = cumulative
    return Distribution(tuple(bound for bound, _ in ordered), tuple(counts), total)
