"""The one place with ONNX Runtime: a stored version becomes a model that is verified and warm, or is refused.

Nothing is read from disk here: files come as bytes whose SHA-256 is checked first. Tensors that a graph
keeps outside itself are taken from those bytes or not at all, and no library of custom operators is ever
registered.
"""

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from app.errors import BadSettings, ModelFailed, ModelInvalid
from app.models.batch_invariance import in_buckets, worst_difference
from app.models.manifest import MODEL_FILE, Manifest, Rows
from app.models.model_store import StoredModel
from app.ports import Tensors
from app.specs import InputSpec, Output, ProbabilitiesOutput

Array = npt.NDArray[Any]

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(ort_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)  # ORT's errors share no base of their own
    ),
    RuntimeError,
    ValueError,
    TypeError,
)
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}
# A folder that cannot exist: a graph that points at tensors on the disk finds none, wherever we were started.
NO_FOLDER = "/dev/null/none"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class RuntimePolicy:
    """How sessions run. Threads come from `cpu_quota()`, never from the host's core count.

    warm_up_rows: batch sizes scored once before the model counts as loaded. max_rows: given to the model at a time.
    runs_at_once: of a batch of more rows than that, so many parts are scored side by side.
    buckets: rising batch sizes for models whose answers depend on it.
    providers: execution providers of ONNX Runtime, the preferred one first; CPU takes what they leave.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    warm_up_rows: tuple[int, ...] = (1, 32, 512)
    buckets: tuple[int, ...] = (32, 128, 512)
    providers: tuple[str, ...] = (CPU,)
    max_rows: int = 512
    runs_at_once: int = 1


class OnnxModel:
    """One version of one model in ONNX Runtime; a `ports.Model`. Made by `load_model`.

    load_s: seconds from the stored bytes to a verified and warm model.
    buckets: the sizes its batches are padded to; empty if any will do.
    provider: the execution provider that gets every operator it has a kernel for.
    """

    def __init__(
        self, manifest: Manifest, session: ort.InferenceSession, files: Iterable[bytes], policy: RuntimePolicy
    ) -> None:
        self._manifest = manifest
        self._max_rows = policy.max_rows
        many = policy.runs_at_once
        self._runs = ThreadPoolExecutor(many, f"runs-{manifest.model}") if many > 1 else None
        self._session = session
        self._files = tuple(files)  # external tensors may be used in place: keep them as long as the session
        self._output_names = [output.name for output in manifest.outputs]
        self.name = manifest.model
        self.version = manifest.version
        self.digest = manifest.model_digest
        self.file_digests = manifest.digest
        self.event_schema = manifest.event_schema
        self.prediction_schema = manifest.prediction_schema
        self.inputs: tuple[InputSpec, ...] = manifest.inputs
        self.outputs: tuple[Output, ...] = manifest.outputs
        self.load_s = 0.0
        self.buckets: tuple[int, ...] = ()
        self.provider: str = session.get_providers()[0]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Score one batch, see `ports.Model`, `max_rows` at a time. Raises ModelFailed; then no row was scored."""
        n, most = len(next(iter(tensors.values()))), self._max_rows
        if n <= most:
            return self._run(tensors)
        parts = [
            {name: tensor[start : start + most] for name, tensor in tensors.items()} for start in range(0, n, most)
        ]
        answers = list(map(self._run, parts) if self._runs is None else self._runs.map(self._run, parts))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._output_names}

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        return in_buckets(self._ask, tensors, self.buckets) if self.buckets else self._ask(tensors)

    def _ask(self, tensors: Tensors) -> dict[str, Array]:
        try:
            arrays = self._session.run(self._output_names, tensors)
        except ORT_ERRORS as exc:
            raise ModelFailed(f"model {self.name!r} version {self.version}: {exc}") from exc
        n = len(next(iter(tensors.values())))
        for name, array in zip(self._output_names, arrays, strict=True):
            if not isinstance(array, np.ndarray) or array.ndim == 0 or len(array) != n:
                shape = getattr(array, "shape", type(array).__name__)
                raise ModelFailed(f"model {self.name!r} version {self.version}: output {name!r} of {n} rows is {shape}")
        return dict(zip(self._output_names, arrays, strict=True))

    def check(self) -> None:
        """Score the golden rows. Raises ModelFailed if the model fails on them, or no longer answers as it did."""
        try:
            _compare_golden(self, self._manifest, f"model {self.name!r} version {self.version}")
        except (ModelFailed, ModelInvalid) as exc:
            raise ModelFailed(f"the model is at fault, not the records: its golden rows fail too: {exc}") from exc


