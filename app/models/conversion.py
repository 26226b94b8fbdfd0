"""The process in which a model of another framework becomes ONNX; started by `sandbox.py`, by nobody else.

It is confined before this file is imported. It loads the source, converts it, asks the original for its answers to
the held-out rows, and leaves the graph and one file of float64 numbers per output in its working directory. Whoever
wrote the source may be in control of this process by then: nothing it leaves is trusted, and nothing is a pickle.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from app.models.original import Original
from app.specs import InputSpec, Output, Spec

Framework = Literal["sklearn", "lightgbm", "xgboost", "pytorch"]

TASK_FILE = "task.json"
GRAPH_FILE = "graph"
LONGEST_MESSAGE = 400  # characters of an error that travel to the one who asked


class Task(Spec):
    """What is to be converted. source: name of the file in the working directory."""

    framework: Framework
    name: str
    source: str
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]


def main() -> None:
    """Convert what the working directory's task says; an error is the last line on standard error."""
    sys.excepthook = _one_line
    here = Path.cwd()
    task = Task.model_validate_json((here / TASK_FILE).read_bytes())
    original = _LOADERS[task.framework](here / task.source, task)
    tensors = {spec.name: np.load(here / input_file(i)) for i, spec in enumerate(task.inputs)}
    answers = original.answer(tensors)
    for i, output in enumerate(task.outputs):
        answers[output.name].astype(np.float64).tofile(here / output_file(i))
    (here / GRAPH_FILE).write_bytes(original.graph)


def input_file(i: int) -> str:
    """Where the i-th input's held-out rows are."""
    return f"input-{i}.npy"


def output_file(i: int) -> str:
    """Where the original's answers for the i-th output are to be."""
    return f"output-{i}"


def _sklearn(source: Path, task: Task) -> Original:
    import joblib  # noqa: PLC0415 - the one place that unpickles, and only here

    estimator = joblib.load(source)
    from app.models.export import sklearn_original  # noqa: PLC0415 - the extra may not be installed

    return sklearn_original(estimator, task.name, task.inputs, task.outputs)


def _lightgbm(source: Path, task: Task) -> Original:
    from app.models.export_trees import lightgbm_original  # noqa: PLC0415 - the extra may not be installed

    return lightgbm_original(source, task.name, task.inputs, task.outputs)


def _xgboost(source: Path, task: Task) -> Original:
    from app.models.export_trees import xgboost_original  # noqa: PLC0415 - the extra may not be installed

    return xgboost_original(source, task.name, task.inputs, task.outputs)


def _pytorch(source: Path, task: Task) -> Original:
    from app.models.export_torch import torch_original  # noqa: PLC0415 - the extra may not be installed

    return torch_original(source, task.inputs, task.outputs)


_LOADERS: dict[Framework, Callable[[Path, Task], Original]] = {
    "sklearn": _sklearn,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "pytorch": _pytorch,
}


def _one_line(kind: type[BaseException], exc: BaseException, _: TracebackType | None) -> None:
    text = " ".join(f"{kind.__name__}: {exc}".split())
    print(text[:LONGEST_MESSAGE], file=sys.stderr, flush=True)  # noqa: T201 - to sandbox.py
