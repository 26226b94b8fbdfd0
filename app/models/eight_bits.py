"""ONNX Runtime's quantizer: a float graph becomes one with eight-bit matrix products, or is refused."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.errors import BadSettings, ModelInvalid
from app.models.manifest import MODEL_FILE
from app.models.model_store import StoredModel
from app.models.runtime import ORT_ERRORS
from app.ports import Tensors
from app.specs import Output

if TYPE_CHECKING:
    from onnx import ModelProto

Mode = Literal["dynamic", "static"]
Array = npt.NDArray[Any]

MATRIX_PRODUCTS = ["MatMul", "Gemm", "Conv"]
QUANTIZED = {"MatMulInteger", "ConvInteger", "QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "QLinearConv"}
CALIBRATION_BATCH = 64
MAX_CALIBRATION_ROWS = 10_000  # the extremes of that many no longer move


def quantized_graph(stored: StoredModel, mode: Mode, calibration: Tensors) -> bytes:
    """Quantize the matrix products of a stored version; one file, whatever it was before.

    Raises BadSettings if the extra is not installed, ModelInvalid if there is no matrix product or the quantizer
    refuses the graph.
    """
    what = f"model {stored.manifest.model!r} version {stored.manifest.version}"
    try:
        import onnx  # noqa: PLC0415 - the extra may not be installed
        from onnxruntime import quantization  # noqa: PLC0415 - it needs onnx
    except ModuleNotFoundError as exc:
        raise BadSettings(
            f"quantizing needs {exc.name}, which is not installed: pip install 'kafka-inference-worker[quantize]'"
        ) from exc
    theirs = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, KeyError, OSError)
    errors: tuple[type[Exception], ...] = (*ORT_ERRORS, *theirs)
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder, _quiet_quantizer():
        here = Path(folder)
        for name, content in stored.files.items():
            (here / name).write_bytes(content)
        simple, result = here / "simple.onnx", here / "quantized.onnx"
        try:
            _simplify(here / MODEL_FILE, simple)
            found = onnx.load(simple)
            _check_operators(found, set(MATRIX_PRODUCTS), what)
            onnx.save(_typed(found), simple)
            if mode == "dynamic":
                quantization.quantize_dynamic(
                    simple,
                    result,
                    op_types_to_quantize=MATRIX_PRODUCTS,
                    weight_type=quantization.QuantType.QInt8,
                    reduce_range=True,
                )
            else:
                quantization.quantize_static(
                    simple,
                    result,
                    _Calibration(calibration),
                    op_types_to_quantize=MATRIX_PRODUCTS,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    reduce_range=True,
                )
        except errors as exc:
            raise ModelInvalid(f"{what}: the quantizer refuses it: {' '.join(str(exc).split())[:300]}") from exc
        graph = result.read_bytes()
    _check_operators(onnx.load_from_string(graph), QUANTIZED, what)
    return graph


def answers_of(graph: bytes, tensors: Tensors, outputs: tuple[Output, ...]) -> dict[str, Array]:
    """What a graph says, before it has golden rows to be loaded with. Raises ModelInvalid if it cannot say."""
    names = [output.name for output in outputs]
    try:
        session = ort.InferenceSession(graph, _options(), providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))
    except ORT_ERRORS as exc:
        raise ModelInvalid(f"the quantized graph fails: {' '.join(str(exc).split())[:300]}") from exc


class _Calibration:
    """Batches of calibration rows, as the quantizer asks for them; one pass."""

    def __init__(self, tensors: Tensors) -> None:
        n = min(MAX_CALIBRATION_ROWS, len(next(iter(tensors.values()))))
        self._batches = iter(
            {name: np.ascontiguousarray(tensor[start : start + CALIBRATION_BATCH]) for name, tensor in tensors.items()}
            for start in range(0, n, CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _simplify(source: Path, target: Path) -> None:
    """Let ONNX Runtime fold constants and fuse what any machine fuses: the quantizer then finds whole products."""
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _typed(model: "ModelProto") -> "ModelProto":
    """State the type of every tensor: the quantizer leaves out those it cannot tell.

    onnx's own inference ends at the operators of ai.onnx.ml (scalers, normalizers); ONNX Runtime's does not.
    """
    import onnx  # noqa: PLC0415 - as above

    stated = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    for name in [name for node in model.graph.node for name in node.output if name and name not in stated]:
        asked.graph.output.add(name=name)
    session = ort.InferenceSession(asked.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    for node in session.get_outputs():
        if node.name not in stated and node.type == "tensor(float)":
            model.graph.value_info.add(name=node.name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def _check_operators(model: "ModelProto", wanted: set[str], what: str) -> None:
    operators = {node.op_type for node in model.graph.node}
    if not operators & wanted:
        raise ModelInvalid(f"{what}: there is no matrix product to quantize in {', '.join(sorted(operators))}")


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """It advises, on the root logger, what was done right above."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
