"""Replies of several versions as columns with one entry for every row, whoever answered it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_pipeline import model_of

from app.answering.answers import AnsweredBy, Answers, answers_of, joined
from app.answering.asking import Reply
from app.answering.parts import Part
from app.errors import Reason, Stage
from app.pipeline.encode.predictions import Answerer
from app.pipeline.infer import Inference
from app.records import Rejection
from app.specs import ProbabilitiesOutput, ValueOutput


class Lane:
    """As much of a lane as an answer needs."""

    def __init__(self, outputs, version="7", part="stable"):
        model = model_of(version)
        model.outputs = outputs
        self.answerer = Answerer(model, part, 4)


def reply(rows, fields, outputs, *, rejected=(), version="7", part="stable", **inference):
    rows = np.array(rows, np.int64)
    lane = Lane(outputs, version, part)
    given = Inference({name: np.array(column) for name, column in fields.items()}, rows, list(rejected), **inference)
    return Reply(Part(lane, None, {}, rows, [], 0, rows), lane, given, ())


def refused(row):
    return Rejection(row, Stage.MODEL, Reason.MODEL_ERROR, "ModelFailed", "not this one")


CLASSES = (ProbabilitiesOutput(name="p", classes=("no", "yes")),)


def test_rows_of_several_versions_are_put_where_they_were_asked():
    answers = answers_of(
        [
            reply([0, 2], {"prediction": ["no", "yes"], "confidence": [0.9, 0.8]}, CLASSES, rejected=[refused(3)],
                  confidence=np.array([0.9, 0.8]), probabilities=np.array([[0.9, 0.1], [0.2, 0.8]])),
            reply([1], {"prediction": ["yes"], "confidence": [0.7]}, CLASSES, version="8", part="canary",
                  confidence=np.array([0.7]), probabilities=np.array([[0.1, 0.7, 0.2]])),
        ],
        4,
    )  # fmt: skip
    assert answers.predictions[:3].tolist() == ["no", "yes", "yes"]
    np.testing.assert_array_equal(answers.probabilities[0], [0.9, 0.1, np.nan])
    assert answers.confidence[:3].tolist() == [0.9, 0.7, 0.8]
    assert [answers.source_of(row) for row in range(4)] == [
        AnsweredBy("churn", "7", "stable", 4),
        AnsweredBy("churn", "8", "canary", 4),
        AnsweredBy("churn", "7", "stable", 4),
        AnsweredBy("churn", "7", "stable", 4),
    ]
    assert answers.rejected == {3: refused(3)}
    assert [answers.of_row(row)[0].tolist() for row in range(3)] == [[0.9, 0.1], [0.1, 0.7, 0.2], [0.2, 0.8]]
    np.testing.assert_array_equal(answers.between(2, 4).probabilities, [[0.2, 0.8], [np.nan, np.nan]])
    assert answers.between(0, 2).probabilities.shape == (2, 3)


def test_rows_without_probabilities_have_none_of_their_own_beside_rows_that_have_them():
    answers = answers_of(
        [
            reply([0], {"prediction": ["no"]}, CLASSES, confidence=np.array([0.9]),
                  probabilities=np.array([[0.9, 0.1]])),
            reply([1], {"prediction": ["yes"]}, CLASSES, part="fallback"),
        ],
        2,
    )  # fmt: skip
    assert answers.of_row(1) == (None, None)
    alone = answers.between(1, 2)
    assert (alone.probabilities, alone.confidence) == (None, None)
    assert answers.between(0, 1).confidence.tolist() == [0.9]


@pytest.mark.parametrize(
    ("outputs", "fields", "more", "predicted"),
    [
        ((ValueOutput(name="v"),), {"value": [1.5]}, {}, [1.5]),
        (CLASSES, {"prediction": ["yes"], "confidence": [1.0]}, {}, ["yes"]),
        (
            (ProbabilitiesOutput(name="p", classes=("no", "yes"), fields={"p": "probability"}),),
            {"p": [0.7]},
            {"classes": ("no", "yes"), "winner": np.array([1])},
            ["yes"],
        ),
        (
            (ProbabilitiesOutput(name="p", classes=("no", "yes"), fields={"churns": "positive"}),),
            {"churns": [True]},
            {},
            ["yes"],
        ),
    ],
    ids=["value", "class", "winner", "positive"],
)
def test_what_was_predicted_is_the_class_or_the_value(outputs, fields, more, predicted):
    assert answers_of([reply([0], fields, outputs, **more)], 1).predictions.tolist() == predicted


SOURCES = tuple(AnsweredBy("churn", version, "stable", 1) for version in "78")


@st.composite
def answers(draw):
    n = draw(st.integers(1, 5))
    bad = draw(st.sets(st.integers(0, n - 1)))
    return Answers(
        np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
        np.arange(2.0 * n).reshape(n, 2),
        np.arange(float(n)),
        np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))),
        draw(st.permutations(SOURCES).map(tuple)),
        {row: refused(row) for row in sorted(bad)},
    )


@given(st.lists(answers(), min_size=1, max_size=4))
def test_what_is_joined_and_taken_apart_again_is_the_same(parts):
    whole, at = joined(parts), 0
    assert len(whole) == sum(map(len, parts))
    for part in parts:
        again = whole.between(at, at + len(part))
        at += len(part)
        assert {row: (why.row, why.message) for row, why in again.rejected.items()} == {
            row: (row, why.message) for row, why in part.rejected.items()
        }
        for row in range(len(part)):
            assert again.source_of(row) == part.source_of(row)
            if row not in part.rejected:
                assert again.predictions[row] == part.predictions[row]
                assert again.confidence[row] == part.confidence[row]
                np.testing.assert_array_equal(again.probabilities[row], part.probabilities[row])
