"""A model trained elsewhere becomes a version in the store, if its ONNX twin answers as it does.

The original and what was converted of it are asked about the same held-out rows. Those answers are compared, the
first of them become the golden rows, and so every later load compares with the original once more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import Field, ValidationError

from app.errors import BadSettings, ModelFailed, ModelInvalid
from app.models.agreement import Agreement, Array, accuracy, agreement
from app.models.held_out import HeldOut
from app.models.manifest import MODEL_FILE, Golden, Manifest, ModelCard, Reference
from app.models.model_store import ModelStore, StoredModel
from app.models.runtime import OnnxModel, RuntimePolicy, load_model
from app.models.sandbox import CAN_BE_CODE, Converted, SandboxPolicy, Source, convert
from app.specs import FallbackAnswer, InputSpec, Output, ProbabilitiesOutput, Spec

Progress = Callable[[str], None]

GOLDEN_ROWS = 16
MAX_SPEC_BYTES = 16 * 1024 * 1024
ROWS_AT_ONCE = 4096  # a few MiB of the widest rows; memory patterns of larger batches gain nothing
PACKAGES = {
    "sklearn": ("scikit-learn", "skl2onnx"),
    "lightgbm": ("lightgbm", "onnxmltools"),
    "xgboost": ("xgboost", "onnxmltools"),
    "pytorch": ("torch", "onnxscript"),
}


class ModelSpec(Spec):
    """What only its maker knows about a model: a manifest without what the worker finds out itself."""

    data: str
    event_schema: str
    prediction_schema: str
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    reference: dict[str, Reference] = Field(default_factory=dict)
    metrics: dict[str, int | float] = Field(default_factory=dict)
    training: dict[str, int | float | str] = Field(default_factory=dict)
    fallback: FallbackAnswer | None = None


@dataclass(frozen=True, slots=True)
class AdoptPolicy:
    """tolerance: the largest difference allowed between the original's answers and ONNX's, in any number."""

    tolerance: float = 1e-5
    sandbox: SandboxPolicy = field(default_factory=SandboxPolicy)

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= 0.1:
            raise BadSettings(f"tolerance is {self.tolerance:g}, allowed above 0 and at most 0.1: scale larger outputs")


@dataclass(frozen=True, slots=True)
class Adoption:
    """The version that was published, how well it agrees with the original, and what confined the conversion."""

    manifest: Manifest
    agreement: Agreement
    held: tuple[str, ...]


def read_spec(path: Path) -> ModelSpec:
    """Read a model spec, YAML or JSON. Raises BadSettings, naming the field that is wrong."""
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise BadSettings(f"{path} has more than {MAX_SPEC_BYTES} bytes")
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ModelSpec.model_validate(page)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the page"
        raise BadSettings(f"{path}: {where}: {first['msg']}") from exc
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:
        raise BadSettings(f"cannot read {path}: {' '.join(str(exc).split())[:300]}") from exc


def adopt_model(
    source: Source,
    spec: ModelSpec,
    rows: HeldOut,
    store: ModelStore,
    model: str,
    *,
    policy: AdoptPolicy,
    at: datetime,
    who: str,
    progress: Progress = lambda _: None,
) -> Adoption:
    """Convert, compare on `rows`, publish a new version of `model`.

    Raises BadSettings for what cannot be asked for, ModelInvalid if the conversion fails or its answers differ by
    more than the tolerance. Then nothing was published.
    """
    progress(f"converting {source.path.name} in a process of its own")
    converted = convert(source, model, spec.inputs, spec.outputs, rows.tensors, policy.sandbox)
    progress(f"comparing both on {len(rows):,} rows")
    card = _card(source, spec, rows, converted, policy)
    try:
        loaded = load_draft(model, card, converted.graph, at)
    except ModelInvalid as exc:
        raise ModelInvalid(f"{source.path.name} was converted, but not into what the spec says: {exc}") from exc
    answers = score(loaded, rows.tensors)
    found = agreement(spec.outputs, converted.answers, answers)
    if not found.max_difference <= policy.tolerance:
        raise ModelInvalid(
            f"{source.path.name}: its ONNX answers differ by {found.max_difference:.3g} in row {found.row} of "
            f"{found.rows}, allowed {policy.tolerance:g}; {found.same_class:.2%} of the rows are of the same class"
        )
    card = card.model_copy(update={"metrics": {**spec.metrics, **_metrics(spec, found, answers, rows)}})
    progress(f"publishing to {store.url}")
    return Adoption(store.publish(model, card, {MODEL_FILE: converted.graph}, at=at, who=who), found, converted.held)


def score(model: OnnxModel, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Score any number of rows, some at a time. Raises ModelInvalid if the model fails on them."""
    n = len(next(iter(tensors.values())))
    try:
        parts = [
            model.run({name: tensor[start : start + ROWS_AT_ONCE] for name, tensor in tensors.items()})
            for start in range(0, n, ROWS_AT_ONCE)
        ]
    except ModelFailed as exc:
        raise ModelInvalid(f"it fails on the held-out rows: {exc}") from exc
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load_draft(model: str, card: ModelCard, graph: bytes, at: datetime) -> OnnxModel:
    """Load what would be published as the worker will load it. Raises ModelInvalid as that does."""
    digest = {MODEL_FILE: f"sha256:{sha256(graph).hexdigest()}"}
    try:
        draft = Manifest(**dict(card), model=model, version="1", digest=digest, created_at=at)
    except ValidationError as exc:
        raise BadSettings(f"{model!r} cannot be the name of a model") from exc
    return load_model(StoredModel(draft, {MODEL_FILE: graph}), RuntimePolicy())


