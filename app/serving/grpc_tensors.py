"""Tensors of the Open Inference Protocol ⇄ NumPy arrays, in both forms that a message may have them in."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.serving.refusals import BadRequest

Array = npt.NDArray[Any]
InputTensor = v2.ModelInferRequest.InferInputTensor

BYTES = "BYTES"
# datatype → how its elements lie in raw contents, and which field of InferTensorContents has them otherwise.
NUMBERS: Mapping[str, tuple[str, str | None]] = {
    "BOOL": ("|b1", "bool_contents"),
    "UINT8": ("|u1", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "INT8": ("|i1", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "FP16": ("<f2", None),
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
}
LENGTH = struct.Struct("<I")
MOST_DIMENSIONS = 32  # what every NumPy has


def inputs_of(request: v2.ModelInferRequest) -> dict[str, Array]:
    """By name, of the shape and type that it says; BYTES is an array of `bytes` objects.

    Raises BadRequest, naming the input, if a tensor is not what it says.
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
        if tensor.datatype != BYTES and tensor.datatype not in NUMBERS:
            known = ", ".join([*NUMBERS, BYTES])
            raise BadRequest(f"{where}: datatype {tensor.datatype[:64]!r}, allowed {known}")
        if raw and tensor.HasField("contents"):
            raise BadRequest(f"{where}: contents and raw_input_contents exclude each other")
        shape = _shape(tensor.shape, where)
        flat = _raw(tensor.datatype, raw[at], shape, where) if raw else _typed(tensor, shape, where)
        arrays[tensor.name] = flat.reshape(shape)
    return arrays


def _shape(shape: Sequence[int], where: str) -> tuple[int, ...]:
    if not 1 <= len(shape) <= MOST_DIMENSIONS or min(shape) < 1:
        raise BadRequest(
            f"{where}: shape {list(shape)[:8]}, needed is the number of rows, then what each has; no empty ones"
        )
    return tuple(shape)


def _raw(datatype: str, content: bytes, shape: tuple[int, ...], where: str) -> Array:
    count = math.prod(shape)
    if datatype == BYTES:
        return _strings(content, count, where)
    dtype = np.dtype(NUMBERS[datatype][0])
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
    field = "bytes_contents" if tensor.datatype == BYTES else NUMBERS[tensor.datatype][1]
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
    dtype = np.dtype(NUMBERS[tensor.datatype][0])
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


def datatype_of(array: Array) -> str:
    """The protocol's name for what these elements are; text and bytes are BYTES."""
    if array.dtype.kind in "OUS":
        return BYTES
    kind = np.dtype(array.dtype)
    return next(name for name, (code, _) in NUMBERS.items() if np.dtype(code) == kind)


def respond(response: v2.ModelInferResponse, outputs: Mapping[str, Array], *, raw: bool) -> None:
    """Add these outputs, in this order. raw: as raw_output_contents, which is how the request came then."""
    for name, array in outputs.items():
        datatype = datatype_of(array)
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(_raw_of(array, datatype))
        else:
            field = "bytes_contents" if datatype == BYTES else NUMBERS[datatype][1]
            getattr(tensor.contents, field or "").extend(_elements(array, datatype))


def _raw_of(array: Array, datatype: str) -> bytes:
    if datatype == BYTES:
        return b"".join(LENGTH.pack(len(element)) + element for element in _elements(array, datatype))
    return np.ascontiguousarray(array, NUMBERS[datatype][0]).tobytes()


def _elements(array: Array, datatype: str) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    if datatype != BYTES:
        return values
    return [value.encode() if isinstance(value, str) else value for value in values]
