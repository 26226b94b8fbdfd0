"""Event columns → answers in columns, by whichever version each row's key is given to.

The steps are the stream's own (`pipeline/features.py`, `pipeline/infer.py`), and so is the choice: the same key and
features get the same version and the same answer. A version that is at fault itself ends the work, except one that is
only tried out: stable answers for it, as everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from app.clock import Clock
from app.errors import BadSettings, ModelFailed, SchemaIncompatible
from app.pipeline.features import FeaturePlan, check_fields
from app.pipeline.infer import OutputPolicy, infer
from app.ports import Model, ModelChooser
from app.records import Columns, IntArray, Rejection
from app.scoring.casts import ColumnCasts, fields_of
from app.specs import Output, ProbabilitiesOutput

FALLBACK = "fallback"
TEXT = pa.dictionary(pa.int32(), pa.string())
PROVENANCE = (
    pa.field("model_version", TEXT),
    pa.field("answered_by", TEXT),
    pa.field("rollout_revision", pa.int32()),
    pa.field("predicted_at", pa.timestamp("us", "UTC")),
)


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a table's rows. Every row is in exactly one of the two.

    answers: one row per answered one: the fields of the manifest's outputs, then the provenance.
    rows: (m,) which rows those answer, rising. rejected: the others, rising.
    """

    answers: pa.RecordBatch
    rows: IntArray
    rejected: list[Rejection]


@dataclass(frozen=True, slots=True)
class _Answered:
    """The rows of one arm. arm: index into the page's arms, len(arms) for the fallback."""

    fields: Mapping[str, npt.NDArray[Any]]
    rows: IntArray
    rejected: list[Rejection]
    arm: int


@dataclass(frozen=True, slots=True)
class OneVersion:
    """In place of a page, where somebody named a version; a `ports.ModelChooser`. Revision 0: no rollout decided."""

    version: str
    name: str = "requested"
    strategy: str = "requested"
    revision: int = 0
    previous: str | None = None

    @property
    def arms(self) -> Sequence["OneVersion"]:
        """It is its own only arm."""
        return (self,)

    @property
    def versions(self) -> Sequence[str]:
        """The one."""
        return (self.version,)

    def choose(self, keys: Sequence[bytes | None]) -> IntArray | None:  # noqa: ARG002 - the protocol's
        """It answers all."""
        return None


