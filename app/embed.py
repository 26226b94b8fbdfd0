"""The core as a library: load a version from a store and predict. No Kafka, no server, no settings file.

    from app.embed import load

    churn = load("file:///srv/models", "churn")
    for answer in churn.predict([{"age": 42, "plan": "basic", ...}]):
        print(answer["prediction"], answer["probability"], answer["model_version"])

`arrow_function` is the same for Ray Data and Spark. Everything raises `app.errors.AppError` and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from app.clock import SystemClock
from app.errors import BadSettings, ModelInvalid
from app.models.model_store import ModelStore, open_store
from app.models.rollout import ROLLOUT
from app.models.runtime import RuntimePolicy, load_model
from app.pipeline.infer import OutputPolicy
from app.ports import ModelChooser
from app.scoring.arrow_function import ArrowFunction, answer
from app.scoring.scorer import OneVersion, Scorer

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

    def __call__(self) -> Scorer:
        """Raises ModelMissing, or ModelInvalid if a version is not what it was then."""
        page = page_of(self.version, self.rollout)
        runtime = RuntimePolicy(intra_op_threads=self.threads, max_rows=MAX_ROWS)
        return scorer_of(open_store(self.store, Path(self.base)), self.model, page, dict(self.digests), runtime)


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


def load(store: str, model: str, version: str | None = None, *, threads: int = 1) -> Predictor:
    """Load a version, or whatever the rollout in force needs, verified and warm.

    store: a folder or a file://, s3://, gs:// or az:// URL. threads: of the runtime, within one model call.
    Raises ModelMissing, ModelInvalid, NotReachable or StoreRefused.
    """
    return Predictor(arrow_function(store, model, version, threads=threads).load())


def arrow_function(
    store: str,
    model: str,
    version: str | None = None,
    *,
    key: str | None = None,
    keep: tuple[str, ...] = (),
    threads: int = 1,
) -> ArrowFunction:
    """RecordBatch → RecordBatch, for Ray Data's `map_batches` (batch_format="pyarrow") and Spark's `mapInArrow`.

    Which versions answer is decided here and now, for every process that will be handed the function. The processes
    need this package and the store; they load what was decided when their first batch comes.
    """
    opened, base = open_store(store, Path.cwd()), str(Path.cwd())
    page = None if version is not None else opened.rollout(model)
    chosen = page or page_of(version, None)
    digests = tuple((name, opened.manifest(model, name).model_digest) for name in chosen.versions)
    text = None if page is None else page.model_dump_json()
    return ArrowFunction(LoadFromStore(store, base, model, version, text, digests, threads), key, keep)


def page_of(version: str | None, rollout: str | None) -> ModelChooser:
    """The page that was in force, from its JSON, or the version that was chosen instead."""
    if rollout is not None:
        return ROLLOUT.validate_json(rollout)
    if version is None:
        raise BadSettings("neither a rollout nor a version is named")
    return OneVersion(version)


def scorer_of(
    store: ModelStore,
    model: str,
    page: ModelChooser,
    digests: Mapping[str, str],
    runtime: RuntimePolicy,
    outputs: OutputPolicy | None = None,
) -> Scorer:
    """Load every version that an arm of the page names. Raises ModelInvalid if one has another digest than stated."""
    models = {}
    for version in dict.fromkeys(arm.version for arm in page.arms):
        loaded = load_model(store.fetch(model, version), runtime)
        if loaded.digest != digests.get(version, loaded.digest):
            raise ModelInvalid(f"model {model!r} version {version} is {loaded.digest}, it was {digests[version]}")
        models[version] = loaded
    return Scorer(page, models, SystemClock(), outputs)


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
