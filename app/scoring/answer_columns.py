"""Answers as Arrow columns: the fields that a manifest's outputs fill, and who gave them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.pipeline.encode.predictions import output_type
from app.ports import Model

TEXT = pa.dictionary(pa.int32(), pa.string())
PROVENANCE = (
    pa.field("model_version", TEXT),
    pa.field("answered_by", TEXT),
    pa.field("rollout_revision", pa.int32()),
    pa.field("predicted_at", pa.timestamp("us", "UTC")),
)


def answer_fields(model: Model) -> list[pa.Field]:
    """What its answers fill, with the types that the stream's predictions have."""
    return [pa.field(name, output_type(spec, name)) for spec in model.outputs for name in spec.fields]


def answer_column(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """values: (m,), or (m, k) for a list."""
    if pa.types.is_list(kind):
        rows, width = values.shape
        flat = pa.array(np.ascontiguousarray(values, np.float64).reshape(-1))
        return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width)), flat)
    if pa.types.is_string(kind):
        return pa.array(values, kind)
    return pa.array(np.ascontiguousarray(values, kind.to_pandas_dtype()))