def load_model(stored: StoredModel, policy: RuntimePolicy) -> OnnxModel:
    """Verify, load, check and warm up one version.

    Raises ModelInvalid, saying what differs from the manifest and by how much, if a digest, the graph's
    inputs or outputs or the golden rows do not agree with it, or ONNX Runtime refuses the graph; BadSettings if
    an execution provider of the policy is not to be had.
    """
    started = time.perf_counter()
    _check_providers(policy)
    manifest = stored.manifest
    what = f"model {manifest.model!r} version {manifest.version}"
    _check_digests(stored, what)
    try:
        session = _session(stored, policy)
    except ORT_ERRORS as exc:
        raise ModelInvalid(f"{what}: ONNX Runtime refuses it: {exc}") from exc
    _check_inputs(session, manifest, what)
    _check_outputs(session, manifest, what)
    model = OnnxModel(manifest, session, stored.files.values(), policy)
    try:
        _warm_up(model, manifest, policy, what)
    except ModelFailed as exc:
        raise ModelInvalid(f"{what} fails on its golden rows: {exc}") from exc
    model.load_s = time.perf_counter() - started
    return model


def _check_digests(stored: StoredModel, what: str) -> None:
    for name, expected in stored.manifest.digest.items():
        found = f"sha256:{hashlib.sha256(stored.files.get(name, b'')).hexdigest()}"
        if found != expected:
            raise ModelInvalid(f"{what}: {name} has the digest {found}, its manifest says {expected}")


def _check_providers(policy: RuntimePolicy) -> None:
    offered = ort.get_available_providers()
    if absent := [name for name in policy.providers if name not in offered]:
        raise BadSettings(
            f"models.providers: {', '.join(absent)} is not in this build of ONNX Runtime {ort.__version__}, "
            f"which offers {', '.join(offered)}"
        )


def _session(stored: StoredModel, policy: RuntimePolicy) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = policy.intra_op_threads
    options.inter_op_num_threads = policy.inter_op_threads
    options.log_severity_level = 4  # errors reach us as exceptions; ORT would print them a second time
    options.enable_cpu_mem_arena = False  # batch sizes vary: the arena keeps a block for the largest of each
    options.enable_mem_pattern = False  # plans are made per shape, and kept
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the client's threads need the CPU
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    outside = {name: content for name, content in stored.files.items() if name != MODEL_FILE}
    if outside:
        options.add_external_initializers_from_files_in_memory(
            list(outside), list(outside.values()), [len(content) for content in outside.values()]
        )
    session = ort.InferenceSession(stored.files[MODEL_FILE], options, providers=list(policy.providers))
    session.disable_fallback()  # a device that fails is an error, not a slower model nobody asked for
    if left_out := [name for name in policy.providers if name not in session.get_providers()]:
        raise BadSettings(
            f"models.providers: {', '.join(left_out)} is in this build of ONNX Runtime but does not start here "
            "(driver, device or one of its libraries)"
        )
    return session


def _check_inputs(session: ort.InferenceSession, manifest: Manifest, what: str) -> None:
    graph = {node.name: node for node in session.get_inputs()}
    if set(graph) != {spec.name for spec in manifest.inputs}:
        names = ", ".join(spec.name for spec in manifest.inputs)
        raise ModelInvalid(f"{what}: the graph takes {', '.join(graph)}, its manifest describes {names}")
    for spec in manifest.inputs:
        node = graph[spec.name]
        if DTYPES.get(node.type) != spec.dtype:
            raise ModelInvalid(f"{what}: input {spec.name!r} is {node.type}, its manifest says {spec.dtype}")
        row = spec.shape if spec.shape is not None else (spec.width,)
        _check_shape(node.shape, row, f"{what}: input {spec.name!r}")


