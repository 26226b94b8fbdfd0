"""A handler's `preprocess` in the place of the feature step (docs/HANDLERS.md).

It is isolated as the model is. Rows that it fails on are found and rejected; if it fails on rows that are known to be
good as well, it is at fault itself and no record is rejected for it: that is the model version failing. Known to be
good are its examples, or else the first rows that it handled.
"""

from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import HandlerFailed, HandlerInvalid, Reason, Stage
from app.handler import AnyHandler
from app.pipeline.features.plan import Features
from app.pipeline.handle import BadStep, Verdict, called, isolated, not_finite, rejections_of, tensors_of
from app.ports import Tensors
from app.records import Columns, IntArray, Rejection
from app.specs import InputSpec

Array = npt.NDArray[Any]

KNOWN_ROWS = 8  # kept of the first batch that was handled: to be handled again costs next to nothing
# Between a row alone and beside others: vector units may round otherwise at the end of an array.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


class HandledPlan:
    """A handler's `preprocess` in the place of a FeaturePlan. Any thread; one at a time is inside.

    lock: held while the handler is at work, whichever of its steps.
    """

    def __init__(
        self, handler: AnyHandler, inputs: tuple[InputSpec, ...], lock: Lock, examples: pa.RecordBatch | None
    ) -> None:
        self._handler, self._inputs, self._lock, self._known = handler, inputs, lock, examples

    def apply(self, columns: Columns) -> Features:
        """As `FeaturePlan.apply`; a handler at fault is its `failure`, and then no row is rejected."""
        if not len(columns.rows):
            return Features(self._nothing(), columns.rows, [])
        try:
            with self._lock:
                return self._apply(columns.table, columns.rows)
        except HandlerFailed as exc:
            return Features({}, columns.rows, [], exc)

    def _apply(self, table: pa.RecordBatch, rows: IntArray) -> Features:
        handled = isolated(lambda positions: self._made(_taken(table, positions)), len(rows), self.check)
        tensors, kept = handled.columns, handled.positions
        rejected = rejections_of(handled, rows, Stage.FEATURES)
        if len(kept) and (bad := not_finite(tensors)).any():
            self.check()
            rejected += [_not_finite_input(tensors, int(i), int(rows[kept[i]])) for i in np.flatnonzero(bad)]
            rejected.sort(key=lambda item: item.row)
            tensors, kept = {name: tensor[~bad] for name, tensor in tensors.items()}, kept[~bad]
        if self._known is None and len(kept):
            self._known = _taken(table, kept[:KNOWN_ROWS], copied=True)
        return Features(tensors if len(kept) else self._nothing(), rows[kept], rejected)

    def check(self) -> None:
        """Raises HandlerFailed if rows that are known to be good fail now. None are known before the first."""
        if self._known is None:
            return
        try:
            self._made(self._known, finite=True)
        except Verdict:
            return  # it has not failed: it may know more by now
        except BadStep as exc:
            raise HandlerFailed(f"the handler is at fault, not the records: known good rows fail too: {exc}") from exc

    def prove(self) -> Tensors | None:
        """The examples' tensors, the same for each alone; None if there are none. Raises HandlerInvalid."""
        if self._known is None:
            return None
        try:
            tensors = self._made(self._known, finite=True)
            alone = [self._made(self._known.slice(row, 1)) for row in range(self._known.num_rows)]
        except Verdict as exc:
            raise HandlerInvalid(f"it rejects an example: {exc.error}: {exc}") from exc
        except BadStep as exc:
            raise HandlerInvalid(f"it fails on its examples: {exc}") from exc
        for name, tensor in tensors.items():
            if not np.allclose(tensor, np.concatenate([one[name] for one in alone]), RELATIVE, ABSOLUTE):
                raise HandlerInvalid(f"input {name!r} of an example is another alone than beside the others")
        return tensors

    def _made(self, batch: pa.RecordBatch, *, finite: bool = False) -> dict[str, Array]:
        """Raises Verdict, or BadStep; that too if all has to be finite and is not."""
        count = batch.num_rows
        tensors = called(self._handler.preprocess, batch, count, lambda made: tensors_of(made, self._inputs, count))
        if finite and not_finite(tensors).any():
            raise BadStep(Reason.NOT_FINITE, "BadHandlerOutput", "preprocess gave what is not finite")
        return tensors

    def _nothing(self) -> dict[str, Array]:
        return {
            spec.name: np.empty((0, spec.width) if spec.shape is None else (0, *spec.shape), spec.dtype)
            for spec in self._inputs
        }


def _taken(table: pa.RecordBatch, positions: IntArray, *, copied: bool = False) -> pa.RecordBatch:
    return table if len(positions) == table.num_rows and not copied else table.take(pa.array(positions))


def _not_finite_input(tensors: Tensors, index: int, row: int) -> Rejection:
    bad = next(name for name, tensor in tensors.items() if not np.isfinite(tensor[index]).all())
    message = f"preprocess gave input {bad!r} what is not finite"
    return Rejection(row, Stage.FEATURES, Reason.NOT_FINITE, "BadHandlerOutput", message)
