"""Outputs are checked row by row, and what the prediction schema asks for is derived from them."""

import numpy as np
import pytest
from fakes import FakeModel, giving
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ModelFailed, OutputRefused, Reason, Stage
from app.pipeline.infer import PROBABILITY_SLACK, OutputPolicy, constant_answer, infer
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

INPUTS = (InputSpec(name="X", features=(NumberFeature(field="x"),)),)
ALL_BINARY = {"label": "class", "yes": "positive", "p": "probability", "sure": "confidence", "both": "probabilities"}
BINARY = ProbabilitiesOutput(name="P", classes=(0, 1), threshold=0.3, fields=ALL_BINARY)
DIGITS = ProbabilitiesOutput(
    name="P", classes=tuple(range(3)), fields={"label": "class", "sure": "confidence", "all": "probabilities"}
)


REJECT = OutputPolicy()


def answered(output, values, *, rows=None, policy=REJECT, at_fault=False):
    values = np.asarray(values)
    model = FakeModel(INPUTS, (output,), giving(P=values), at_fault=at_fault)
    rows = np.arange(len(values)) if rows is None else np.array(rows)
    return infer(model, {"X": np.zeros((len(rows), 1), np.float32)}, rows, policy)


def probabilities(*second, dtype=np.float32):
    p = np.array(second, dtype)
    return np.stack([1 - p, p], axis=1)


