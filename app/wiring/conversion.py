"""`models export` and `models quantize`: conversion, the worker's own feature code, and the store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import BadSettings, SchemaIncompatible
from app.models.adopt import Adoption, AdoptPolicy, adopt_model, read_spec
from app.models.conversion import Framework
from app.models.eight_bits import Mode
from app.models.held_out import HeldOut, read_rows
from app.models.manifest import Manifest
from app.models.quantize import Quantization, quantize_model
from app.models.sandbox import GIB, SandboxPolicy, Source
from app.pipeline.features.plan import features_of
from app.records import Columns
from app.specs import InputSpec
from app.wiring.stores import named_store, who

Progress = Callable[[str], None]

SHIPPED_DIGITS = "scikit-learn digits"  # what its training writes into `data`


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What `models export` was asked for. label: the column of the labels, None if there are none."""

    source: Path
    framework: Framework
    spec: Path
    holdout: Path
    label: str | None
    model: str
    tolerance: float
    trusted: bool
    max_memory_gib: float
    max_time_s: float


def export_model(order: ExportOrder, store: str | None, settings_file: Path | None, progress: Progress) -> Adoption:
    """`inference-worker models export`. Raises BadSettings or ModelInvalid; then nothing was published."""
    source = Source(order.source, order.framework, order.trusted)
    source.check()
    sandbox = SandboxPolicy(memory_bytes=int(order.max_memory_gib * GIB), time_s=order.max_time_s)
    policy = AdoptPolicy(order.tolerance, sandbox)
    spec = read_spec(order.spec)
    rows = read_rows(order.holdout, spec.inputs, order.label, model_inputs)
    opened = named_store(store, settings_file, create=True)
    at = datetime.now(UTC)
    return adopt_model(source, spec, rows, opened, order.model, policy=policy, at=at, who=who(), progress=progress)


@dataclass(frozen=True, slots=True)
class QuantizeOrder:
    """What `models quantize` was asked for. version: the stable one if None."""

    model: str
    version: str | None
    mode: Mode
    calibration: Path | None
    holdout: Path | None
    label: str | None
    max_accuracy_loss: float


def quantize(order: QuantizeOrder, store: str | None, settings_file: Path | None, progress: Progress) -> Quantization:
    """`inference-worker models quantize`. Raises BadSettings, ModelMissing or ModelInvalid; nothing is published then.

    Without rows, the digits that come with scikit-learn are what its shipped model is calibrated with (those it was
    trained on) and judged by (those it never saw).
    """
    opened = named_store(store, settings_file)
    version = order.version or opened.rollout(order.model).stable
    manifest = opened.manifest(order.model, version)
    if order.holdout is None and order.calibration is None and manifest.data == SHIPPED_DIGITS:
        calibration, held_out = _digits(manifest)
    else:
        held_out, calibration = _rows(order, manifest)
    return quantize_model(
        opened,
        order.model,
        version,
        order.mode,
        calibration=calibration,
        held_out=held_out,
        max_accuracy_loss=order.max_accuracy_loss,
        at=datetime.now(UTC),
        who=who(),
        progress=progress,
    )


def _rows(order: QuantizeOrder, manifest: Manifest) -> tuple[HeldOut, Mapping[str, npt.NDArray[Any]]]:
    if order.holdout is None:
        raise BadSettings("--holdout is needed: rows that the model never saw, to judge it by")
    if order.mode == "static" and order.calibration is None:
        raise BadSettings("--mode static needs --calibration: rows to take the scales of activations from")
    held_out = read_rows(order.holdout, manifest.inputs, order.label, model_inputs)
    if order.calibration is None:
        return held_out, {}
    return held_out, read_rows(order.calibration, manifest.inputs, None, model_inputs).tensors


def _digits(manifest: Manifest) -> tuple[Mapping[str, npt.NDArray[Any]], HeldOut]:
    try:
        from app.train.digits import digits_data  # noqa: PLC0415 - the extra may not be installed
    except ModuleNotFoundError as exc:
        raise BadSettings(
            f"its rows come with {exc.name}, which is not installed: pip install 'kafka-inference-worker[train]', "
            "or give --holdout and --calibration"
        ) from exc
    digits = digits_data()
    tensors, held_out = model_inputs(digits.table, manifest.inputs), digits.held_out
    seen = {name: tensor[~held_out] for name, tensor in tensors.items()}
    return seen, HeldOut({name: tensor[held_out] for name, tensor in tensors.items()}, digits.labels[held_out])


def model_inputs(table: pa.RecordBatch, inputs: tuple[InputSpec, ...]) -> Mapping[str, npt.NDArray[Any]]:
    """Build model inputs of event columns as the worker does; every row must be one that it would score.

    Raises BadSettings, naming the first row that it would reject and why.
    """
    try:
        features = features_of(Columns(table, np.arange(table.num_rows, dtype=np.int64)), inputs)
    except SchemaIncompatible as exc:
        raise BadSettings(str(exc)) from exc
    if features.rejected:
        first = features.rejected[0]
        count = len(features.rejected)
        raise BadSettings(f"row {first.row} would be rejected: {first.message} ({count} of {table.num_rows} rows)")
    return features.tensors
