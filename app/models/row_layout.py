"""How the arrays of one row lie beside one another as bytes, and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.specs import InputSpec

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.uint8]  # (n, width): the bytes of n rows


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Named arrays whose first axis is the row; `shapes` are of one row."""

    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of_inputs(cls, inputs: Sequence[InputSpec]) -> Self:
        """Of a model's input tensors."""
        return cls(
            tuple(spec.name for spec in inputs),
            tuple(np.dtype(spec.dtype) for spec in inputs),
            tuple(spec.shape if spec.shape is not None else (spec.width,) for spec in inputs),
        )

    @classmethod
    def of_answers(cls, answers: Mapping[str, Array], rows: int) -> Self | None:
        """Of a model's answers to so many rows; None if they are no numbers, or not one of each row."""
        found = cls(
            tuple(answers),
            tuple(array.dtype for array in answers.values()),
            tuple(array.shape[1:] for array in answers.values()),
        )
        plain = all(dtype.kind in "fiub" for dtype in found.dtypes)
        return found if plain and found.width and found.fits(answers, rows) else None

    @property
    def width(self) -> int:
        """Bytes per row."""
        return sum(self._widths())

    def fits(self, arrays: Mapping[str, Array], rows: int | None = None) -> bool:
        """Whether these are such arrays of equally many rows, and of so many if it is said; never of none."""
        if len(arrays) != len(self.names):
            return False
        for name, dtype, shape in zip(self.names, self.dtypes, self.shapes, strict=True):
            array = arrays.get(name)
            if array is None or array.ndim == 0 or array.dtype != dtype or array.shape[1:] != shape:
                return False
            rows = len(array) if rows is None else rows
            if not rows or len(array) != rows:
                return False
        return True

    def pack(self, arrays: Mapping[str, Array]) -> Rows:
        """The bytes of each row, (n, width), C-contiguous. The arrays fit; of a single one no copy is made."""
        parts = [
            np.ascontiguousarray(arrays[name]).reshape(len(arrays[name]), -1).view(np.uint8) for name in self.names
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def unpack(self, rows: Rows) -> dict[str, Array]:
        """The arrays again, C-contiguous. rows: (n, width), C-contiguous; of a single array no copy is made."""
        arrays, start = {}, 0
        for name, dtype, shape, width in zip(self.names, self.dtypes, self.shapes, self._widths(), strict=True):
            part = np.ascontiguousarray(rows[:, start : start + width])
            arrays[name] = part.view(dtype).reshape(len(rows), *shape)
            start += width
        return arrays

    def text(self) -> str:
        """The same for equal layouts only."""
        return repr([*zip(self.names, (dtype.str for dtype in self.dtypes), self.shapes, strict=True)])

    def _widths(self) -> tuple[int, ...]:
        return tuple(dtype.itemsize * math.prod(shape) for dtype, shape in zip(self.dtypes, self.shapes, strict=True))


def as_bytes(rows: Rows) -> list[bytes]:
    """One byte string a row; (n, width), width >= 1."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
