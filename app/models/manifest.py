"""What the model store knows about one version of a model: the page beside `model.onnx`.

The mapping of features and outputs is `specs.py`; here are its frame, the golden rows that a loaded model
must reproduce, and the training reference that drift is later measured against.
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from app.specs import FallbackAnswer, InputSpec, Output, Spec

MODEL_FILE = "model.onnx"

MODEL_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
VERSION = r"[1-9][0-9]{0,8}"
# No separators and no leading dot: a file of a version cannot lie outside its folder. Only the graph and its
# external tensors: a library of custom operators would be code, and a version is data.
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}\.(onnx|data)"

ModelName = Annotated[str, StringConstraints(pattern=f"^{MODEL_NAME}$")]
Version = Annotated[str, StringConstraints(pattern=f"^{VERSION}$")]
FileName = Annotated[str, StringConstraints(pattern=f"^{FILE_NAME}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Rows = Annotated[tuple[tuple[int | float, ...], ...], Field(min_length=1)]


class Golden(Spec):
    """Rows whose answer is known: a model that was loaded right gives `outputs` for `inputs` within `atol`.

    inputs, outputs: by name, one row of numbers each, an input's row before it takes its shape.
    """

    inputs: dict[str, Rows]
    outputs: dict[str, Rows]
    atol: Annotated[float, Field(gt=0, le=0.1)] = 1e-5

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        tables = [*self.inputs.values(), *self.outputs.values()]
        if len({len(rows) for rows in tables}) > 1:
            raise ValueError("golden rows: inputs and outputs differ in their number of rows")
        if any(len({len(row) for row in rows}) > 1 for rows in tables):
            raise ValueError("golden rows: the rows of one input or output differ in length")
        return self


class NumberReference(Spec):
    """How a number, or the elements of an array, were distributed in training, over the values present.

    bins: the edges, one more than `counts`; the first and the last value of the training data are inside.
    missing: share of rows without a value.
    """

    kind: Literal["number"] = "number"
    mean: float
    std: Annotated[float, Field(ge=0)]
    bins: Annotated[tuple[float, ...], Field(min_length=2)]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _edges_surround_counts(self) -> Self:
        if len(self.bins) != len(self.counts) + 1 or list(self.bins) != sorted(set(self.bins)):
            raise ValueError("reference: bins are the rising edges around counts, one more of them")
        return self


class CategoryReference(Spec):
    """How often each category occurred in training. missing: share of rows without a value."""

    kind: Literal["category"] = "category"
    counts: dict[str, Annotated[int, Field(ge=0)]]
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0


Reference = Annotated[NumberReference | CategoryReference, Field(discriminator="kind")]


class ModelCard(Spec):
    """What training knows about a model before the store gives it a version.

    data: what it was trained on, in words; "generated" where the rows describe nobody.
    training: how to make it again (estimator, rows, seed, library versions).
    fallback: what to answer while the model itself fails, for pipelines that want that.
    """

    data: str
    event_schema: str
    prediction_schema: str
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    golden: Golden
    reference: dict[str, Reference] = Field(default_factory=dict)
    metrics: dict[str, int | float] = Field(default_factory=dict)
    training: dict[str, int | float | str] = Field(default_factory=dict)
    fallback: FallbackAnswer | None = None

    @model_validator(mode="after")
    def _golden_rows_are_of_these_inputs_and_outputs(self) -> Self:
        _check_names("inputs", [spec.name for spec in self.inputs], self.golden.inputs)
        _check_names("outputs", [spec.name for spec in self.outputs], self.golden.outputs)
        for spec in self.inputs:
            width = len(self.golden.inputs[spec.name][0])
            if width != spec.width:
                msg = f"golden rows of {spec.name!r} have {width} numbers, its features make {spec.width}"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _a_prediction_field_has_one_source(self) -> Self:
        fields = [field for output in self.outputs for field in output.fields]
        twice = sorted({field for field in fields if fields.count(field) > 1})
        if twice:
            raise ValueError(f"more than one output fills {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _the_fallback_could_be_an_answer(self) -> Self:
        if self.fallback is not None:
            self.fallback.check(self.outputs)
        return self


class Manifest(ModelCard):
    """One version of one model, as `manifest.json` has it."""

    format: Literal[1] = 1
    model: ModelName
    version: Version
    digest: dict[FileName, Digest]
    created_at: AwareDatetime

    @property
    def model_digest(self) -> str:
        """First 16 hex digits of the SHA-256 of model.onnx, as predictions carry it."""
        return self.digest[MODEL_FILE].removeprefix("sha256:")[:16]

    @model_validator(mode="after")
    def _has_a_graph(self) -> Self:
        if MODEL_FILE not in self.digest:
            raise ValueError(f"digest: {MODEL_FILE} is not listed")
        return self


def _check_names(what: str, names: list[str], golden: dict[str, Rows]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{what}: a name occurs twice in {', '.join(names)}")
    if set(names) != set(golden):
        raise ValueError(f"golden rows have the {what} {', '.join(golden)}, the model {', '.join(names)}")
