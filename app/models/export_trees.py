"""LightGBM and XGBoost → ONNX, from their own text, JSON and binary formats: boosters, and no pickle.

The original answers the same float32 rows that the worker would send, so a threshold that float32 cannot tell
apart shows as a difference.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnxmltools.convert import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from app.models.export import keep_output
from app.models.original import Array, Original, as_columns, only_one
from app.specs import InputSpec, Output, ProbabilitiesOutput

OPSET = 15  # the newest that onnxmltools 1.16 writes


def lightgbm_original(source: Path, name: str, inputs: tuple[InputSpec, ...], outputs: tuple[Output, ...]) -> Original:
    """Convert what `Booster.save_model` wrote. Raises ValueError if it does not fit the inputs and outputs."""
    import lightgbm  # noqa: PLC0415 - XGBoost can do without it

    only_one(inputs, outputs, ("float32",))
    spec, output = inputs[0], outputs[0]
    booster = lightgbm.Booster(model_file=str(source), params={"num_threads": 1})
    _check_width(booster.num_feature(), spec)
    model = convert_lightgbm(booster, name=name, initial_types=_types(spec), target_opset=OPSET, zipmap=False)

    def answer(tensors: Mapping[str, Array]) -> dict[str, Array]:
        return {output.name: as_columns(np.asarray(booster.predict(tensors[spec.name])), output)}

    return Original(_named(model, output), answer)


def xgboost_original(source: Path, name: str, inputs: tuple[InputSpec, ...], outputs: tuple[Output, ...]) -> Original:
    """Convert what `Booster.save_model` wrote, JSON or UBJSON. Raises ValueError if it does not fit the spec."""
    import xgboost  # noqa: PLC0415 - LightGBM can do without it

    only_one(inputs, outputs, ("float32",))
    spec, output = inputs[0], outputs[0]
    booster = xgboost.Booster({"nthread": 1}, model_file=str(source))
    _check_width(booster.num_features(), spec)
    booster.feature_names = booster.feature_types = None  # the converter knows columns by number only

    def answer(tensors: Mapping[str, Array]) -> dict[str, Array]:
        return {output.name: as_columns(booster.predict(xgboost.DMatrix(tensors[spec.name])), output)}

    model = convert_xgboost(booster, name=name, initial_types=_types(spec), target_opset=OPSET)
    return Original(_named(model, output), answer)


def _check_width(found: int, spec: InputSpec) -> None:
    if found != spec.width:
        raise ValueError(f"the model was trained on {found} columns, the features of {spec.name!r} make {spec.width}")


def _types(spec: InputSpec) -> list[tuple[str, Any]]:
    return [(spec.name, FloatTensorType([None, spec.width]))]


def _named(model: Any, output: Output) -> bytes:  # noqa: ANN401 - a protobuf message
    found = "probabilities" if isinstance(output, ProbabilitiesOutput) else "variable"
    return keep_output(model, found, output.name)
