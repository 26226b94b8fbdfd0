"""The same class, and how far apart the numbers are, whatever two versions tell of themselves."""

import numpy as np
import pytest
from fakes import FakeModel
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SchemaIncompatible
from app.pipeline.infer import Inference, OutputPolicy, infer
from app.specs import ProbabilitiesOutput, ValueOutput
from app.worker.side_by_side import Answer, answer_of, compare

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def binary(shares, labels=("0", "1")):
    second = np.array(shares)
    return Answer(np.stack([1 - second, second], axis=1), labels, (second >= 0.5).astype(np.int64))


@given(SHARES)
def test_an_answer_agrees_with_itself(shares):
    found = compare(binary(shares), binary(shares))
    assert found.agreed.all()
    assert (found.mean == 0).all()
    assert (found.most == 0).all()


@given(SHARES, st.randoms(use_true_random=False))
def test_it_does_not_matter_who_is_asked_first(shares, random):
    others = [random.random() for _ in shares]
    one, other = compare(binary(shares), binary(others)), compare(binary(others), binary(shares))
    assert one.agreed.tolist() == other.agreed.tolist()
    assert one.most.tolist() == other.most.tolist()
    assert one.most.tolist() == pytest.approx(np.abs(np.array(shares) - others).tolist())
    assert (one.mean <= one.most + 1e-12).all()


def test_classes_are_compared_by_their_labels_not_by_their_places():
    stable = Answer(np.array([[0.9, 0.1]]), ("cat", "dog"), np.array([0]))
    candidate = Answer(np.array([[0.2, 0.7, 0.1]]), ("dog", "cat", "owl"), np.array([1]))
    found = compare(stable, candidate)
    assert found.agreed.tolist() == [True]
    assert found.most.tolist() == [pytest.approx(0.2)]
    assert found.mean.tolist() == [pytest.approx((0.2 + 0.1 + 0.1) / 3)]


def test_a_version_that_tells_its_confidence_only_is_compared_by_that():
    stable = Answer(np.array([[0.9], [0.6]]), ("0", "1"), np.array([0, 1]))
    found = compare(stable, binary([0.2, 0.7]))
    assert found.agreed.tolist() == [True, True]
    assert found.most.tolist() == pytest.approx([0.1, 0.1])


def test_values_agree_within_one_per_cent():
    found = compare(Answer(np.array([[100.0], [100.0], [0.0]])), Answer(np.array([[100.9], [102.0], [0.0]])))
    assert found.agreed.tolist() == [True, False, True]
    assert found.most.tolist() == pytest.approx([0.9, 2.0, 0.0])


@pytest.mark.parametrize("other", [binary([0.5]), Answer(np.array([[1.0, 2.0]]))])
def test_what_has_nothing_in_common_is_told_by_name(other):
    with pytest.raises(SchemaIncompatible, match="nothing to be compared"):
        compare(Answer(np.array([[1.0]])), other)


def answered(fields, probabilities, classes=(0, 1)):
    output = ProbabilitiesOutput(name="P", classes=classes, fields=fields)
    model = FakeModel((), (output,), lambda _: {"P": np.array(probabilities, np.float32)}, name="m", version="1")
    rows = np.arange(len(probabilities))
    return answer_of(infer(model, {"X": rows}, rows, OutputPolicy()), (output,))


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"all": "probabilities", "label": "class"}, 2),
        ({"p": "probability", "label": "class"}, 2),
        ({"label": "class", "c": "confidence"}, 1),
        ({"label": "class"}, 1),
    ],
)
def test_an_answer_is_as_much_as_the_prediction_fields_tell(fields, width):
    answer = answered(fields, [[0.25, 0.75], [1.0, 0.0]])
    assert answer.classes().tolist() == ["1", "0"]
    assert answer.numbers.shape == (2, width)
    assert answer.numbers.max(axis=1).tolist() == [0.75, 1.0]


def test_a_regression_has_values_and_no_class():
    outputs = (ValueOutput(name="v", fields={"price": "value"}), ValueOutput(name="w", fields={"cost": "value"}))
    model = FakeModel((), outputs, lambda _: {"v": np.ones(3), "w": np.zeros((3, 1))}, name="m", version="1")
    answer = answer_of(infer(model, {"X": np.zeros(3)}, np.arange(3), OutputPolicy()), outputs)
    assert answer.classes() is None
    assert answer.numbers.tolist() == [[1.0, 0.0]] * 3


def test_predictions_with_nothing_to_compare_are_told_by_name():
    output = ProbabilitiesOutput(name="P", classes=(0, 1), fields={"label": "class"})
    with pytest.raises(SchemaIncompatible, match="neither a class nor a value"):
        answer_of(Inference({"mood": np.zeros(1)}, np.arange(1), []), (output,))
