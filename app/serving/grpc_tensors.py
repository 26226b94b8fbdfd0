"""Tensors of the Open Inference Protocol ⇄ NumPy arrays, in both forms that a message may have them in."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.serving.datatypes import (
    BYTES,
    MOST_DIMENSIONS,
    NUMBERS,
    Most,
    check_datatype,
    check_size,
    checked_shape,
    datatype_of,
)
from app.serving.refusals import BadRequest

Array = npt.NDArray[Any]
InputTensor = v2.ModelInferRequest.InferInputTensor

# Which field of InferTensorContents has the elements where there are no raw contents.
CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
LENGTH = struct.Struct("<I")


def inputs_of(request: v2.ModelInferRequest, most: Most) -> dict[str, Array]:
    """By name, of the shape and type that it says; BYTES is an array of `bytes` objects.

    Raises BadRequest, naming the input, if a tensor is not what it says, or more than is taken.
    """
    inputs, raw = request.inputs, request.raw_input_contents
    if not inputs:
        raise BadRequest("inputs: there are none")
    if raw and len(raw) != len(inputs):
        raise BadRequest(f"raw_input_contents: {len(raw)} of them for {len(inputs)} inputs")
    arrays: dict[str, Array] = {}
    for at, tensor in enumerate(inputs):
        where = f"inputs[{at}] ({tensor.name[:64]!r})"
        if tensor.name in arrays:
            raise BadRequest(f"{where}: there is another of this name")
        check_datatype(tensor.datatype, f"{where}: datatype")
        if raw and tensor.HasField("contents"):
            raise BadRequest(f"{where}: contents and raw_input_contents exclude each other")
        shape = checked_shape(tensor.shape[: MOST_DIMENSIONS + 1], f"{where}: shape")
        check_size(shape, most, where)
        if not shape[0]:
            raise BadRequest(f"{where}: it has no rows")
        flat = _raw(tensor.datatype, raw[at], shape, where) if raw else _typed(tensor, shape, where)
        arrays[tensor.name] = flat.reshape(shape)
    return arrays


def _raw(datatype: str, content: bytes, shape: tuple[int, ...], where: str) -> Array:
    count = math.prod(shape)
    if datatype == BYTES:
        return _strings(content, count, where)
    dtype = np.dtype(NUMBERS[datatype])
    if len(content) != count * dtype.itemsize:
        said = f"shape {list(shape)} of {datatype} is {count * dtype.itemsize}"
        raise BadRequest(f"{where}: raw contents of {len(content)} bytes, {said}")
    if datatype == "BOOL":  # any other byte than 1 is true too, and would be no boolean
        true: Array = np.frombuffer(content, np.uint8) != 0
        return true
    return np.frombuffer(content, dtype)


def _strings(content: bytes, count: int, where: str) -> Array:
    """(count,) of `bytes`. One by one: where an element begins is known only from the one before."""
    elements: list[bytes] = []
    at = 0
    while at < len(content) and len(elements) < count:
        if at + LENGTH.size > len(content):
            break
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(content, at)[0]
        if at > len(content):
            break
        elements.append(content[start:at])
    if len(elements) != count or at != len(content):
        raise BadRequest(f"{where}: raw contents of {len(content)} bytes are not {count} elements behind their lengths")
    return _objects(elements)


def _typed(tensor: InputTensor, shape: tuple[int, ...], where: str) -> Array:
    count = math.prod(shape)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise BadRequest(f"{where}: {tensor.datatype} comes in raw_input_contents only")
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled and filled != [field]:
        raise BadRequest(f"{where}: contents has {', '.join(filled)}, {tensor.datatype} is {field}")
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise BadRequest(f"{where}: {field} has {len(values)} elements, shape {list(shape)} is {count}")
    if tensor.datatype == BYTES:
        return _objects(values)
    dtype = np.dtype(NUMBERS[tensor.datatype])
    wide = np.array(values, np.int64 if dtype.kind in "iu" and dtype.itemsize < 8 else dtype)
    if wide.dtype != dtype:
        held = np.iinfo(dtype)
        if count and (wide.min() < held.min or wide.max() > held.max):
            raise BadRequest(f"{where}: {tensor.datatype} is {held.min} to {held.max}")
    narrow: Array = wide.astype(dtype)
    return narrow


def _objects(elements: Sequence[bytes]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def respond(response: v2.ModelInferResponse, outputs: Mapping[str, Array], *, raw: bool) -> None:
    """Add these outputs, in this order. raw: as raw_output_contents, which is how the request came then."""
    for name, array in outputs.items():
        datatype = datatype_of(array)
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(_raw_of(array, datatype))
        else:
            getattr(tensor.contents, CONTENTS[datatype]).extend(_elements(array, datatype))


def _raw_of(array: Array, datatype: str) -> bytes:
    if datatype == BYTES:
        return b"".join(LENGTH.pack(len(element)) + element for element in _elements(array, datatype))
    return np.ascontiguousarray(array, NUMBERS[datatype]).tobytes()


def _elements(array: Array, datatype: str) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    if datatype != BYTES:
        return values
    return [value.encode() if isinstance(value, str) else value for value in values]
