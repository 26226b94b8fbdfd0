"""Reference statistics: what drift is measured against says what the training rows were."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.manifest import CategoryReference, NumberReference
from app.specs import InputSpec, NumberFeature, OneHotFeature, TensorFeature
from app.train.reference import reference_of


def reference(feature, column):
    table = pa.RecordBatch.from_arrays([column], [feature.field])
    return reference_of(table, (InputSpec(name="X", features=(feature,)),))[feature.field]


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1).filter(lambda x: set(x) != {None}))
def test_every_value_present_is_counted_in_exactly_one_bin(values):
    found = reference(NumberFeature(field="x"), pa.array(values, pa.float64()))
    present = [value for value in values if value is not None]
    assert isinstance(found, NumberReference)
    assert sum(found.counts) == len(present)
    assert found.bins[0] == min(present)
    assert found.bins[-1] >= max(present)
    assert found.mean == pytest.approx(np.mean(present))
    assert found.std == pytest.approx(np.std(present))
    assert found.missing == pytest.approx(values.count(None) / len(values))


def test_bins_of_a_smooth_number_weigh_the_same():
    found = reference(NumberFeature(field="x"), pa.array(np.random.default_rng(1).normal(size=20_000)))
    assert set(found.counts) == {1000}


def test_categories_are_counted_those_never_seen_too():
    feature = OneHotFeature(field="plan", categories=("basic", "standard", "premium"))
    for column in (pa.array(["basic", "basic", None, "premium"]),):
        for form in (column, column.dictionary_encode()):
            assert reference(feature, form) == CategoryReference(
                counts={"basic": 2, "standard": 0, "premium": 1}, missing=0.25
            )


def test_an_array_is_described_by_all_its_elements():
    found = reference(TensorFeature(field="x", length=2), pa.array([[0.0, 4.0], [2.0, 2.0]]))
    assert (found.mean, sum(found.counts)) == (2, 4)
