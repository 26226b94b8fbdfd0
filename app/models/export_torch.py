"""PyTorch → ONNX, from what `torch.export.save` wrote (`.pt2`): the graph and its weights, no Python classes.

Such an archive may still hold pickled objects, so it needs the same trust as a pickle.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from app.models.original import Array, Original, as_columns
from app.specs import InputSpec, Output

OPSET = 18  # the oldest that PyTorch's exporter writes


def torch_original(source: Path, inputs: tuple[InputSpec, ...], outputs: tuple[Output, ...]) -> Original:
    """Convert an exported program; its inputs and outputs are the spec's, in order, with a free first dimension.

    Raises ValueError if it does not fit them.
    """
    program = torch.export.load(source)
    takes, gives = len(program.graph_signature.user_inputs), len(program.graph_signature.user_outputs)
    if (takes, gives) != (len(inputs), len(outputs)):
        raise ValueError(
            f"the program takes {takes} tensors and gives {gives}, the spec has {len(inputs)} and {len(outputs)}"
        )
    converted = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=[spec.name for spec in inputs],
        output_names=[output.name for output in outputs],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    if converted is None:
        raise ValueError("the exporter gave no graph")
    module = program.module()

    def answer(tensors: Mapping[str, Array]) -> dict[str, Array]:
        with torch.no_grad():
            given = module(*(torch.from_numpy(tensors[spec.name]) for spec in inputs))
        tuples = given if isinstance(given, tuple | list) else (given,)
        return {output.name: as_columns(tensor.numpy(), output) for output, tensor in zip(outputs, tuples, strict=True)}

    return Original(converted.model_proto.SerializeToString(), answer)
