"""The core as a library: load a version from a store and predict. No Kafka, no server, no settings file.

    from app.embed import load

    churn = load("file:///srv/models", "churn")
    for answer in churn.predict([{"age": 42, "plan": "basic", ...}]):
        print(answer["prediction"], answer["probability"], answer["model_version"])

`arrow_function` is the same for Ray Data and Spark. Both take the `Steps` of a pipeline, its handler and its fallback
chain, which `app.wiring.pipeline_steps.steps_of` reads from a worker's settings. Everything raises
`app.errors.AppError` and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from app.clock import Clock, SystemClock
from app.errors import AppError, BadSettings, ModelInvalid, ModelMissing
from app.models.model_store import ModelStore, open_store
from app.models.rollout import ROLLOUT
from app.models.runtime import RuntimePolicy, golden_tensors, load_model
from app.ports import ModelChooser
from app.scoring.arrow_function import ArrowFunction, answer
from app.scoring.file_lanes import FileLane, file_lane
from app.scoring.one_version import OneVersion
from app.scoring.scorer import Scorer, common_fields
from app.scoring.steps import Steps

MAX_ROWS = 4096  # given to a model at a time: its numbers stay in the processor's caches


@dataclass(frozen=True, slots=True)
class LoadFromStore:
    """The order to load what a rollout page, or a version instead, needs; it can be sent to another process.

    base: what a relative store is relative to. rollout: the page in force when this was ordered, as JSON, so that
    every process answers by the same one. digests: (version, digest) of each version that can answer.
    """

    store: str
    base: str
    model: str
    version: str | None
    rollout: str | None
    digests: tuple[tuple[str, str], ...]
    threads: int = 1
    steps: Steps = field(default_factory=Steps)

    def __call__(self) -> Scorer:
        """Raises ModelMissing, HandlerInvalid, or ModelInvalid if a version is not what it was then."""
        page = page_of(self.version, self.rollout)
        runtime = RuntimePolicy(intra_op_threads=self.threads, max_rows=MAX_ROWS)
        store = open_store(self.store, Path(self.base))
        return scorer_of(store, self.model, page, dict(self.digests), runtime, self.steps)


class Predictor:
    """A loaded version, or the versions of a rollout. Any thread may call it; calls are answered one at a time."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def fields(self) -> list[str]:
        """What rows are asked for, in the order of the manifest."""
        return self._scorer.fields

    def predict(self, rows: Sequence[Mapping[str, Any]], *, key: str | None = None) -> list[dict[str, Any]]:
        """One answer per row, in order: the fields of the model's outputs and who gave it.

        rows: events by field name; what the model does not know is left out, what is absent is missing. A row that
        cannot be predicted has `rejected_reason` and `rejected_message` instead of values. key: the field that a
        rollout goes by.
        """
        if not rows:
            return []
        names = list(dict.fromkeys([*self.fields, *([key] if key is not None else [])]))
        columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
        return self.score(pa.RecordBatch.from_pydict(columns), key=key).to_pylist()  # type: ignore[no-any-return]

    def score(self, rows: pa.RecordBatch, *, key: str | None = None, keep: tuple[str, ...] = ()) -> pa.RecordBatch:
        """The same in columns. keep: columns of the input to put before the answers."""
        return answer(self._scorer, rows, key, keep)


def load(
    store: str, model: str, version: str | None = None, *, threads: int = 1, steps: Steps | None = None
) -> Predictor:
    """Load a version, or whatever the rollout in force needs, verified and warm.

    store: a folder or a file://, s3://, gs:// or az:// URL. threads: of the runtime, within one model call.
    steps: what a pipeline has beside the model. Raises ModelMissing, ModelInvalid, HandlerInvalid, NotReachable or
    StoreRefused.
    """
    return Predictor(arrow_function(store, model, version, threads=threads, steps=steps).load())


