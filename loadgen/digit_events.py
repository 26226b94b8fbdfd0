"""Digit events: scikit-learn's real handwritten digits, over and over.

digit_id is "digit-<dataset index>-<number>": the true label is that of the dataset's image, whoever sent it.
"""

import importlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loadgen.errors import MissingExtra
from loadgen.pipeline import UNKNOWN_TRUTH

PIXELS = 64


@dataclass(frozen=True, slots=True)
class Digits:
    """images: (n, 64) float32, 0 to 16. labels: (n,) int64, 0 to 9."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @staticmethod
    def load() -> "Digits":
        """Return the dataset that scikit-learn ships. Raises MissingExtra if scikit-learn is absent."""
        try:
            datasets = importlib.import_module("sklearn.datasets")
        except ImportError as error:
            raise MissingExtra(
                "the digits are scikit-learn's: install the extra, kafka-inference-worker[train]"
            ) from error
        bunch = datasets.load_digits()
        return Digits(images=bunch.data.astype(np.float32), labels=bunch.target.astype(np.int64))


class DigitEvents:
    """Event number k is image k modulo the size of the dataset, in the dataset's order."""

    name = "digits"
    event_schema = "digit_event"
    prediction_schema = "digit_prediction"
    id_field = "digit_id"
    poison_kinds: tuple[str, ...] = (
        "bad_marker",
        "short_frame",
        "truncated",
        "bad_utf8",
        "trailing_bytes",
        "unknown_schema",
        "out_of_range",
        "not_finite",
        "bad_shape",
    )

    def __init__(self, digits: Digits) -> None:
        self._digits = digits

    def columns(self, numbers: NDArray[np.int64]) -> pa.RecordBatch:
        """See Pipeline."""
        indexes = numbers % len(self._digits.labels)
        ids = [f"digit-{index}-{number}" for index, number in zip(indexes.tolist(), numbers.tolist(), strict=True)]
        offsets = np.arange(0, len(numbers) * PIXELS + 1, PIXELS, dtype=np.int32)
        pixels = np.ascontiguousarray(self._digits.images[indexes]).reshape(-1)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(ids, pa.string()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(pixels)),
            ],
            ["digit_id", "pixels"],
        )

    def truth(self, ids: pa.Array) -> NDArray[np.int64]:
        """See Pipeline: the digit that was written."""
        parsed = pc.extract_regex(ids, r"^digit-(?P<index>[0-9]{1,9})-[0-9]{1,17}$")
        indexes = pc.fill_null(pc.cast(pc.struct_field(parsed, "index"), pa.int64()), -1)
        found: NDArray[np.int64] = indexes.to_numpy(zero_copy_only=False)
        known = (found >= 0) & (found < len(self._digits.labels))
        answers = np.full(len(found), UNKNOWN_TRUTH, dtype=np.int64)
        answers[known] = self._digits.labels[found[known]]
        return answers