class Scorer:
    """The versions of one page, ready for columns.

    models: by version, every one that an arm of the page names. Raises SchemaIncompatible if their answers have
    different fields. Any thread may call it; one at a time is inside.
    """

    def __init__(
        self, page: ModelChooser, models: Mapping[str, Model], clock: Clock, outputs: OutputPolicy | None = None
    ) -> None:
        self._page, self._models, self._clock = page, models, clock
        self._outputs = outputs or OutputPolicy()
        self._arms = tuple(page.arms)
        stable = models[self._arms[0].version]
        self._fields = _fields(stable)
        for arm in self._arms[1:]:
            if _fields(models[arm.version]) != self._fields:
                raise SchemaIncompatible(
                    f"versions {stable.version} and {arm.version} of {stable.name!r} fill different fields, which "
                    "cannot be the columns of one table: name one with --version"
                )
        self._inputs_of = {version: _Inputs(model) for version, model in models.items()}
        self._names = pa.array([*(arm.name for arm in self._arms), FALLBACK])
        self._versions = pa.array([*(arm.version for arm in self._arms), self._arms[0].version])
        self._log = structlog.get_logger()
        self._inside = Lock()  # compiled feature plans are one thread's at a time

    @property
    def schema(self) -> pa.Schema:
        """Of the answers."""
        return pa.schema([*self._fields, *PROVENANCE])

    @property
    def fields(self) -> list[str]:
        """Names of the columns that some version is fed from."""
        return list(dict.fromkeys(name for model in self._models.values() for name in fields_of(model.inputs)))

    @property
    def categories(self) -> list[str]:
        """Those of them that hold categories: few values, many times each."""
        specs = (spec for model in self._models.values() for spec in model.inputs)
        kinds = {feature.field: feature.kind for spec in specs for feature in spec.features}
        return [name for name, kind in kinds.items() if kind in {"one_hot", "ordinal"}]

    def check(self, schema: pa.Schema) -> None:
        """Raises SchemaIncompatible, naming the field, if a version cannot be fed from such columns."""
        for model in self._models.values():
            check_fields(model.inputs, ColumnCasts(model.inputs, schema).schema)

    def score(self, table: pa.RecordBatch, keys: pa.Array | None = None) -> Scored:
        """Answer or reject each row. keys: (n,) as `keys.key_column` gives them; without, stable answers all.

        Raises SchemaIncompatible as `check`, and ModelFailed if stable is at fault itself.
        """
        with self._inside:
            return self._score(table, keys)

    def _score(self, table: pa.RecordBatch, keys: pa.Array | None) -> Scored:
        everything = Columns(table, np.arange(table.num_rows, dtype=np.int64))
        chosen = None
        if keys is not None and len(keys) and len(self._arms) > 1:  # keys become objects only where they matter
            chosen = self._page.choose(keys.to_pylist())
        if chosen is None:
            return self._scored([self._answer(0, everything)])
        parts = []
        for arm in np.unique(chosen).tolist():
            rows = np.flatnonzero(chosen == arm)
            parts += self._answer_or_fall_back(arm, Columns(table.take(pa.array(rows)), rows))
        return self._scored(parts)

    def _answer_or_fall_back(self, arm: int, columns: Columns) -> list[_Answered]:
        try:
            return [self._answer(arm, columns)]
        except ModelFailed as exc:
            version, stable = self._arms[arm].version, self._arms[0].version
            if version == stable:
                raise
            self._log.warning("stable_answers_instead", version=version, reason=str(exc))
            return [self._answer(len(self._arms), columns)]

    def _answer(self, arm: int, columns: Columns) -> _Answered:
        version = self._versions[arm].as_py()
        model, steps = self._models[version], self._inputs_of[version]
        try:
            cast_columns, rejected = steps.casts(columns.table.schema).apply(columns)
        except pa.ArrowInvalid as exc:
            raise BadSettings(f"the columns are damaged: {exc}") from exc
        features = steps.plan(cast_columns.table.schema).apply(cast_columns)
        rejected += features.rejected
        if not len(features.rows):
            return _Answered({}, features.rows, rejected, arm)
        inference = infer(model, features.tensors, features.rows, self._outputs)
        return _Answered(inference.fields, inference.rows, rejected + inference.rejected, arm)

    def _scored(self, parts: list[_Answered]) -> Scored:
        now_us = self._clock.now_ms() * 1000
        rejected = sorted((item for part in parts for item in part.rejected), key=lambda item: item.row)
        tables = [self._table(part, now_us) for part in parts]
        if len(parts) == 1:
            return Scored(tables[0], parts[0].rows, rejected)
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        return Scored(pa.concat_batches(tables).take(pa.array(order)), rows[order], rejected)

    def _table(self, part: _Answered, now_us: int) -> pa.RecordBatch:
        count = len(part.rows)
        arrays = [
            _arrow(part.fields[item.name], item.type) if count else pa.nulls(0, item.type) for item in self._fields
        ]
        arm = pa.array(np.full(count, part.arm, np.int32))
        arrays += [pa.DictionaryArray.from_arrays(arm, words) for words in (self._versions, self._names)]
        arrays.append(pa.array(np.full(count, self._page.revision, np.int32)))
        arrays.append(pa.array(np.full(count, now_us)).view(PROVENANCE[-1].type))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _Inputs:
    """One version's casts and feature plan, compiled when the first columns come."""

    def __init__(self, model: Model) -> None:
        self._inputs = model.inputs
        self._casts: ColumnCasts | None = None
        self._plan: FeaturePlan | None = None

    def casts(self, schema: pa.Schema) -> ColumnCasts:
        if self._casts is None:
            self._casts = ColumnCasts(self._inputs, schema)
        return self._casts

    def plan(self, schema: pa.Schema) -> FeaturePlan:
        if self._plan is None:
            self._plan = FeaturePlan(self._inputs, schema)
        return self._plan


def _fields(model: Model) -> list[pa.Field]:
    return [pa.field(name, _type(spec, name)) for spec in model.outputs for name in spec.fields]


def _type(spec: Output, name: str) -> pa.DataType:
    """As the stream's predictions have it."""
    if not isinstance(spec, ProbabilitiesOutput):
        return pa.float64()
    quantity = spec.fields[name]
    if quantity == "class":
        if isinstance(spec.classes[0], str):
            return pa.string()
        return pa.int32() if all(-(2**31) <= int(label) < 2**31 for label in spec.classes) else pa.int64()
    if quantity == "positive":
        return pa.bool_()
    return pa.list_(pa.float64()) if quantity == "probabilities" else pa.float64()


def _arrow(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        rows, width = values.shape
        flat = pa.array(np.ascontiguousarray(values, np.float64).reshape(-1))
        return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width)), flat)
    if pa.types.is_string(kind):
        return pa.array(values, kind)
    return pa.array(np.ascontiguousarray(values, kind.to_pandas_dtype()))
