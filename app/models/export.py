"""scikit-learn → ONNX, the only module that knows the converter."""

from typing import Any

from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

OPSET = 17  # of 2022: read by every ONNX Runtime still in use


def classifier_to_onnx(estimator: Any, width: int, name: str) -> bytes:  # noqa: ANN401 - scikit-learn ships no types
    """Convert a fitted scikit-learn classifier, or a pipeline that ends in one.

    The graph takes "X", (n, width) float32, and gives "label", (n,), and "probabilities", (n, n_classes)
    float32.
    """
    model = to_onnx(
        estimator,
        name=name,  # the converter's own choice is random: the same model must give the same digest
        initial_types=[("X", FloatTensorType([None, width]))],
        options={"zipmap": False},  # a plain tensor, not a list of dictionaries
        target_opset=OPSET,
    )
    content: bytes = model.SerializeToString()
    return content
