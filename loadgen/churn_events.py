"""Churn events: the generated customers of `churn.py` as event columns."""

from collections import OrderedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadgen.churn import ChurnFormula, Customers
from loadgen.pipeline import UNKNOWN_TRUTH, id_numbers, numbered_ids

PREFIX = "cust-"
KEPT_BLOCKS = 512  # 2 million customers, about 120 MB: a whole skewed population is drawn once


class ChurnEvents:
    """GENERATED data, labelled as such: see `schemas/churn_generated.json`."""

    name = "churn"
    event_schema = "churn_event"
    prediction_schema = "churn_prediction"
    id_field = "customer_id"
    poison_kinds: tuple[str, ...] = (
        "bad_marker",
        "short_frame",
        "truncated",
        "bad_utf8",
        "bad_union_index",
        "bad_enum_index",
        "trailing_bytes",
        "unknown_schema",
        "out_of_range",
        "not_finite",
    )

    def __init__(self, formula: ChurnFormula, seed: int) -> None:
        self._formula = formula
        self._seed = seed
        self._blocks: OrderedDict[int, Customers] = OrderedDict()

    def columns(self, numbers: NDArray[np.int64]) -> pa.RecordBatch:
        """See Pipeline. plan is the index into the enum's symbols; total_charges is null where missing."""
        of = self._customers(numbers)
        return pa.RecordBatch.from_arrays(
            [
                numbered_ids(PREFIX, numbers),
                pa.array(of.age),
                pa.array(of.income),
                pa.array(of.tenure_months),
                pa.array(of.monthly_charges),
                pa.array(of.total_charges, mask=np.isnan(of.total_charges)),
                pa.array(of.plan),
            ],
            [
                "customer_id",
                "age",
                "income",
                "tenure_months",
                "monthly_charges",
                "total_charges",
                "plan",
            ],
        )

    def truth(self, ids: pa.Array) -> NDArray[np.int64]:
        """See Pipeline: 1 where the customer churned, 0 where not."""
        numbers = id_numbers(PREFIX, ids)
        known = numbers >= 0
        answers = np.full(len(numbers), UNKNOWN_TRUTH, dtype=np.int64)
        answers[known] = self._customers(numbers[known]).churned
        return answers

    def _customers(self, numbers: NDArray[np.int64]) -> Customers:
        """Return the customers of these numbers, in this order."""
        size = self._formula.block_size
        if len(numbers) == 0:
            return self._block(0).take(slice(0, 0))
        blocks, rows = np.divmod(numbers, size)
        if len(numbers) == 1 or (np.diff(numbers) == 1).all():
            parts = []
            for block in range(int(blocks[0]), int(blocks[-1]) + 1):
                start = int(rows[0]) if block == blocks[0] else 0
                stop = int(rows[-1]) + 1 if block == blocks[-1] else size
                parts.append(self._block(block).take(slice(start, stop)))
            return parts[0] if len(parts) == 1 else Customers.concatenate(parts)
        order = np.argsort(blocks, kind="stable")
        bounds = np.flatnonzero(np.diff(blocks[order])) + 1
        groups = np.split(order, bounds)
        gathered = Customers.concatenate([self._block(int(blocks[group[0]])).take(rows[group]) for group in groups])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return gathered.take(back)

    def _block(self, index: int) -> Customers:
        block = self._blocks.pop(index, None)
        if block is None:
            block = self._formula.block(self._seed, index)
        self._blocks[index] = block
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return block
