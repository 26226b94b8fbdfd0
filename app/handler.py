"""What a pipeline's own code looks like: `pipelines[].handler: package.module:Class` (docs/HANDLERS.md).

    from app.handler import Handler, HandlerContext, Reason, RejectRows

This is all that such code needs of the program, and all that is promised to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy.typing as npt
import pyarrow as pa

from app.errors import Reason
from app.ports import Tensors
from app.specs import InputSpec, Output

__all__ = ["AnyHandler", "FieldColumns", "Handler", "HandlerContext", "Reason", "RejectRows", "Tensors"]

FieldColumns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """The one model version that a handler serves, and the columns it is given.

    digest: first 16 hex digits of the SHA-256 of model.onnx. event: names and types of every batch's columns.
    """

    model: str
    version: str
    digest: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[Output, ...]
    event: pa.Schema


class RejectRows(Exception):
    """Raise it in `preprocess` or `postprocess`: these rows are dead-lettered, the step is called again without them.

    rows: positions in the batch that the step was given, or a mask of its length. message: for the dead letter's
    header. Raises ValueError if the reason is not one of `Reason`.
    """

    def __init__(self, rows: npt.ArrayLike, reason: Reason | str, message: str) -> None:
        super().__init__(message)
        self.rows, self.reason, self.message = rows, Reason(reason), message


class AnyHandler(Protocol):
    """Any class that can be made without arguments and does this; it need not inherit from `Handler`.

    One instance serves one model version in one pipeline of one process. It is called by one thread at a time, not
    always by the same one. What a row becomes must depend on that row alone: batches are cut at will, and a step
    that fails is called again with fewer rows.
    """

    def initialize(self, context: HandlerContext) -> None:
        """Before anything else. Whatever it raises keeps the version from serving; at a start that is exit 2."""
        ...

    def preprocess(self, batch: pa.RecordBatch) -> Tensors:
        """Make the model's inputs of n >= 1 events.

        batch: columns as in `context.event`, read-only. Returns by input name one array of (n, width) or (n, *shape)
        of the dtype its InputSpec states; row i is event i. A row that is not finite is dead-lettered. May raise
        RejectRows.
        """
        ...

    def postprocess(self, outputs: Tensors) -> FieldColumns:
        """Make the fields of n >= 1 predictions.

        outputs: by output name, (n, classes) or (n,), finite, read-only. Returns one array of n rows for each
        prediction-schema field that the manifest's outputs fill, and for no other; row i answers row i. A value that
        is not what the manifest promises of its field is a bad output. May raise RejectRows.
        """
        ...


class Handler:
    """To inherit from: a step that is not overridden is done by the manifest's mapping, as without a handler.

    examples: events that `preprocess` must be able to handle, as dicts by field name; what is left out is null. They
    are tried before the version serves; later they tell a handler at fault from a bad record.
    """

    examples: ClassVar[Sequence[Mapping[str, object]]] = ()
    context: HandlerContext

    def initialize(self, context: HandlerContext) -> None:
        """As `AnyHandler.initialize`; keeps the context."""
        self.context = context

    def preprocess(self, batch: pa.RecordBatch) -> Tensors:
        """As `AnyHandler.preprocess`. The worker never calls this one."""
        raise NotImplementedError("the manifest's features")

    def postprocess(self, outputs: Tensors) -> FieldColumns:
        """As `AnyHandler.postprocess`. The worker never calls this one."""
        raise NotImplementedError("the manifest's outputs")
