"""What the tests of conversions share: four columns of numbers, and outputs to make of them."""

from datetime import UTC, datetime

import numpy as np

from app.models.adopt import ModelSpec
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def rows_of(count, seed=0, width=4):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def binary(name="probabilities", classes=(0, 1)):
    return ProbabilitiesOutput(name=name, classes=classes)


def many(name):
    return ProbabilitiesOutput(name=name, classes=(0, 1, 2))


def regression():
    return ValueOutput(name="value")


def spec_of(output, width=4):
    features = tuple(NumberFeature(field=f"f{i}") for i in range(width))
    return ModelSpec(
        data="by hand",
        event_schema="Event",
        prediction_schema="Prediction",
        inputs=(InputSpec(name="X", features=features),),
        outputs=(output,),
    )