def golden_rows(tensors: Mapping[str, Array], answers: Mapping[str, Array], atol: float) -> Golden:
    """Make golden rows of the first held-out ones and what the model is to say about them."""

    def table(arrays: Mapping[str, Array]) -> dict[str, Any]:
        return {
            name: array[:GOLDEN_ROWS].reshape(len(array[:GOLDEN_ROWS]), -1).tolist() for name, array in arrays.items()
        }

    return Golden(inputs=table(tensors), outputs=table(answers), atol=atol)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return version(f"{package}-cpu")  # XGBoost's build without CUDA is a package of its own


def _card(source: Source, spec: ModelSpec, rows: HeldOut, converted: Converted, policy: AdoptPolicy) -> ModelCard:
    known = {name: _version(name) for name in PACKAGES[source.framework]}
    facts: dict[str, int | float | str] = {
        **spec.training,
        "framework": source.framework,
        "source": source.path.name,
        "source_digest": f"sha256:{sha256(source.path.read_bytes()).hexdigest()}",
        "confined_by": ", ".join(converted.held),
        **known,
    }
    if source.framework in CAN_BE_CODE:
        facts["trusted_input"] = "loading the source can run code; --trust-pickle was given"
    try:
        golden = golden_rows(rows.tensors, converted.answers, policy.tolerance)
        return ModelCard(**dict(spec) | {"training": facts, "golden": golden})
    except ValidationError as exc:  # only an original that answers NaN gets here
        first = exc.errors(include_url=False, include_input=False)[0]
        raise ModelInvalid(f"{source.path.name}: its answers cannot be golden rows: {first['msg']}") from exc


def _metrics(spec: ModelSpec, found: Agreement, answers: Mapping[str, Array], rows: HeldOut) -> dict[str, int | float]:
    metrics: dict[str, int | float] = {
        "held_out_rows": found.rows,
        "conversion_max_difference": found.max_difference,
        "conversion_same_class": found.same_class,
    }
    first = spec.outputs[0]
    if rows.labels is not None and isinstance(first, ProbabilitiesOutput):
        metrics["accuracy"] = accuracy(first, answers[first.name], rows.labels)
    return metrics
