"""A number of 32 bits is the decimal that somebody wrote, where seven digits say which."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.answering.meant import as_meant

FLOATS32 = arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32))


@given(FLOATS32)
def test_a_number_stays_the_float32_that_it_came_as(features):
    np.testing.assert_array_equal(as_meant(features).astype(np.float32), features)


@given(st.integers(-999_999, 999_999), st.integers(-12, 12))
def test_a_decimal_of_six_digits_is_the_number_that_the_client_wrote(digits, exponent):
    written = float(f"{digits}e{exponent}")
    assert as_meant(np.array([written], np.float32))[0] == written


def test_numbers_of_64_bits_are_what_they_are():
    numbers = np.array([0.1, 0.10000000149011612, np.nan])
    np.testing.assert_array_equal(as_meant(numbers), numbers)
