"""Predictions against an independent computation: features from the raw event, the ONNX reference evaluator.

Nothing here shares code with the worker: not the decoder, not the features, not the runtime.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption, MissingExtra
from loadgen.features import model_inputs
from loadgen.model_store import ModelStore, StoredModel
from loadgen.violations import Kind, Place, Violation


@dataclass(frozen=True, slots=True)
class Sampled:
    """A prediction and the event it answers.

    probabilities: of all classes as the prediction has them; for two classes, of the second one only.
    """

    place: Place
    event: Mapping[str, Any]
    event_time_ms: int
    prediction: int
    probabilities: Sequence[float]
    model: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class ScoreCheck:
    """checked: predictions compared. worst: the greatest difference of a probability."""

    checked: int
    worst: float
    tolerance: float


def check_scores(sample: Sequence[Sampled], store: ModelStore, tolerance: float) -> tuple[ScoreCheck, list[Violation]]:
    """Score each sampled event anew with the version its prediction names."""
    wrong: dict[Kind, list[Place]] = {
        "event_time_changed": [],
        "model_not_found": [],
        "wrong_digest": [],
        "wrong_score": [],
    }
    by_model: dict[tuple[str, str], list[Sampled]] = {}
    for one in sample:
        by_model.setdefault((one.model, one.version), []).append(one)
        if one.event.get("event_time") != one.event_time_ms:
            wrong["event_time_changed"].append(one.place)
    checked, worst = 0, 0.0
    for (name, version), group in by_model.items():
        stored = store.load(name, version)
        if stored is None:
            wrong["model_not_found"] += [_because(one, f"{name} version {version}") for one in group]
            continue
        wrong["wrong_digest"] += [
            _because(one, f"{one.digest} instead of {stored.digest}") for one in group if one.digest != stored.digest
        ]
        classes, probabilities = _score(stored, [one.event for one in group])
        for one, scored in zip(group, probabilities, strict=True):
            checked += 1
            expected = scored[1:] if len(scored) == 2 and len(one.probabilities) == 1 else scored
            answer = np.asarray(one.probabilities, dtype=np.float64)
            if answer.shape != expected.shape:
                wrong["wrong_score"].append(_because(one, f"{len(answer)} probabilities, not {len(expected)}"))
                continue
            difference = float(np.max(np.abs(answer - expected)))
            worst = max(worst, difference)
            if not difference <= tolerance:
                wrong["wrong_score"].append(_because(one, f"probabilities differ by {difference:.3g}"))
            elif one.prediction not in _possible(stored, classes, scored, tolerance):
                wrong["wrong_score"].append(_because(one, f"class {one.prediction} is not the model's"))
    violations = [found for kind, places in wrong.items() for found in Violation.found(kind, len(places), places)]
    return ScoreCheck(checked, worst, tolerance), violations


def _because(one: Sampled, detail: str) -> Place:
    return Place(one.place.topic, one.place.partition, one.place.offset, detail)


def _score(stored: StoredModel, events: Sequence[Mapping[str, Any]]) -> tuple[list[int], NDArray[np.float64]]:
    """Return the classes of the model, and per event the probability of each.

    Raises BadOption if the model cannot be run.
    """
    try:
        onnx = importlib.import_module("onnx")
        reference = importlib.import_module("onnx.reference")
    except ImportError as error:
        raise MissingExtra("to check scores, install the extra: kafka-inference-worker[loadgen]") from error
    try:
        output = next(o for o in stored.manifest["outputs"] if o["kind"] == "probabilities")
        evaluator = reference.ReferenceEvaluator(onnx.load_from_string(stored.onnx))
        inputs = model_inputs(stored.manifest, events)
        (probabilities,) = evaluator.run([output["name"]], inputs)
    except (StopIteration, KeyError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise BadOption(f"--store: the model cannot be scored by the reference evaluator: {error}") from error
    return [int(label) for label in output["classes"]], np.asarray(probabilities, dtype=np.float64)


def _possible(stored: StoredModel, classes: list[int], scored: NDArray[np.float64], tolerance: float) -> set[int]:
    """Return the classes the model may be said to predict: several only if they tie within the tolerance."""
    output = next(o for o in stored.manifest["outputs"] if o["kind"] == "probabilities")
    threshold = output.get("threshold")
    if threshold is not None and len(classes) == 2:
        sure = abs(scored[1] - threshold) > tolerance
        return {classes[int(scored[1] >= threshold)]} if sure else set(classes)
    near = np.flatnonzero(scored >= scored.max() - tolerance)
    return {classes[index] for index in near.tolist()}
