"""What a model takes and gives: the feature and output mapping of its manifest.

One definition, shared by the manifest on disk, the feature step, the output step and training, so that the
same model sees the same numbers everywhere. Everything here is frozen and validated on construction.
"""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Quantity = Literal["class", "positive", "probability", "confidence", "probabilities", "value"]


class Spec(BaseModel):
    """Frozen, and refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Impute(Spec):
    """A missing value is replaced by `impute`."""

    impute: float


Missing = Literal["reject"] | Impute


class NumberFeature(Spec):
    """One number, one column. Bounds are inclusive; values that are not finite are always rejected."""

    kind: Literal["number"] = "number"
    field: str
    min: float | None = None
    max: float | None = None
    missing: Missing = "reject"

    @property
    def width(self) -> int:
        """Columns of the input tensor that this feature fills."""
        return 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.field, self.min, self.max)
        return self


class OneHotFeature(Spec):
    """One category, one column per known category; `ignore` leaves an unknown or missing one all zero."""

    kind: Literal["one_hot"] = "one_hot"
    field: str
    categories: Annotated[tuple[str, ...], Field(min_length=1)]
    unknown: Literal["reject", "ignore"] = "reject"
    missing: Literal["reject", "ignore"] = "reject"

    @property
    def width(self) -> int:
        """Columns of the input tensor that this feature fills."""
        return len(self.categories)


class OrdinalFeature(Spec):
    """One category as its index in `categories`."""

    kind: Literal["ordinal"] = "ordinal"
    field: str
    categories: Annotated[tuple[str, ...], Field(min_length=1)]
    unknown: Literal["reject"] = "reject"
    missing: Literal["reject"] = "reject"

    @property
    def width(self) -> int:
        """Columns of the input tensor that this feature fills."""
        return 1


class TensorFeature(Spec):
    """An array of exactly `length` numbers. Bounds are inclusive and hold for every element."""

    kind: Literal["tensor"] = "tensor"
    field: str
    length: Annotated[int, Field(gt=0)]
    min: float | None = None
    max: float | None = None
    missing: Literal["reject"] = "reject"

    @property
    def width(self) -> int:
        """Columns of the input tensor that this feature fills."""
        return self.length

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.field, self.min, self.max)
        return self


Feature = Annotated[NumberFeature | OneHotFeature | OrdinalFeature | TensorFeature, Field(discriminator="kind")]


class InputSpec(Spec):
    """One model input: the features side by side, in this order.

    The tensor is (n, width), C-contiguous; with `shape` each row is reshaped to it.
    """

    name: str
    dtype: Literal["float32", "float64", "int64", "int32"] = "float32"
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    shape: tuple[int, ...] | None = None

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(feature.width for feature in self.features)

    @model_validator(mode="after")
    def _shape_holds_the_row(self) -> Self:
        if self.shape is not None and math.prod(self.shape) != self.width:
            msg = f"input {self.name!r}: shape {self.shape} does not hold {self.width} numbers"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _replacements_fit(self) -> Self:
        for feature in self.features:
            if isinstance(feature, NumberFeature) and isinstance(feature.missing, Impute):
                value = feature.missing.impute
                whole = self.dtype in {"int32", "int64"}
                limit = {"float32": 3.4028234e38, "int32": 2.0**31 - 1, "int64": 2.0**53}.get(self.dtype)
                if (whole and not value.is_integer()) or (limit is not None and abs(value) > limit):
                    msg = f"{feature.field!r}: impute {value} is not a value of {self.dtype}"
                    raise ValueError(msg)
        return self


def _class_fields() -> dict[str, Quantity]:
    return {"prediction": "class", "confidence": "confidence"}


def _value_fields() -> dict[str, Quantity]:
    return {"value": "value"}


class ProbabilitiesOutput(Spec):
    """Class probabilities, (n, n_classes). `fields` maps prediction-schema fields to what is derived of them.

    class          the predicted class: argmax, or with `threshold` (two classes) the second if p >= threshold
    positive       whether that is the second class (two classes only)
    probability    of the second class (two classes only)
    confidence     probability of the predicted class
    probabilities  the whole row
    """

    kind: Literal["probabilities"] = "probabilities"
    name: str
    classes: Annotated[tuple[int, ...] | tuple[str, ...], Field(min_length=2)]
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    fields: dict[str, Quantity] = Field(default_factory=_class_fields)

    @model_validator(mode="after")
    def _binary_where_needed(self) -> Self:
        binary = sorted({"positive", "probability"} & set(self.fields.values()))
        if len(self.classes) != 2 and (self.threshold is not None or binary):
            msg = f"output {self.name!r}: threshold, positive and probability need exactly two classes"
            raise ValueError(msg)
        if "value" in self.fields.values():
            msg = f"output {self.name!r}: 'value' belongs to outputs of kind 'value'"
            raise ValueError(msg)
        return self

    def winners(self, probabilities: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """(n, n_classes) → (n,) index of the predicted class. The one place that decides it."""
        if self.threshold is None:
            return np.asarray(probabilities.argmax(axis=1), np.intp)
        return (probabilities[:, 1] >= self.threshold).astype(np.intp)


class ValueOutput(Spec):
    """One number per row, (n,) or (n, 1): a regression. Bounds are inclusive."""

    kind: Literal["value"] = "value"
    name: str
    min: float | None = None
    max: float | None = None
    fields: dict[str, Quantity] = Field(default_factory=_value_fields)

    @model_validator(mode="after")
    def _only_the_value(self) -> Self:
        _check_bounds(self.name, self.min, self.max)
        if set(self.fields.values()) != {"value"}:
            msg = f"output {self.name!r}: a field of a 'value' output can only be 'value'"
            raise ValueError(msg)
        return self


Output = Annotated[ProbabilitiesOutput | ValueOutput, Field(discriminator="kind")]

Constant = bool | int | float | str | tuple[float, ...]


class FallbackAnswer(Spec):
    """What is answered where no version can: a value for each prediction-schema field that the outputs fill."""

    fields: dict[str, Constant]

    def check(self, outputs: tuple[Output, ...]) -> None:
        """Raises ValueError, naming the field, if these outputs could not have given this answer."""
        wanted = {name: (spec, quantity) for spec in outputs for name, quantity in spec.fields.items()}
        if self.fields.keys() != wanted.keys():
            found, needed = (", ".join(sorted(names)) or "none" for names in (self.fields, wanted))
            raise ValueError(f"fallback has the fields {found}, the outputs fill {needed}")
        for name, (spec, quantity) in wanted.items():
            if not _could_be(self.fields[name], spec, quantity):
                raise ValueError(f"fallback.{name}: {self.fields[name]!r} is no {quantity} of output {spec.name!r}")


def _could_be(value: Constant, spec: Output, quantity: Quantity) -> bool:
    if isinstance(spec, ProbabilitiesOutput):
        if quantity == "class":  # True == 1: the type has to be right as well
            return any(type(value) is type(label) and value == label for label in spec.classes)
        if quantity == "positive":
            return isinstance(value, bool)
        if quantity == "probabilities":
            return isinstance(value, tuple) and len(value) == len(spec.classes) and _is_distribution(value)
    if isinstance(value, bool | str | tuple):
        return False
    low, high = (spec.min, spec.max) if isinstance(spec, ValueOutput) else (0.0, 1.0)
    return (low is None or value >= low) and (high is None or value <= high)


def _is_distribution(values: tuple[float, ...]) -> bool:
    return min(values) >= 0 and abs(math.fsum(values) - 1) <= 1e-4


def _check_bounds(name: str, low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        msg = f"{name!r}: min {low} is above max {high}"
        raise ValueError(msg)
