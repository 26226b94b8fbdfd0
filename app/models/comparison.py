"""How two versions of a model differ: what their manifests say, what they measured, what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.models.manifest import Manifest
from app.models.runtime import OnnxModel, golden_tensors
from app.specs import ProbabilitiesOutput

# Compared in full or shown apart; these differ between any two versions and say nothing.
_ALWAYS_DIFFERENT = frozenset({"version", "created_at", "digest", "golden", "metrics", "reference"})


@dataclass(frozen=True, slots=True)
class Metric:
    """A measurement of both, None where one has none."""

    name: str
    a: float | None
    b: float | None


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output over the golden rows of both versions.

    decided_otherwise: rows for which another class, or with a threshold another side of it, comes out; None for
    outputs that decide nothing.
    """

    name: str
    rows: int
    largest: float
    mean: float
    decided_otherwise: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Version b against version a.

    manifest: what is not the same, by its place in the manifest, as (a, b). outputs: None if the versions take other
    inputs or give other outputs, so that no row can be put to both.
    """

    model: str
    a: str
    b: str
    same_files: bool
    manifest: Mapping[str, tuple[Any, Any]]
    metrics: tuple[Metric, ...]
    outputs: tuple[OutputDifference, ...] | None


def differences(a: Manifest, b: Manifest, models: tuple[OnnxModel, OnnxModel]) -> Difference:
    """models: the two versions, loaded. Raises ModelFailed if one of them fails on the other's golden rows."""
    places = {**_places(a), **_places(b)}
    changed = {place: (_places(a).get(place), _places(b).get(place)) for place in places}
    names = sorted({*a.metrics, *b.metrics})
    return Difference(
        model=a.model,
        a=a.version,
        b=b.version,
        same_files=a.digest == b.digest,
        manifest={place: pair for place, pair in changed.items() if pair[0] != pair[1]},
        metrics=tuple(Metric(name, a.metrics.get(name), b.metrics.get(name)) for name in names),
        outputs=_answers(a, b, models) if (a.inputs, a.outputs) == (b.inputs, b.outputs) else None,
    )


def _places(manifest: Manifest) -> dict[str, Any]:
    """Every value of a manifest by its path; features and outputs by their place in the list."""
    found: dict[str, Any] = {}

    def walk(place: str, value: Any) -> None:  # noqa: ANN401 - JSON
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(f"{place}.{key}" if place else str(key), item)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                walk(f"{place}[{index}]", item)
        else:
            found[place] = value

    walk("", manifest.model_dump(mode="json", exclude=set(_ALWAYS_DIFFERENT)))
    return found


def _answers(a: Manifest, b: Manifest, models: tuple[OnnxModel, OnnxModel]) -> tuple[OutputDifference, ...]:
    first, second = golden_tensors(a), golden_tensors(b)
    rows = {name: np.concatenate([first[name], second[name]]) for name in first}
    answers = [model.run(rows) for model in models]
    found = []
    for output in a.outputs:
        one, other = (
            answer[output.name].reshape(len(answer[output.name]), -1).astype(np.float64) for answer in answers
        )
        apart = np.abs(one - other)
        decisions = None
        if isinstance(output, ProbabilitiesOutput):
            decisions = int((output.winners(one) != output.winners(other)).sum())
        found.append(OutputDifference(output.name, len(one), float(apart.max()), float(apart.mean()), decisions))
    return tuple(found)
