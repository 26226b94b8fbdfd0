"""Train one of the shipped models and publish it: fit, convert, load as the worker will, measure, store.

scikit-learn is imported only here, when it is asked for: nothing that serves needs it.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from app.errors import BadSettings
from app.models.manifest import MODEL_FILE, Manifest
from app.models.model_store import ModelStore, StoredModel
from app.models.runtime import RuntimePolicy, load_model
from app.train.candidate import Candidate, Progress

Pipeline = Literal["churn", "digits"]
ESTIMATORS: Mapping[Pipeline, tuple[str, ...]] = {"churn": ("logistic", "forest"), "digits": ("mlp",)}
CHURN_ROWS = 50_000
ROWS_ALLOWED = (500, 5_000_000)  # below, a fifth is too few to measure on; above, the columns take over 1 GiB
EXTRA = ("sklearn", "skl2onnx", "onnx", "scipy", "joblib", "google")


def train_model(
    pipeline: Pipeline,
    store: ModelStore,
    *,
    schemas: Path,
    at: datetime,
    who: str,
    estimator: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Manifest:
    """Publish a newly trained version of `pipeline` and return its manifest.

    schemas: the directory with churn_generated.json. estimator: the first of ESTIMATORS if not given.
    rows: generated customers, churn only. progress: told each step in a few words.
    Raises BadSettings for arguments that make no sense, or if the training libraries are not installed;
    ModelInvalid if the converted model does not answer as the estimator does. Then nothing was published.
    """
    chosen = estimator or ESTIMATORS[pipeline][0]
    if chosen not in ESTIMATORS[pipeline]:
        raise BadSettings(f"estimator is {chosen!r}, allowed for {pipeline}: {', '.join(ESTIMATORS[pipeline])}")
    if rows is not None and pipeline != "churn":
        raise BadSettings(f"rows is {rows}: only churn is generated, {pipeline} has the rows it has")
    low, high = ROWS_ALLOWED
    customers = CHURN_ROWS if rows is None else rows
    if not low <= customers <= high:
        raise BadSettings(f"rows is {rows}, allowed {low:,} to {high:,}")
    if seed < 0 or seed >= 2**32:
        raise BadSettings(f"seed is {seed}, allowed 0 to {2**32 - 1}")
    candidate = _fit(pipeline, chosen, rows=customers, seed=seed, schemas=schemas, progress=progress)
    progress("loading the converted model and comparing it with the estimator")
    metrics = _measure(pipeline, candidate, at)
    card = candidate.card.model_copy(update={"metrics": metrics})
    progress(f"publishing to {store.url}")
    return store.publish(pipeline, card, {MODEL_FILE: candidate.graph}, at=at, who=who)


def _fit(pipeline: Pipeline, estimator: str, *, rows: int, seed: int, schemas: Path, progress: Progress) -> Candidate:
    try:
        if pipeline == "digits":
            from app.train.digits import train_digits  # noqa: PLC0415 - the extra may not be installed

            return train_digits(seed=seed, progress=progress)
        from app.train.churn import train_churn  # noqa: PLC0415 - the extra may not be installed
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in EXTRA:
            raise
        raise BadSettings(
            f"training needs {exc.name}, which is not installed: pip install 'kafka-inference-worker[train]'"
        ) from exc
    return train_churn(
        schemas,
        estimator="forest" if estimator == "forest" else "logistic",
        rows=rows,
        seed=seed,
        progress=progress,
    )


def _measure(pipeline: Pipeline, candidate: Candidate, at: datetime) -> dict[str, int | float]:
    """Measure the very bytes to be published, through the worker's own runtime and its checks."""
    digest = {MODEL_FILE: f"sha256:{sha256(candidate.graph).hexdigest()}"}
    draft = Manifest(**dict(candidate.card), model=pipeline, version="1", digest=digest, created_at=at)
    model = load_model(StoredModel(draft, {MODEL_FILE: candidate.graph}), RuntimePolicy())
    return candidate.measure(model.run(candidate.held_out)[candidate.card.outputs[0].name])
