"""What the load generator knows about a pipeline's events: columns, keys, and the true answers."""

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UNKNOWN_TRUTH = -1
ID_DIGITS = 8


class Pipeline(Protocol):
    """One kind of event. Everything is a pure function of the seed and the numbers asked for."""

    name: str
    event_schema: str  # stem of the schema file
    prediction_schema: str
    id_field: str  # in the event and in the prediction; its UTF-8 bytes are the record's key
    poison_kinds: tuple[str, ...]

    def columns(self, numbers: NDArray[np.int64]) -> pa.RecordBatch:
        """Return the events about these numbers: all fields of today's event schema but event_time."""

    def truth(self, ids: pa.Array) -> NDArray[np.int64]:
        """Return the true class of each id; UNKNOWN_TRUTH where the id is none of ours."""


def numbered_ids(prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
    """`<prefix><number>`, the number zero-padded to 8 digits or longer, without a Python object per row."""
    if len(numbers) == 0 or numbers.max() >= 10**ID_DIGITS:
        return pa.array([f"{prefix}{number:0{ID_DIGITS}d}" for number in numbers.tolist()], pa.string())
    width = len(prefix) + ID_DIGITS
    text = np.empty((len(numbers), width), dtype=np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix.encode(), dtype=np.uint8)
    rest = numbers.copy()
    for column in range(width - 1, len(prefix) - 1, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, column] = digit + ord("0")
    offsets = np.arange(0, len(numbers) * width + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def id_numbers(prefix: str, ids: pa.Array) -> NDArray[np.int64]:
    """Return the numbers of ids `numbered_ids` made; -1 where an id is something else."""
    ours = pc.fill_null(pc.match_substring_regex(ids, f"^{prefix}[0-9]{{{ID_DIGITS},17}}$"), fill_value=False)
    digits = pc.if_else(ours, pc.utf8_slice_codeunits(ids, len(prefix)), pa.scalar("-1"))
    numbers: NDArray[np.int64] = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
    return numbers
