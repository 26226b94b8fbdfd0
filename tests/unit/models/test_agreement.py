"""Comparing what two versions say: the largest difference, and how often they decide alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.errors import BadSettings
from app.models.agreement import accuracy, agreement
from app.specs import ProbabilitiesOutput, ValueOutput

THREE = ProbabilitiesOutput(name="p", classes=("a", "b", "c"))
GUARDED = ProbabilitiesOutput(name="p", classes=("no", "yes"), threshold=0.8)
NUMBER = ValueOutput(name="v")
ANSWERS = arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(0, 1, width=32))


@given(ANSWERS)
def test_a_model_agrees_with_itself(answers):
    found = agreement((THREE,), {"p": answers}, {"p": answers})
    assert (found.rows, found.max_difference, found.same_class) == (len(answers), 0, 1)


@given(ANSWERS, st.floats(0, 1), st.data())
def test_the_largest_difference_is_found_and_is_the_same_both_ways(answers, by, data):
    row = data.draw(st.integers(0, len(answers) - 1))
    other = answers.astype(np.float64)
    other[row, 1] += by
    there, back = (agreement((THREE,), {"p": one}, {"p": two}) for one, two in ((answers, other), (other, answers)))
    assert there == back
    assert there.max_difference == pytest.approx(by)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_differs_from_everything(value):
    found = agreement((NUMBER,), {"v": np.array([1.0, value])}, {"v": np.array([1.0, value])})
    assert (found.max_difference, found.row) == (np.inf, 1)


def test_a_class_is_decided_as_the_output_step_decides_it():
    one, other = np.array([[0.3, 0.7], [0.1, 0.9]]), np.array([[0.1, 0.9], [0.1, 0.9]])
    assert agreement((GUARDED,), {"p": one}, {"p": other}).same_class == 0.5


def test_numbers_have_no_class_to_differ_in():
    assert agreement((NUMBER,), {"v": np.zeros((2, 1))}, {"v": np.ones(2)}).same_class == 1


def test_accuracy_counts_the_rows_whose_class_is_their_label():
    answers = np.array([[0.3, 0.7], [0.1, 0.9], [0.9, 0.1]])
    assert accuracy(GUARDED, answers, np.array(["no", "yes", "yes"])) == pytest.approx(2 / 3)


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(BadSettings, match="the label 'maybe' is none of the classes of 'p'"):
        accuracy(GUARDED, np.array([[0.3, 0.7]]), np.array(["maybe"]))
