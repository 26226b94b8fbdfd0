"""Model inputs from raw events, by a model's manifest.

Written apart from the worker, to be compared with it; slow and plain on purpose: it sees a sample only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption

Event = Mapping[str, Any]


def model_inputs(manifest: Mapping[str, Any], events: Sequence[Event]) -> dict[str, NDArray[Any]]:
    """One array per model input, row i for event i.

    Raises BadOption if the manifest asks for something this checker does not know, or if an event has no
    features (a missing value that the manifest does not replace): such an event should not have been
    predicted.
    """
    inputs = {}
    for spec in manifest["inputs"]:
        rows = [[number for feature in spec["features"] for number in _numbers(feature, event)] for event in events]
        array = np.array(rows, dtype=spec.get("dtype", "float32"))
        inputs[spec["name"]] = array.reshape(len(events), *spec["shape"]) if spec.get("shape") else array
    return inputs


def _numbers(feature: Mapping[str, Any], event: Event) -> list[float]:
    kind = str(feature.get("kind"))
    if kind not in KINDS:
        raise BadOption(f"the manifest has a feature of kind {kind!r}, which the checker does not know")
    return KINDS[kind](feature, event.get(feature["field"]))


def _number(feature: Mapping[str, Any], value: Any) -> list[float]:  # noqa: ANN401 - a field of any event
    if value is None:
        missing = feature.get("missing", "reject")
        if not isinstance(missing, Mapping) or "impute" not in missing:
            raise BadOption(f"{feature['field']} is missing and has no replacement")
        value = missing["impute"]
    return [float(value)]


def _one_hot(feature: Mapping[str, Any], value: Any) -> list[float]:  # noqa: ANN401
    return [float(value == category) for category in feature["categories"]]


def _ordinal(feature: Mapping[str, Any], value: Any) -> list[float]:  # noqa: ANN401
    if value not in feature["categories"]:
        raise BadOption(f"{feature['field']}: {value!r} is no known category")
    return [float(feature["categories"].index(value))]


def _tensor(feature: Mapping[str, Any], value: Any) -> list[float]:  # noqa: ANN401
    if not isinstance(value, list) or len(value) != feature["length"] or not all(map(math.isfinite, value)):
        raise BadOption(f"{feature['field']}: {feature['length']} finite numbers are needed")
    return value


KINDS: Mapping[str, Callable[[Mapping[str, Any], Any], list[float]]] = {
    "number": _number,
    "one_hot": _one_hot,
    "ordinal": _ordinal,
    "tensor": _tensor,
}
