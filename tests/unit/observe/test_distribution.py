"""Percentiles from buckets lie where the exact ones lie: within the same bucket."""

import math
from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.observe.column_histogram import ColumnHistogram
from app.observe.distribution import Distribution, of_cumulative
from app.observe.metrics import TABLE

LATENCY = next(spec.bounds for spec in TABLE if spec.name == "inference_end_to_end_latency_seconds")
VALUES = st.lists(st.floats(0, 5_000, allow_nan=False), min_size=1, max_size=200)
SHARES = st.floats(0.0, 1.0)
BOUNDS = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=12, unique=True).map(sorted).map(tuple)


def spread_of(values, bounds=LATENCY):
    """As it comes out of a histogram that observed these."""
    histogram = ColumnHistogram("h", "of a test", (), bounds)
    histogram.observe((), values)
    (family,) = histogram.collect()
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name == "h_bucket"]
    return of_cumulative(buckets, sum(values))


def exact(values, share):
    """By nearest rank."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@given(VALUES, SHARES, BOUNDS)
@example([0.0, 0.0, 0.0], 1.0, (1365.694942283983,))  # three thirds of it are more than it is
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(values, share, bounds):
    found, wanted = spread_of(values, bounds).quantile(share), exact(values, share)

    bucket = bisect_left(bounds, wanted)
    low = bounds[bucket - 1] if bucket else 0.0
    high = bounds[bucket] if bucket < len(bounds) else math.inf
    assert low <= found <= high
    assert math.isinf(found) == math.isinf(high)


@given(VALUES, st.lists(SHARES, min_size=2, max_size=5).map(sorted))
def test_quantiles_rise_with_their_share(values, shares):
    spread = spread_of(values)
    found = [spread.quantile(share) for share in shares]
    assert found == sorted(found)


@given(VALUES, VALUES)
def test_what_came_since_is_spread_as_if_nothing_had_been_before(before, after):
    since = spread_of(before + after).since(spread_of(before))

    assert since.counts == spread_of(after).counts
    assert since.total == pytest.approx(sum(after), abs=1e-6 * (sum(before) + 1))


@given(VALUES)
def test_the_mean_is_exact(values):
    assert spread_of(values).mean == pytest.approx(sum(values) / len(values))


def test_of_nothing_there_is_no_quantile_and_no_mean():
    nothing = Distribution((1.0, math.inf), (0.0, 0.0), 0.0)
    assert nothing.quantile(0.5) is None
    assert nothing.mean is None


def test_a_value_past_the_last_bound_is_not_made_up():
    assert spread_of([5_000.0]).quantile(0.5) == math.inf
    assert spread_of([5_000.0]).largest_bound == 3600


def test_counts_that_fell_are_nothing_new():
    assert spread_of([1.0]).since(spread_of([1.0, 1.0, 2.0])).count == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.randoms())
def test_buckets_may_come_in_any_order(counts, order):
    buckets = [(float(bound), float(many)) for bound, many in enumerate(accumulate(counts))]
    shuffled = list(buckets)
    order.shuffle(shuffled)
    assert of_cumulative(shuffled, 0.0) == of_cumulative(buckets, 0.0)
    assert of_cumulative(shuffled, 0.0).counts == tuple(map(float, counts))
