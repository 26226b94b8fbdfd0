"""What a training script hands over: a model that nobody has loaded yet, and how to judge it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.models.manifest import Golden, ModelCard
from app.pipeline.features.plan import features_of
from app.records import Columns
from app.specs import InputSpec

Array = npt.NDArray[Any]
Progress = Callable[[str], None]
GOLDEN_ROWS = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained model before it is measured and published.

    card: without metrics. graph: the ONNX bytes.
    held_out: rows that training never saw, as model inputs.
    measure: the metrics, from the model's (n, n_classes) probabilities of the held-out rows.
    """

    card: ModelCard
    graph: bytes
    held_out: Mapping[str, Array]
    measure: Callable[[Array], dict[str, int | float]]


def tensor_of(table: pa.RecordBatch, spec: InputSpec) -> Array:
    """Build the model input from event columns exactly as the worker does."""
    features = features_of(Columns(table, np.arange(table.num_rows, dtype=np.int64)), (spec,))
    if features.rejected:  # training rows are ours: one that the mapping refuses is a bug in the mapping
        raise AssertionError(f"a training row is refused: {features.rejected[0].message}")
    return features.tensors[spec.name]


def golden_of(name: str, tensor: Array, probabilities: Array) -> Golden:
    """Take the first rows, with the estimator's own answers: so loading checks the conversion too."""
    return Golden(
        inputs={name: tensor[:GOLDEN_ROWS].tolist()},
        outputs={"probabilities": probabilities[:GOLDEN_ROWS].tolist()},
    )
