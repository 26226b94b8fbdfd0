"""A column as it lies in memory: where it is, where it is null, and what is noted of a row that cannot be predicted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import Reason, SchemaIncompatible
from app.specs import Feature

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
# Local row -> why it cannot be predicted. Features are visited in manifest order and the first entry stays.
Refused = dict[int, tuple[Reason, str]]


def column_index(feature: Feature, schema: pa.Schema) -> int:
    """Where the feature's field is. Raises SchemaIncompatible, naming it, if it is not there."""
    index: int = schema.get_field_index(feature.field)
    if index < 0:
        raise SchemaIncompatible(
            f"the model needs the field {feature.field!r}, the schema has {', '.join(schema.names)}"
        )
    return index


def numbers_of(array: pa.Array) -> tuple[Array, Mask | None]:
    """View the array's own memory; and where it is null, None for nowhere. Values at nulls mean nothing."""
    if array.type == pa.bool_():
        array = array.cast(pa.uint8())
    if not array.null_count:
        return array.to_numpy(), None
    valid, data = array.buffers()
    start, n = array.offset, len(array)
    first_byte, first_bit = divmod(start, 8)
    octets = np.frombuffer(valid, np.uint8, (first_bit + n + 7) // 8, first_byte)
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(data, dtype, n, start * dtype.itemsize)
    return values, np.unpackbits(octets, bitorder="little")[first_bit : first_bit + n] == 0


def nulls_of(array: pa.Array) -> Mask:
    """(n,) where it is null."""
    nulls: Mask = array.is_null().to_numpy(zero_copy_only=False)
    return nulls