def arrow_function(
    store: str,
    model: str,
    version: str | None = None,
    *,
    key: str | None = None,
    keep: tuple[str, ...] = (),
    threads: int = 1,
    steps: Steps | None = None,
) -> ArrowFunction:
    """RecordBatch → RecordBatch, for Ray Data's `map_batches` (batch_format="pyarrow") and Spark's `mapInArrow`.

    Which versions answer is decided here and now, for every process that will be handed the function. The processes
    need this package, the store and the module of the steps' handler; they load what was decided when their first
    batch comes.
    """
    opened, base, steps = open_store(store, Path.cwd()), str(Path.cwd()), steps or Steps()
    page = None if version is not None else opened.rollout(model)
    digests = digests_of(opened, model, page or page_of(version, None), steps)
    text = None if page is None else page.model_dump_json()
    order = LoadFromStore(store, base, model, version, text, tuple(digests.items()), threads, steps)
    return ArrowFunction(order, key, keep)


def page_of(version: str | None, rollout: str | None) -> ModelChooser:
    """The page that was in force, from its JSON, or the version that was chosen instead."""
    if rollout is not None:
        return ROLLOUT.validate_json(rollout)
    if version is None:
        raise BadSettings("neither a rollout nor a version is named")
    return OneVersion(version)


def digests_of(store: ModelStore, model: str, page: ModelChooser, steps: Steps) -> dict[str, str]:
    """The digest of every version that may answer: those of the arms and, if it is there and wanted, the previous.

    Raises ModelMissing.
    """
    found = {arm.version: store.manifest(model, arm.version).model_digest for arm in page.arms}
    before = page.previous if steps.fallback.previous else None
    if before is not None and before not in found:
        try:
            found[before] = store.manifest(model, before).model_digest
        except ModelMissing as exc:
            _no_previous(model, before, exc)
    return found


def scorer_of(
    store: ModelStore,
    model: str,
    page: ModelChooser,
    digests: Mapping[str, str],
    runtime: RuntimePolicy,
    steps: Steps,
) -> Scorer:
    """Load every version of `digests`, as `digests_of` gives them: what it does not have will not answer.

    Raises ModelInvalid if one has another digest than stated, HandlerInvalid. The previous version, which only
    answers if others fail, does not keep them from answering.
    """
    clock, arms = SystemClock(), {arm.version for arm in page.arms}
    lanes: dict[str, FileLane] = {}
    for version in dict.fromkeys([*(arm.version for arm in page.arms), *digests]):
        try:
            lane = _lane(store, model, version, digests[version], runtime, steps, clock)
            common_fields([each.lane for each in (*lanes.values(), lane)])
        except AppError as exc:
            if version in arms:
                raise
            _no_previous(model, version, exc)
        else:
            lanes[version] = lane
    return Scorer(page, lanes, clock, steps)


def _lane(
    store: ModelStore, model: str, version: str, digest: str, runtime: RuntimePolicy, steps: Steps, clock: Clock
) -> FileLane:
    stored = store.fetch(model, version)
    loaded = load_model(stored, runtime)
    if loaded.digest != digest:
        raise ModelInvalid(f"model {model!r} version {version} is {loaded.digest}, it was {digest}")
    fallback = stored.manifest.fallback
    constant = fallback.fields if fallback else None
    return file_lane(loaded, steps, clock, constant, golden_tensors(stored.manifest))


def _no_previous(model: str, version: str, why: AppError) -> None:
    log = structlog.get_logger()
    log.warning("no_previous_version", model=model, version=version, error=type(why).__name__, reason=str(why))


def _column(name: str, values: list[Any]) -> pa.Array:
    """Values as a column; of several types, as text, which the numbers among it are read from again."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        texts = [None if value is None else str(value) for value in values]
    if any(isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes) for value in values):
        raise BadSettings(f"{name}: its values are neither all numbers nor all lists of numbers")
    try:
        return pa.array(texts)
    except (pa.ArrowException, UnicodeError) as exc:
        raise BadSettings(f"{name}: {exc}") from exc
