"""A version of a model with its matrices in eight bits, published if it is as right as the version it is made of.

`dynamic` scales activations as they come: the scale is of the whole batch, so a row's answer depends a little on its
neighbours. `static` takes the scales from calibration rows: then it does not. Both keep everything but the matrix
products as it was. Weights use seven of their eight bits: x86 without VNNI adds pairs of products in 16 bits, which
eight would saturate, and then the answers would differ by machine (ONNX Runtime, "Quantize ONNX models").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import numpy as np

from app.errors import BadSettings, ModelInvalid
from app.models.adopt import GOLDEN_ROWS, golden_rows, load_draft, score
from app.models.agreement import Agreement, Array, accuracy, agreement
from app.models.eight_bits import Mode, answers_of, quantized_graph
from app.models.held_out import HeldOut
from app.models.manifest import MODEL_FILE, Manifest, ModelCard
from app.models.model_store import ModelStore
from app.models.runtime import OnnxModel, RuntimePolicy, load_model
from app.models.speed import rows_per_second
from app.specs import ProbabilitiesOutput

Progress = Callable[[str], None]

# Next to a rounding boundary another machine may take the other of 255 steps, so golden rows get room for one;
# the largest is the most that a manifest allows.
SMALLEST_ATOL, LARGEST_ATOL = 0.01, 0.1
ALONE_ROWS = 64  # scored one by one, to see what neighbours do


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of the comparison. size_bytes: of all files. accuracy: share of rows, None without labels."""

    size_bytes: int
    rows_per_second: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Quantization:
    """What was published, and what both sides measured in one sitting over `agreement.rows` held-out rows.

    loss: accuracy lost (below 0: gained); without labels the share of rows whose class is another one.
    neighbours: how much a row's answer moved with the batch it was in.
    """

    manifest: Manifest
    before: Measured
    after: Measured
    agreement: Agreement
    loss: float
    neighbours: float


def quantize_model(
    store: ModelStore,
    model: str,
    of_version: str,
    mode: Mode,
    *,
    calibration: Mapping[str, Array],
    held_out: HeldOut,
    max_accuracy_loss: float,
    at: datetime,
    who: str,
    progress: Progress = lambda _: None,
) -> Quantization:
    """Quantize one version, measure both, publish the new one.

    calibration: rows as model inputs; mode static takes the scales from them.
    Raises BadSettings for what cannot be asked for, or if the extra `quantize` is not installed; ModelInvalid if
    nothing in the model can be quantized or the loss is above the allowed one. Then nothing was published.
    """
    if not 0 <= max_accuracy_loss < 1:
        raise BadSettings(f"max-accuracy-loss is {max_accuracy_loss:g}, allowed 0 to below 1")
    stored = store.fetch(model, of_version)
    what = f"model {model!r} version {of_version}, {mode}"
    if not any(isinstance(output, ProbabilitiesOutput) for output in stored.manifest.outputs):
        raise BadSettings(f"{what}: it has no classes, so no accuracy could be lost or kept")
    progress(f"quantizing {what}")
    original = load_model(stored, RuntimePolicy())
    graph = quantized_graph(stored, mode, calibration)
    first = answers_of(
        graph, {name: tensor[:GOLDEN_ROWS] for name, tensor in held_out.tensors.items()}, original.outputs
    )
    quantized = load_draft(model, _card(stored.manifest, mode, held_out, first, LARGEST_ATOL), graph, at)
    before, after = score(original, held_out.tensors), score(quantized, held_out.tensors)
    found = agreement(original.outputs, before, after)
    rights = [_accuracy(original, answers, held_out) for answers in (before, after)]
    loss = 1 - found.same_class if rights[0] is None or rights[1] is None else rights[0] - rights[1]
    if not loss <= max_accuracy_loss:
        lost = "of the rows change their class" if rights[0] is None else f"of the accuracy is lost, {rights[0]:.4f}"
        raise ModelInvalid(f"{what}: {loss:.4f} {lost}, allowed {max_accuracy_loss:g}, over {found.rows} rows")
    neighbours = influence_of_neighbours(quantized, held_out.tensors, after)
    if 2 * neighbours > LARGEST_ATOL:
        raise ModelInvalid(f"{what}: an answer moves by {neighbours:.3g} with the batch that its row is in; try static")
    card = _card(stored.manifest, mode, held_out, first, max(SMALLEST_ATOL, 2 * neighbours))
    quantized = load_draft(model, card, graph, at)  # as every worker will
    progress("measuring both, in turn")
    speeds = rows_per_second((original, quantized), held_out.tensors)
    sizes = (sum(len(content) for content in stored.files.values()), len(graph))
    sides = [Measured(*side) for side in zip(sizes, speeds, rights, strict=True)]
    card = card.model_copy(update={"metrics": _metrics(sides, found, loss, neighbours)})
    progress(f"publishing to {store.url}")
    manifest = store.publish(model, card, {MODEL_FILE: graph}, at=at, who=who)
    return Quantization(manifest, sides[0], sides[1], found, loss, neighbours)


def influence_of_neighbours(model: OnnxModel, tensors: Mapping[str, Array], together: Mapping[str, Array]) -> float:
    """By how much answers move when rows are scored alone instead of in their batch; over the first rows."""
    n = min(ALONE_ROWS, len(next(iter(tensors.values()))))
    rows = [score(model, {name: tensor[i : i + 1] for name, tensor in tensors.items()}) for i in range(n)]
    alone = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return agreement(model.outputs, alone, {name: array[:n] for name, array in together.items()}).max_difference


def _card(manifest: Manifest, mode: Mode, held_out: HeldOut, answers: Mapping[str, Array], atol: float) -> ModelCard:
    """The card of the version it is made of, with golden rows and facts of its own."""
    facts = {
        **manifest.training,
        "quantized_from": manifest.version,
        "quantization": f"{mode} int8, 7-bit weights",
        "onnxruntime": version("onnxruntime"),
    }
    changes = {"golden": golden_rows(held_out.tensors, answers, atol), "training": facts, "metrics": {}}
    return ModelCard(**{name: getattr(manifest, name) for name in ModelCard.model_fields} | changes)


def _accuracy(model: OnnxModel, answers: Mapping[str, Array], held_out: HeldOut) -> float | None:
    if held_out.labels is None:
        return None
    output = next(output for output in model.outputs if isinstance(output, ProbabilitiesOutput))
    return accuracy(output, answers[output.name], held_out.labels)


def _metrics(sides: list[Measured], found: Agreement, loss: float, neighbours: float) -> dict[str, int | float]:
    before, after = sides
    metrics: dict[str, int | float] = {
        "held_out_rows": found.rows,
        "same_class_as_before": found.same_class,
        "max_difference_to_before": found.max_difference,
        "moved_by_neighbours": neighbours,
        "size_bytes": after.size_bytes,
        "size_bytes_before": before.size_bytes,
        "rows_per_second": after.rows_per_second,
        "rows_per_second_before": before.rows_per_second,
        "speed_up": after.rows_per_second / before.rows_per_second,
    }
    if before.accuracy is not None and after.accuracy is not None:
        metrics |= {"accuracy": after.accuracy, "accuracy_before": before.accuracy, "accuracy_loss": loss}
    return metrics
