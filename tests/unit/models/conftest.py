"""A model small enough to compute by hand: the probability of "yes" is x / 4, for x from 0 to 4."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.models.manifest import Golden, Manifest, ModelCard
from app.models.model_store import ModelStore, StoredModel, open_store
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def graph_bytes(
    *,
    rows: int | str = "N",
    width: int = 1,
    dtype: int = TensorProto.FLOAT,
    output: str = "probabilities",
    initializers: list[TensorProto] | None = None,
    operator: str = "MatMul",
    domain: str = "",
) -> bytes:
    """y = x · W + B, as ONNX bytes."""
    weights = numpy_helper.from_array(np.array([[-0.25, 0.25]] * width, np.float32), "W")
    bias = numpy_helper.from_array(np.array([1, 0], np.float32), "B")
    nodes = [
        helper.make_node("Cast", ["X"], ["x"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["x", "W"], ["xw"], domain=domain),
        helper.make_node("Add", ["xw", "B"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("X", dtype, [rows, width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [rows, 2])],
        initializers if initializers is not None else [weights, bias],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return model.SerializeToString()


@pytest.fixture
def make_graph() -> Callable[..., bytes]:
    return graph_bytes


@pytest.fixture
def make_card() -> Callable[..., ModelCard]:
    def make(**changes: Any) -> ModelCard:
        page: dict[str, Any] = {
            "data": "by hand",
            "event_schema": "Event",
            "prediction_schema": "Prediction",
            "inputs": (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=4),)),),
            "outputs": (ProbabilitiesOutput(name="probabilities", classes=("no", "yes")),),
            "golden": Golden(
                inputs={"X": ((0,), (1,), (4,))},
                outputs={"probabilities": ((1, 0), (0.75, 0.25), (0, 1))},
            ),
        }
        return ModelCard(**page | changes)

    return make


@pytest.fixture
def stored(make_card: Callable[..., ModelCard]) -> Callable[..., StoredModel]:
    def make(graph: bytes, more: dict[str, bytes] | None = None, **changes: Any) -> StoredModel:
        files = {"model.onnx": graph} | (more or {})
        digest = {name: f"sha256:{sha256(content).hexdigest()}" for name, content in files.items()}
        card = dict(make_card(**changes))
        return StoredModel(Manifest(**card, model="hand", version="1", digest=digest, created_at=NOW), files)

    return make


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return open_store("store", tmp_path, create=True)