def _check_outputs(session: ort.InferenceSession, manifest: Manifest, what: str) -> None:
    graph = {node.name: node for node in session.get_outputs()}
    for output in manifest.outputs:
        if output.name not in graph:
            raise ModelInvalid(f"{what}: the graph has no output {output.name!r}, it has {', '.join(graph)}")
        node = graph[output.name]
        if DTYPES.get(node.type) not in {"float32", "float64"}:
            raise ModelInvalid(f"{what}: output {output.name!r} is {node.type}, allowed is a tensor of floats")
        if isinstance(output, ProbabilitiesOutput):
            _check_shape(node.shape, (len(output.classes),), f"{what}: output {output.name!r}")


def _check_shape(found: list[int | str | None], row: tuple[int, ...], what: str) -> None:
    """Compare a graph's shape with (any number of rows, *row); a dimension with a name or none can be any."""
    if found and isinstance(found[0], int) and found[0] > 0:
        raise ModelInvalid(f"{what} takes exactly {found[0]} rows, it must take any number")
    fits = len(found) == len(row) + 1 and all(
        not isinstance(dimension, int) or dimension == expected
        for dimension, expected in zip(found[1:], row, strict=True)
    )
    if found and not fits:  # an empty shape is one the graph does not state; the golden rows will tell
        raise ModelInvalid(f"{what} has the shape {found}, its manifest says {['N', *row]}")


def _warm_up(model: OnnxModel, manifest: Manifest, policy: RuntimePolicy, what: str) -> None:
    """Compare the golden rows, then score them in other batches, of the warm-up sizes too."""
    golden, atol = golden_tensors(manifest), manifest.golden.atol
    _compare_golden(model, manifest, what)
    found = worst_difference(model.run, golden, policy.warm_up_rows)
    if found.by <= atol:
        return
    model.buckets = policy.buckets
    otherwise = f"{what} answers a row otherwise in other company than alone: {found}, allowed {atol:g}"
    padded_to = f"padded to {', '.join(map(str, policy.buckets))} rows"
    try:
        _compare_golden(model, manifest, padded_to)
    except (ModelFailed, ModelInvalid) as exc:
        raise ModelInvalid(f"{otherwise}; {exc}") from exc
    padded = worst_difference(model.run, golden, policy.buckets)
    if padded.by > atol:
        raise ModelInvalid(f"{otherwise}; {padded_to}: {padded}")


def golden_tensors(manifest: Manifest) -> dict[str, Array]:
    """The golden rows of every input, as the model takes them. Raises ModelInvalid as `golden_tensor`."""
    return {spec.name: golden_tensor(spec, manifest.golden.inputs[spec.name]) for spec in manifest.inputs}


def golden_tensor(spec: InputSpec, rows: Rows) -> Array:
    """Shape the golden rows of one input into the tensor the model takes. Raises ModelInvalid if one does not fit."""
    try:
        with np.errstate(over="raise"):
            tensor = np.array(rows, spec.dtype)
    except (ArithmeticError, ValueError) as exc:
        raise ModelInvalid(f"the golden rows of input {spec.name!r} are no {spec.dtype}: {exc}") from exc
    return tensor if spec.shape is None else tensor.reshape(-1, *spec.shape)


def _compare_golden(model: OnnxModel, manifest: Manifest, what: str) -> None:
    golden = manifest.golden
    answers = model.run(golden_tensors(manifest))
    for output in manifest.outputs:
        _compare(answers[output.name], golden.outputs[output.name], golden.atol, output, what)


def _compare(answer: Array, golden: Rows, atol: float, output: Output, what: str) -> None:
    try:
        expected = np.array(golden, np.float64)
    except OverflowError as exc:  # whole numbers of a page may have any number of digits
        raise ModelInvalid(f"{what}: the golden rows of output {output.name!r} are no float64: {exc}") from exc
    found = answer.reshape(len(answer), -1).astype(np.float64)
    width = len(output.classes) if isinstance(output, ProbabilitiesOutput) else 1
    if found.shape != expected.shape or expected.shape[1] != width:
        raise ModelInvalid(
            f"{what}: output {output.name!r} of the golden rows is {list(answer.shape)}, "
            f"the manifest has {list(expected.shape)} and describes {width} a row"
        )
    difference = np.abs(found - expected)
    if not (difference <= atol).all():  # NaN differs from everything
        row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference).max(axis=1)))
        raise ModelInvalid(
            f"{what}: output {output.name!r} differs from golden row {row} by {difference[row].max():.3g}, "
            f"allowed {atol:g}: it answers {found[row].tolist()} for {expected[row].tolist()}"
        )
