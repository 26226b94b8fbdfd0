"""No step of the hot path gets much dearer unnoticed.

Each step's cost is held against fastavro decoding one of the same events, measured in the same moment, so that a
slow or busy machine is slow for both. Bounds are about twice what was measured: they catch what makes a step
several times as dear, such as a loop over rows or a copy per batch of something large.
"""

import io
import json
import time

import fastavro
import numpy as np
import pytest
from stages import SCHEMAS, STAGES, ChurnSteps, churn_values

from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, ProbabilitiesOutput

ROUNDS = 40
HEADER_SIZE = 10

# a neighbour that takes a core at the wrong moments does not do so every second
ATTEMPTS, PAUSE_S = 10, 1.0

# Per event, in events decoded by fastavro. Measured 2026-11-21: 0.18, 0.06, 0.04, 0.20; in batches of 8, where the
# fixed cost of a batch shows: 4.4, 1.4, 1.1, 5.1.
BOUNDS = {
    512: {"decode": 0.45, "features": 0.15, "infer": 0.1, "encode": 0.5},
    8: {"decode": 10.0, "features": 3.5, "infer": 2.5, "encode": 12.0},
}


class NoModel:
    """Answers with the same scores at once, so that `infer` is our own share of it."""

    name, version, digest = "churn", "1", "0123456789abcdef"
    inputs = (
        InputSpec(
            name="X",
            features=(
                NumberFeature(field="age", min=18, max=120),
                NumberFeature(field="income", min=0),
                NumberFeature(field="tenure_months", min=0),
                NumberFeature(field="monthly_charges", min=0),
                NumberFeature(field="total_charges", min=0, missing=Impute(impute=1800.0)),
                OneHotFeature(field="plan", categories=("basic", "standard", "premium")),
            ),
        ),
    )
    outputs = (
        ProbabilitiesOutput(
            name="probabilities",
            classes=(0, 1),
            threshold=0.5,
            fields={
                "prediction": "class",
                "will_churn": "positive",
                "probability": "probability",
                "confidence": "confidence",
            },
        ),
    )

    def __init__(self, rows):
        second = np.linspace(0, 1, rows, dtype=np.float32)
        self._answer = {"probabilities": np.stack([1 - second, second], axis=1)}

    def run(self, tensors):
        return self._answer

    def check(self):
        pass


def costs(size):
    """What each step costs per event, in events decoded by fastavro; of each the best of all rounds."""
    values = churn_values(size)
    steps = ChurnSteps(NoModel(size), values)
    schema = fastavro.parse_schema(json.loads((SCHEMAS / "churn_event.avsc").read_text()))
    sample = values[: min(size, 128)]

    def reference():
        for value in sample:
            fastavro.schemaless_reader(io.BytesIO(value[HEADER_SIZE:]), schema)

    calls = {"reference": reference, **{stage: getattr(steps, stage) for stage in STAGES}}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - started)
    unit = best.pop("reference") / len(sample)
    return {stage: seconds / size / unit for stage, seconds in best.items()}


@pytest.mark.parametrize("size", BOUNDS)
def test_no_step_costs_much_more_than_it_did(size):
    for _ in range(ATTEMPTS):
        dear = {stage: round(cost, 3) for stage, cost in costs(size).items() if cost > BOUNDS[size][stage]}
        if not dear:
            return
        time.sleep(PAUSE_S)
    pytest.fail(f"per event, in events decoded by fastavro: {dear}, allowed {BOUNDS[size]}")
