"""A constant answer is one that the model's outputs could have given, checked where the manifest is read."""

import json

import pytest
from pydantic import ValidationError

from app.models.manifest import Golden, ModelCard
from app.specs import FallbackAnswer, InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

EVERYTHING = {"label": "class", "yes": "positive", "p": "probability", "sure": "confidence", "both": "probabilities"}
BINARY = ProbabilitiesOutput(name="P", classes=("no", "yes"), fields=EVERYTHING)
PRICE = ValueOutput(name="V", min=0, max=10, fields={"price": "value"})
GOOD = {"label": "no", "yes": False, "p": 0.25, "sure": 0.75, "both": [0.75, 0.25], "price": 3}


def card(fields):
    return ModelCard.model_validate_json(
        json.dumps(
            {
                "data": "by hand",
                "event_schema": "Event",
                "prediction_schema": "Prediction",
                "inputs": [InputSpec(name="X", features=(NumberFeature(field="x"),)).model_dump()],
                "outputs": [BINARY.model_dump(), PRICE.model_dump()],
                "golden": Golden(inputs={"X": ((0,),)}, outputs={"P": ((1, 0),), "V": ((1,),)}).model_dump(),
                "fallback": {"fields": fields},
            }
        )
    )


def test_a_fitting_answer_keeps_its_types():
    fallback = card(GOOD).fallback
    assert fallback.fields == GOOD | {"both": (0.75, 0.25)}
    assert {name: type(value) for name, value in fallback.fields.items()} == {
        "label": str, "yes": bool, "p": float, "sure": float, "both": tuple, "price": int,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", "maybe"), ("label", 0), ("label", True), ("yes", 1), ("yes", "no"), ("p", 1.5), ("p", -0.1),
        ("p", True), ("p", "0.5"), ("p", [0.5]), ("sure", 2), ("both", [1.0]), ("both", [0.7, 0.7]),
        ("both", [1.5, -0.5]), ("both", 1.0), ("both", []), ("price", 10.1), ("price", -1), ("price", "3"),
    ],
)  # fmt: skip
def test_a_value_that_the_model_could_not_give_is_refused_by_name(field, value):
    with pytest.raises(ValidationError, match=f"fallback.{field}: .* is no "):
        card(GOOD | {field: value})


@pytest.mark.parametrize("value", [None, {"a": 1}, float("nan"), float("inf"), [["a"]]])
def test_what_is_no_value_at_all_is_refused(value):
    with pytest.raises(ValidationError):
        card(GOOD | {"p": value})


def test_every_field_and_no_other_is_needed():
    without = {name: value for name, value in GOOD.items() if name != "p"}
    with pytest.raises(ValidationError, match="the outputs fill both, label, p, price, sure, yes"):
        card(without)
    with pytest.raises(ValidationError, match="fallback has the fields"):
        card(GOOD | {"more": 1})
    with pytest.raises(ValidationError, match="fallback has the fields none"):
        card({})


def test_whole_number_classes_are_not_booleans():
    digits = ProbabilitiesOutput(name="P", classes=(0, 1), fields={"label": "class"})
    FallbackAnswer(fields={"label": 1}).check((digits,))
    with pytest.raises(ValueError, match="is no class"):
        FallbackAnswer(fields={"label": True}).check((digits,))
