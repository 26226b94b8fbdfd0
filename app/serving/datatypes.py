"""The Open Inference Protocol's datatypes and shapes, over REST and over gRPC: what they are called and may be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.serving.in_force import InForce
from app.serving.refusals import BadRequest

Array = npt.NDArray[Any]

BYTES = "BYTES"
# datatype → how its elements lie in memory, and in raw contents.
NUMBERS: Mapping[str, str] = {
    "BOOL": "|b1", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "|i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in NUMBERS.items()}
MOST_DIMENSIONS = 32  # what every NumPy has


def check_datatype(datatype: str, where: str) -> None:
    """Raises BadRequest if there is none of this name."""
    if datatype != BYTES and datatype not in NUMBERS:
        known = ", ".join([*NUMBERS, BYTES])
        raise BadRequest(f"{where}: {datatype[:64]!r} is none of {known}", field=where)


def checked_shape(shape: Sequence[int], where: str) -> tuple[int, ...]:
    """Raises BadRequest if it is none that a tensor of rows can have; no row is fine."""
    sizes = all(type(size) is int and 0 <= size < 2**31 for size in shape)
    if not 1 <= len(shape) <= MOST_DIMENSIONS or not sizes or 0 in shape[1:]:
        shown = str(list(shape[:8]))[:100]
        raise BadRequest(f"{where}: {shown}, needed is the number of rows, then what each has", field=where)
    return tuple(shape)


def check_size(shape: Sequence[int], most: "Most", where: str) -> None:
    """Raises BadRequest for more rows or elements than are taken, before anything is made of them."""
    if shape[0] > most.rows:
        message = f"{where}: {shape[0]} rows in one request, at most {most.rows} are taken"
        raise BadRequest(message, field=where, too_large=True)
    if math.prod(shape) > most.elements:
        message = f"{where}: shape {list(shape[:8])} has more than {most.elements} elements"
        raise BadRequest(message, field=where, too_large=True)


class Most:
    """How much one request may have. rows: of it. width: elements of one row, in whatever of its tensors."""

    __slots__ = ("elements", "rows")

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.elements = rows, rows * max(1, width)


def most_of(in_force: InForce, rows: int) -> Most:
    """For a model's tensors."""
    return Most(rows, max(events.width for events in in_force.by_lane))


def datatype_of(array: Array) -> str:
    """The protocol's name for what these elements are; text and bytes are BYTES."""
    return BYTES if array.dtype.kind in "OUS" else _NAMES[np.dtype(array.dtype).newbyteorder("=")]
