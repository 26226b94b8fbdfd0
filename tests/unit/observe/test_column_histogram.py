"""A histogram of columns shows what prometheus_client's own, fed one value at a time, shows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from app.observe.column_histogram import ColumnHistogram
from app.observe.metrics import TABLE

BOUNDS = (0.00025, 0.5, 1.0, 2.5, 3600.0, 16384.0, 1234567.0)
VALUES = st.one_of(
    st.sampled_from(BOUNDS), st.floats(-10, 2e6), st.sampled_from([-0.0, float("inf"), np.nextafter(0.5, 1)])
)


def samples(registry: CollectorRegistry) -> dict[Any, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def both(bounds=BOUNDS):
    registries = CollectorRegistry(), CollectorRegistry()
    ours = ColumnHistogram("h", "doc", ("who",), bounds)
    registries[0].register(ours)
    theirs = Histogram("h", "doc", ("who",), registry=registries[1], buckets=bounds)
    return ours, theirs, registries


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(VALUES, min_size=1, max_size=20)), max_size=6))
def test_buckets_sum_and_count_are_those_of_prometheus_client(batches):
    ours, theirs, registries = both()
    for number, (who, values) in enumerate(batches):
        if number % 2:
            ours.observe((who,), values)
        else:
            for value in values:
                ours.observe_one((who,), value)
        for value in values:
            theirs.labels(who).observe(value)
    found, expected = samples(registries[0]), samples(registries[1])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value) if key[0].endswith("_sum") else value)


@pytest.mark.parametrize("spec", [spec for spec in TABLE if spec.bounds], ids=lambda spec: spec.name)
def test_the_bounds_of_every_histogram_rise_and_are_written_as_prometheus_client_writes_them(spec):
    assert list(spec.bounds) == sorted(set(spec.bounds))
    ours, theirs, registries = both(spec.bounds)
    ours.observe(("a",), spec.bounds)
    for bound in spec.bounds:
        theirs.labels("a").observe(bound)
    found, expected = samples(registries[0]), samples(registries[1])
    assert found == {key: pytest.approx(value) for key, value in expected.items()}


def test_columns_of_any_shape_and_single_numbers_are_observed():
    ours, _, registries = both()
    ours.observe(("a",), np.ones((2, 3), np.float32))
    ours.observe(("a",), 7)
    assert samples(registries[0])["h_count", (("who", "a"),)] == 7


def test_a_series_appears_with_its_first_observation():
    ours, _, registries = both()
    assert samples(registries[0]) == {}
    ours.observe(("a",), [])
    assert samples(registries[0])["h_count", (("who", "a"),)] == 0


def test_observing_does_not_keep_the_column():
    ours, _, registries = both()
    column = np.array([1.0, 2.0])
    ours.observe(("a",), column)
    column[:] = 1e6
    assert samples(registries[0])["h_sum", (("who", "a"),)] == 3.0
