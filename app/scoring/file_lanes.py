"""From a loaded version to one that answers rows of files: a lane of the stream's lineup, without an encoder."""

from collections.abc import Mapping
from typing import NamedTuple

from app.answering.breaker import Breaker
from app.answering.handled_inputs import HandledPlan
from app.answering.handler_start import handled
from app.answering.lineup import Lane
from app.clock import Clock
from app.errors import SchemaIncompatible
from app.pipeline.encode.predictions import Answerer
from app.ports import Model, Tensors
from app.scoring.file_inputs import FileInputs, HandledFileInputs, MappedInputs
from app.scoring.steps import Steps
from app.specs import Constant


class FileLane(NamedTuple):
    """A version in no part yet, and what makes its inputs, which is the lane's plan."""

    lane: Lane
    inputs: FileInputs


def file_lane(
    model: Model,
    steps: Steps,
    clock: Clock,
    constant: Mapping[str, Constant] | None = None,
    golden: Tensors | None = None,
) -> FileLane:
    """A loaded version, ready for columns.

    constant: what its manifest answers while it fails. golden: inputs that the model is known to answer, for a
    handler. Raises HandlerInvalid; SchemaIncompatible for a version of other events than the pipeline's.
    """
    if steps.event_schema is not None and model.event_schema != steps.event_schema:
        raise SchemaIncompatible(
            f"model {model.name!r} version {model.version} is for the event schema {model.event_schema}, the others "
            f"for {steps.event_schema}: name one version"
        )
    inputs: FileInputs = MappedInputs(model.inputs)
    outputs = None
    if steps.handler is not None and steps.event is not None:
        plan, outputs = handled(steps.handler, model, steps.event, golden or {})
        if isinstance(plan, HandledPlan):
            inputs = HandledFileInputs(plan, steps.event)
    breaker = Breaker(steps.retry_s, clock)
    return FileLane(Lane(inputs, None, Answerer(model), breaker, constant, outputs=outputs), inputs)
