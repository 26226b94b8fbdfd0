"""The sample is a function of the key and of the share alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kafka.sample import sample_of, sampled_rows
from app.records import predictions_of

keys = st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=40)
shares = st.floats(0, 1, exclude_min=True)


@given(keys, keys, shares)
def test_a_key_is_in_the_sample_whatever_its_company(one, other, share):
    def chosen(some):
        return {some[row] for row in sampled_rows(some, share).tolist()}

    both = chosen(one + other)
    assert both == chosen(one) | chosen(other)
    assert None not in both


@given(keys, shares, shares)
def test_a_larger_share_has_the_keys_of_a_smaller_one(some, first, second):
    small, large = sorted((first, second))
    assert set(sampled_rows(some, small).tolist()) <= set(sampled_rows(some, large).tolist())


@given(keys)
def test_the_whole_has_every_record_with_a_key(some):
    assert sampled_rows(some, 1.0).tolist() == [row for row, key in enumerate(some) if key is not None]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_what_was_asked_for(share):
    count = 100_000
    found = len(sampled_rows([str(number).encode() for number in range(count)], share))
    assert found == pytest.approx(share * count, abs=4 * np.sqrt(count * share * (1 - share)))


def test_the_keys_are_the_same_in_every_version_of_this_program():
    some = [b"c-%d" % number for number in range(20)]
    assert sampled_rows(some, 0.25).tolist() == [7, 11, 13]


def test_a_sample_has_the_predictions_as_they_are():
    values, some = [b"a", b"bb", b"ccc"], [b"1", None, b"3"]
    sample = sample_of(predictions_of(values, some, np.array([4, 5, 6])), 1.0, 100)
    assert (sample.values, sample.keys) == ([b"a", b"ccc"], [b"1", b"3"])
    assert (sample.partitions.tolist(), sample.sizes.tolist()) == ([4, 6], [2, 4])


def test_what_the_sample_topic_does_not_take_is_left_out():
    predictions = predictions_of([b"a", b"bb"], [b"1", b"2"], np.array([0, 0]))
    assert sample_of(predictions, 1.0, 2).values == [b"a"]
    assert sample_of(predictions, 1.0, 3) is predictions
