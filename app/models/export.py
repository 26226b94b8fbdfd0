"""scikit-learn → ONNX, the only module that knows the converter."""

from collections.abc import Mapping
from typing import Any

from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from app.models.original import Array, Original, as_columns, only_one
from app.specs import InputSpec, Output, ProbabilitiesOutput

OPSET = 17  # of 2022: read by every ONNX Runtime still in use


def classifier_to_onnx(estimator: Any, width: int, name: str) -> bytes:  # noqa: ANN401 - scikit-learn ships no types
    """Convert a fitted scikit-learn classifier, or a pipeline that ends in one.

    The graph takes "X", (n, width) float32, and gives "label", (n,), and "probabilities", (n, n_classes)
    float32.
    """
    content: bytes = _convert(estimator, "X", FloatTensorType([None, width]), name).SerializeToString()
    return content


def sklearn_original(
    estimator: Any,  # noqa: ANN401 - scikit-learn ships no types
    name: str,
    inputs: tuple[InputSpec, ...],
    outputs: tuple[Output, ...],
) -> Original:
    """Convert a fitted estimator or pipeline; a classifier must have `predict_proba`.

    Raises ValueError if it does not fit the inputs and outputs, or its classes are others or in another order.
    """
    only_one(inputs, outputs, ("float32", "float64"))
    spec, output = inputs[0], outputs[0]
    ask = "predict_proba" if isinstance(output, ProbabilitiesOutput) else "predict"
    if not hasattr(estimator, ask):
        raise ValueError(f"a {type(estimator).__name__} has no {ask}, which output {output.name!r} is made of")
    if isinstance(output, ProbabilitiesOutput) and (found := estimator.classes_.tolist()) != list(output.classes):
        raise ValueError(f"its classes are {found}, the spec says {list(output.classes)}")
    kind = FloatTensorType if spec.dtype == "float32" else DoubleTensorType
    model = _convert(estimator, spec.name, kind([None, spec.width]), name)
    named = "probabilities" if isinstance(output, ProbabilitiesOutput) else model.graph.output[0].name

    def answer(tensors: Mapping[str, Array]) -> dict[str, Array]:
        return {output.name: as_columns(getattr(estimator, ask)(tensors[spec.name]), output)}

    return Original(keep_output(model, named, output.name), answer)


def keep_output(model: Any, found: str, wanted: str) -> bytes:  # noqa: ANN401 - a protobuf message
    """Drop every output of a graph but `found`, which is called `wanted` from here on."""
    kept = [output for output in model.graph.output if output.name == found]
    if len(kept) != 1:
        names = ", ".join(output.name for output in model.graph.output)
        raise ValueError(f"the converted graph has no output {found!r}, it has {names}")
    del model.graph.output[:]
    model.graph.output.extend(kept)
    if found != wanted:
        model.graph.output[0].name = wanted
        node = model.graph.node.add(op_type="Identity", name="named_as_in_the_manifest")
        node.input.append(found)
        node.output.append(wanted)
    content: bytes = model.SerializeToString()
    return content


def _convert(estimator: Any, tensor: str, kind: Any, name: str) -> Any:  # noqa: ANN401 - no types, as above
    return to_onnx(
        estimator,
        name=name,  # the converter's own choice is random: the same model must give the same digest
        initial_types=[(tensor, kind)],
        options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,  # a tensor, no dictionaries
        target_opset=OPSET,
    )
