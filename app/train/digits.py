"""The digits model: which digit is it? Trained on scikit-learn's real handwritten digits, 8x8 grey values."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.models.export import classifier_to_onnx
from app.models.manifest import ModelCard
from app.specs import InputSpec, ProbabilitiesOutput, TensorFeature
from app.train.candidate import Array, Candidate, Progress, golden_of, tensor_of
from app.train.reference import reference_of

PIXELS = 64
CLASSES = tuple(range(10))
# Whoever sends the data set's rows can tell which of them the model never saw, from the row number alone.
HELD_OUT_EVERY = 5
HELD_OUT_RULE = "row number % 5 == 4"


@dataclass(frozen=True, slots=True)
class Digits:
    """The data set in its own order. table: `pixels` as in DigitEvent. labels, held_out: (n,)."""

    table: pa.RecordBatch
    labels: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]


def digits_data() -> Digits:
    """Load the 1,797 digits that come with scikit-learn, with the split every model here is trained on."""
    images, labels = load_digits(return_X_y=True)
    offsets = pa.array(np.arange(len(images) + 1, dtype=np.int32) * PIXELS)
    pixels = pa.ListArray.from_arrays(offsets, pa.array(images.astype(np.float32).ravel()))
    held_out = np.arange(len(images)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return Digits(pa.RecordBatch.from_pydict({"pixels": pixels}), labels.astype(np.int64), held_out)


def train_digits(*, seed: int, progress: Progress) -> Candidate:
    """Fit a multilayer perceptron on four fifths of the digits. The same seed gives the same model."""
    digits = digits_data()
    spec = InputSpec(name="X", features=(TensorFeature(field="pixels", length=PIXELS, min=0, max=16),))
    tensor = tensor_of(digits.table, spec)
    seen = ~digits.held_out
    progress(f"fitting a multilayer perceptron on {int(seen.sum()):,} digits")
    fitted = _estimator(seed).fit(tensor[seen], digits.labels[seen])
    held_out, truth = tensor[digits.held_out], digits.labels[digits.held_out]
    card = ModelCard(
        data="scikit-learn digits",
        event_schema="DigitEvent",
        prediction_schema="DigitPrediction",
        inputs=(spec,),
        outputs=(
            ProbabilitiesOutput(
                name="probabilities",
                classes=CLASSES,
                fields={
                    "prediction": "class",
                    "probabilities": "probabilities",
                    "confidence": "confidence",
                },
            ),
        ),
        golden=golden_of(spec.name, held_out, fitted.predict_proba(held_out)),
        reference=reference_of(digits.table.filter(pa.array(seen)), (spec,)),
        training={
            "estimator": "mlp",
            "rows": int(seen.sum()),
            "seed": seed,
            "held_out": HELD_OUT_RULE,
            "scikit-learn": version("scikit-learn"),
            "skl2onnx": version("skl2onnx"),
        },
    )

    def measure(probabilities: Array) -> dict[str, int | float]:
        return {
            "held_out_rows": len(truth),
            "accuracy": float(accuracy_score(truth, probabilities.argmax(axis=1))),
            "log_loss": float(log_loss(truth, _normalised(probabilities), labels=CLASSES)),
        }

    return Candidate(card, classifier_to_onnx(fitted, spec.width, "digits"), {spec.name: held_out}, measure)


def _estimator(seed: int) -> Any:  # noqa: ANN401 - scikit-learn ships no types
    return make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(64,), max_iter=500, random_state=seed))


def _normalised(probabilities: Array) -> Array:
    """Widen float32 probabilities so that each row adds up to 1 in float64, as the loss wants it."""
    wide = probabilities.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
