"""A model as its own framework has it, beside what the converter made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.specs import InputSpec, Output, ProbabilitiesOutput

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Original:
    """graph: the ONNX bytes, with the manifest's input and output names.

    answer: from model inputs to what the original says, by output name, (n, numbers of the output).
    """

    graph: bytes
    answer: Callable[[Mapping[str, Array]], dict[str, Array]]


def width_of(output: Output) -> int:
    """Numbers per row of an output."""
    return len(output.classes) if isinstance(output, ProbabilitiesOutput) else 1


def only_one(inputs: tuple[InputSpec, ...], outputs: tuple[Output, ...], dtypes: tuple[str, ...]) -> None:
    """Raise ValueError unless there is one input, (n, width) of an allowed dtype, and one output."""
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"such a model has one input and one output, the spec has {len(inputs)} and {len(outputs)}")
    if inputs[0].dtype not in dtypes or inputs[0].shape is not None:
        raise ValueError(f"its input is a table of {' or '.join(dtypes)}, the spec says {inputs[0].dtype} with a shape")


def as_columns(answers: Array, output: Output) -> Array:
    """Shape the original's answers as (n, numbers of the output); (n,) of two classes is the second one's.

    Raises ValueError if they do not have that many.
    """
    width = width_of(output)
    if answers.ndim == 1 and isinstance(output, ProbabilitiesOutput) and width == 2:
        answers = np.stack([1 - answers, answers], axis=1)
    answers = answers.reshape(len(answers), -1)
    if answers.shape[1] != width:
        raise ValueError(f"the model gives {answers.shape[1]} numbers a row, output {output.name!r} has {width}")
    return answers