def test_the_threshold_is_inclusive_and_decides_every_quantity():
    answer = answered(BINARY, probabilities(0.29, 0.3, 0.9))
    assert answer.fields["label"].tolist() == [0, 1, 1]
    assert answer.fields["yes"].tolist() == [False, True, True]
    np.testing.assert_allclose(answer.fields["p"], [0.29, 0.3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(answer.fields["sure"], [0.71, 0.3, 0.9], rtol=1e-6)
    assert answer.fields["both"].shape == (3, 2)
    assert answer.results == {"0": 1, "1": 2}
    np.testing.assert_array_equal(answer.confidence, answer.fields["sure"])
    assert answer.rejected == []


def test_without_a_threshold_the_most_probable_class_wins_and_the_first_of_equals():
    plain = ProbabilitiesOutput(name="P", classes=("no", "yes"), fields={"label": "class"})
    assert answered(plain, probabilities(0.49, 0.5, 0.51)).fields["label"].tolist() == ["no", "no", "yes"]
    answer = answered(DIGITS, [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])
    assert answer.fields["label"].tolist() == [1, 0, 2]
    np.testing.assert_allclose(answer.fields["sure"], [0.5, 0.4, 0.8])
    assert answer.results == {"0": 1, "1": 1, "2": 1}


def test_string_classes_are_answered_as_strings():
    named = ProbabilitiesOutput(name="P", classes=("stays", "leaves"), threshold=0.5, fields=ALL_BINARY)
    answer = answered(named, probabilities(0.1, 0.5))
    assert answer.fields["label"].tolist() == ["stays", "leaves"]
    assert answer.results == {"stays": 1, "leaves": 1}


@pytest.mark.parametrize(
    "row",
    [
        [np.nan, 0.5], [0.5, np.nan], [np.inf, 0.0], [np.inf, -np.inf], [3e38, 3e38], [-0.1, 1.1], [0.4, 0.4],
        [0.6, 0.6], [0.0, 0.0], [1 + 2 * PROBABILITY_SLACK, 0.0],
    ],
)  # fmt: skip
def test_a_row_that_is_no_distribution_is_rejected_and_its_neighbours_are_answered(row):
    answer = answered(BINARY, np.array([[0.9, 0.1], row, [0.2, 0.8]], np.float32), rows=[4, 6, 9])
    (rejection,) = answer.rejected
    assert (rejection.row, rejection.stage, rejection.reason) == (6, Stage.OUTPUT, Reason.BAD_OUTPUT)
    assert rejection.error == "OutputInvalid"
    assert "model fake version 7 answered P=[" in rejection.message
    assert answer.rows.tolist() == [4, 9]
    assert answer.fields["label"].tolist() == [0, 1]
    assert answer.results == {"0": 1, "1": 1}
    assert len(answer.confidence) == 2


def test_rounding_is_no_fault():
    tiny = np.array([[1.0000001, -1e-7], [0.33333334, 0.6666667]], np.float32)
    assert answered(BINARY, tiny).rejected == []


def test_every_row_may_be_rejected():
    answer = answered(BINARY, np.full((3, 2), np.nan, np.float32))
    assert len(answer.rejected) == 3
    assert len(answer.rows) == 0
    assert all(len(column) == 0 for column in answer.fields.values())


@pytest.mark.parametrize("shape", [(2,), (3, 3), (2, 2), (4, 2), (3, 2, 2), (6,), (3, 1, 2), ()])
def test_an_output_of_a_wrong_shape_is_a_failure_of_the_model(shape):
    with pytest.raises(ModelFailed, match="at fault"):
        answered(BINARY, np.full(shape, 0.5), rows=[0, 1, 2], at_fault=True)


def test_rows_whose_output_has_a_wrong_shape_are_rejected():
    answer = answered(BINARY, np.full((4, 2), 0.5), rows=[0, 1, 2])
    assert_every_row_is_rejected(answer, "output 'P' has shape (4, 2), expected (1, 2)")


def assert_every_row_is_rejected(answer, message):
    assert [(item.stage, item.reason) for item in answer.rejected] == [(Stage.MODEL, Reason.MODEL_ERROR)] * 3
    assert all(message in item.message for item in answer.rejected)
    assert (len(answer.rows), answer.results) == (0, {})


def test_a_trailing_axis_of_one_is_the_same_shape():
    assert answered(BINARY, probabilities(0.1, 0.9)[:, :, None]).fields["label"].tolist() == [0, 1]


def test_an_output_that_is_not_there_is_a_failure_of_the_model():
    model = FakeModel(INPUTS, (BINARY, ValueOutput(name="V")), giving(P=probabilities(0.5)))
    answer = infer(model, {"X": np.zeros((3, 1))}, np.arange(3), REJECT)
    assert_every_row_is_rejected(answer, "did not answer with V")


class Allergic:
    """Answers with its input, and fails on a batch with any of these values; after `lives` failures for good."""

    def __init__(self, *bad, lives=10**6):
        self.bad, self.lives = bad, lives
        self.model = FakeModel(INPUTS, (ValueOutput(name="V", fields={"v": "value"}),), self)

    def __call__(self, tensors):
        values = tensors["X"][:, 0]
        if np.isin(values, self.bad).any():
            self.lives -= 1
            self.model.at_fault = self.lives <= 0
            raise ModelFailed("allergic")
        return {"V": values}

    def infer(self, values, policy=REJECT):
        return infer(self.model, {"X": np.array(values, np.float32)[:, None]}, np.arange(len(values)) * 10, policy)


def test_a_failing_batch_is_halved_until_the_bad_rows_are_alone():
    answer = Allergic(3, 6).infer(range(8))
    assert [(item.row, item.reason, item.stage) for item in answer.rejected] == [
        (30, Reason.MODEL_ERROR, Stage.MODEL),
        (60, Reason.MODEL_ERROR, Stage.MODEL),
    ]
    assert answer.rows.tolist() == [0, 10, 20, 40, 50, 70]
    assert answer.fields["v"].tolist() == [0, 1, 2, 4, 5, 7]
    assert answer.results == {"value": 6}


def test_one_bad_row_of_many_costs_twice_the_logarithm_of_their_number():
    allergic = Allergic(300)
    allergic.infer(range(512))
    assert len(allergic.model.seen) <= 2 * 10


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.sets(st.integers(0, 9)))
def test_bisection_rejects_exactly_the_rows_the_model_fails_on(values, bad):
    answer = Allergic(*bad).infer(values)
    assert [item.row for item in answer.rejected] == [10 * i for i, value in enumerate(values) if value in bad]
    assert answer.fields["v"].tolist() == [value for value in values if value not in bad]


def test_a_model_that_fails_its_golden_rows_rejects_nothing():
    with pytest.raises(ModelFailed, match="at fault"):
        Allergic(1, lives=1).infer([1, 2, 3])


def test_a_model_that_breaks_in_the_middle_of_a_bisection_rejects_nothing():
    with pytest.raises(ModelFailed, match="at fault"):
        Allergic(1, 2, 3, lives=3).infer([1, 2, 3])


def test_bad_outputs_of_a_model_at_fault_reject_nothing():
    with pytest.raises(ModelFailed, match="at fault"):
        answered(BINARY, probabilities(0.5, np.nan), at_fault=True)


def test_bad_outputs_may_stop_the_worker():
    with pytest.raises(OutputRefused, match="answered P=nan, and bad_output is stop"):
        answered(ValueOutput(name="P"), np.array([1.0, np.nan]), policy=OutputPolicy("stop"))
    assert len(answered(ValueOutput(name="P"), np.array([1.0]), policy=OutputPolicy("stop")).rows) == 1


def test_finite_values_out_of_bounds_may_be_clipped_and_the_others_are_rejected():
    spec = ValueOutput(name="P", min=0, max=10, fields={"price": "value"})
    answer = answered(spec, np.array([-5.0, 5.0, 50.0, np.nan, np.inf]), policy=OutputPolicy("clip"))
    assert answer.fields["price"].tolist() == [0, 5, 10]
    assert [item.row for item in answer.rejected] == [3, 4]
    low_only = ValueOutput(name="P", min=0, fields={"price": "value"})
    assert answered(low_only, np.array([-5.0, 1e30]), policy=OutputPolicy("clip")).fields["price"].tolist() == [0, 1e30]


def test_a_distribution_is_never_clipped():
    answer = answered(BINARY, np.array([[1.5, -0.5], [0.5, 0.5]]), policy=OutputPolicy("clip"))
    assert [item.row for item in answer.rejected] == [0]


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_values_are_bounded_inclusively_and_finite(shape):
    spec = ValueOutput(name="P", min=0, max=10, fields={"price": "value", "again": "value"})
    values = np.array([0, 10, -0.001, 10.001, np.nan, np.inf]).reshape(shape)
    answer = answered(spec, values)
    assert answer.fields["price"].tolist() == answer.fields["again"].tolist() == [0, 10]
    assert [item.row for item in answer.rejected] == [2, 3, 4, 5]
    assert (answer.results, answer.confidence) == ({"value": 2}, None)


def test_values_without_bounds_need_only_be_finite():
    answer = answered(ValueOutput(name="P"), np.array([-1e30, 1e30, -np.inf]))
    assert answer.rows.tolist() == [0, 1]


def test_a_row_that_one_output_spoils_is_answered_by_none():
    value = ValueOutput(name="V", fields={"price": "value"})
    model = FakeModel(INPUTS, (DIGITS, value), giving(P=np.eye(3), V=np.array([1.0, np.nan, 3.0])))
    answer = infer(model, {"X": np.zeros((3, 1))}, np.arange(3), REJECT)
    assert answer.fields["price"].tolist() == [1.0, 3.0]
    assert answer.fields["label"].tolist() == [0, 2]
    assert answer.results == {"0": 1, "2": 1}


def test_the_models_own_answer_is_left_as_it_was():
    given_out = {"P": probabilities(0.2, 0.9)[:, :, None]}
    infer(FakeModel(INPUTS, (BINARY,), lambda _: given_out), {"X": np.zeros((2, 1))}, np.arange(2), REJECT)
    assert given_out["P"].shape == (2, 2, 1)


CELLS = st.one_of(st.floats(0, 1), st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 2.0, 0.0, 1.0]))


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=10), st.data())
def test_every_row_is_answered_or_rejected_whoever_its_neighbours_are(cells, data):
    table = np.array(cells, np.float64).reshape(-1, 3)
    for row in range(len(table)):
        if data.draw(st.booleans()) and np.isfinite(table[row]).all() and table[row].min() >= 0 < table[row].sum():
            table[row] /= table[row].sum()
    rows = np.arange(len(table)) * 2
    answer = answered(DIGITS, table, rows=rows)
    assert sorted([*answer.rows.tolist(), *(item.row for item in answer.rejected)]) == rows.tolist()
    for row in range(len(table)):
        alone = answered(DIGITS, table[row : row + 1])
        assert bool(len(alone.rows)) == (2 * row in answer.rows)
        distribution = (
            bool(np.isfinite(table[row]).all()) and table[row].min() >= 0 and abs(table[row].sum() - 1) < 1e-9
        )
        if distribution:
            assert len(alone.rows) == 1
            assert alone.fields["label"][0] == int(np.argmax(table[row]))
    assert sum(answer.results.values()) == len(answer.rows)


def test_a_constant_answers_every_row_with_all_fields():
    values = {"label": 1, "yes": True, "p": 0.75, "sure": 0.75, "both": (0.25, 0.75)}
    answer = constant_answer((BINARY,), values, np.array([4, 6, 9]))
    assert answer.rows.tolist() == [4, 6, 9]
    assert answer.fields["both"].tolist() == [[0.25, 0.75]] * 3
    assert answer.fields["yes"].dtype == np.bool_
    assert (answer.results, answer.confidence.tolist()) == ({"1": 3}, [0.75] * 3)
    left = answer.without(np.array([True, False, False]))
    assert (left.rows.tolist(), left.results, left.fields["both"].shape) == ([6, 9], {"1": 2}, (2, 2))


def test_a_constant_of_a_regression_counts_as_value():
    answer = constant_answer((ValueOutput(name="V", fields={"price": "value"}),), {"price": 3}, np.arange(2))
    assert (answer.fields["price"].tolist(), answer.results, answer.confidence) == ([3, 3], {"value": 2}, None)
