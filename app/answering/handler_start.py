"""From the name in the settings to a handler that is initialized and tried, or the reason why there is none.

A handler is the operator's code and may do anything when it is imported, made or initialized, end the process
included: whatever it raises there is told as HandlerInvalid.
"""

import importlib
import inspect
from collections.abc import Callable
from threading import Lock
from typing import cast

import numpy as np
import pyarrow as pa

from app.answering.handled_inputs import HandledPlan
from app.answering.handled_outputs import HandledOutputs
from app.errors import HandlerInvalid, ModelFailed
from app.handler import AnyHandler, Handler, HandlerContext
from app.pipeline.features.plan import FeaturePlan
from app.pipeline.handle import said
from app.pipeline.infer import OutputPolicy, infer
from app.ports import Model, Tensors
from app.records import Rejection

STEPS = ("initialize", "preprocess", "postprocess")


def handler_class(path: str) -> Callable[[], AnyHandler]:
    """The class at `package.module:Class`. Raises HandlerInvalid with the reason, whatever it is."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except BaseException as exc:  # SystemExit too: a module may do anything when it is imported
        raise HandlerInvalid(f"handler {path!r} cannot be imported: {said(exc)}") from exc
    if not inspect.isclass(found):
        raise HandlerInvalid(f"handler {path!r} is no class but a {type(found).__name__}")
    for step in STEPS:
        method = getattr(found, step, None)
        if not callable(method):
            raise HandlerInvalid(f"handler {path!r} has no method {step!r}")
        if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
            raise HandlerInvalid(f"handler {path!r}: {step} is a coroutine or a generator, expected a plain method")
    return cast("Callable[[], AnyHandler]", found)


def handled(
    path: str, model: Model, event: pa.Schema, golden: Tensors
) -> tuple[FeaturePlan | HandledPlan, HandledOutputs | None]:
    """A new handler for one version: what makes its inputs, and what makes its fields, None for the manifest's.

    event: the reader's columns. golden: inputs the model is known to answer. Raises HandlerInvalid, naming the
    handler; SchemaIncompatible where the manifest's features are used and do not fit.
    """
    handler = _started(handler_class(path), path, model, event)
    lock = Lock()
    try:
        outputs = HandledOutputs(handler, model, lock, golden) if _own(handler, "postprocess") else None
        if not _own(handler, "preprocess"):
            return FeaturePlan(model.inputs, event), outputs
        plan = HandledPlan(handler, model.inputs, lock, _examples(handler, event))
        tensors = plan.prove()
        if tensors is not None:
            rows = np.arange(len(next(iter(tensors.values()))))
            answered = (outputs.infer if outputs else infer)(model, tensors, rows, OutputPolicy())
            _check_answered(answered.rejected)
    except HandlerInvalid as exc:
        raise HandlerInvalid(f"handler {path!r}: {exc}") from exc
    except ModelFailed as exc:
        raise HandlerInvalid(f"handler {path!r}: the model fails on its golden rows or on the examples: {exc}") from exc
    return plan, outputs


def _started(made: Callable[[], AnyHandler], path: str, model: Model, event: pa.Schema) -> AnyHandler:
    context = HandlerContext(model.name, model.version, model.digest, model.inputs, model.outputs, event)
    what = "cannot be made without arguments"
    try:
        handler = made()
        what = "refuses in initialize"
        handler.initialize(context)
    except BaseException as exc:  # SystemExit too
        raise HandlerInvalid(f"handler {path!r} {what}: {said(exc)}") from exc
    for step in STEPS[1:]:
        try:
            inspect.signature(getattr(handler, step)).bind(None)
        except ValueError:
            continue  # not written in Python: nothing is known of it
        except TypeError as exc:
            raise HandlerInvalid(f"handler {path!r}: {step} does not take one argument: {exc}") from exc
    return handler


def _own(handler: AnyHandler, step: str) -> bool:
    return getattr(getattr(handler, step), "__func__", None) is not getattr(Handler, step)


def _examples(handler: AnyHandler, event: pa.Schema) -> pa.RecordBatch | None:
    try:
        examples = list(getattr(handler, "examples", ()))
        if not examples:
            return None
        if unknown := sorted({str(name) for example in examples for name in example} - set(event.names)):
            raise ValueError(f"events have no {', '.join(unknown)}")  # noqa: TRY301 - told like the others
        return pa.RecordBatch.from_pylist(examples, schema=event)
    except BaseException as exc:
        raise HandlerInvalid(f"its examples are no events: {said(exc)}") from exc


def _check_answered(rejected: list[Rejection]) -> None:
    if rejected:
        raise HandlerInvalid(f"example {rejected[0].row} has no prediction: {rejected[0].message}")
