"""`inference-worker models train`: the shipped models."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from app.errors import ModelMissing
from app.models.manifest import Manifest
from app.models.model_store import open_store
from app.train.training import Pipeline as TrainedPipeline
from app.train.training import train_model
from app.wiring.stores import who

SHIPPED_SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


def train(
    pipeline: TrainedPipeline,
    *,
    store: str,
    estimator: str | None,
    rows: int | None,
    seed: int,
    progress: Callable[[str], None],
) -> Manifest:
    """`inference-worker models train`; a relative store is relative to the working directory.

    Raises BadSettings, also if the extra `train` is not installed, or ModelInvalid; then nothing was published.
    """
    return train_model(
        pipeline,
        open_store(store, Path.cwd(), create=True),
        schemas=SHIPPED_SCHEMAS,
        at=datetime.now(UTC),
        who=who(),
        estimator=estimator,
        rows=rows,
        seed=seed,
        progress=progress,
    )


def promised_accuracy(pipeline: str, store: str) -> float | None:
    """Held-out accuracy of the stable version, by its manifest; None if there is no such model."""
    try:
        found = open_store(store, Path.cwd())
        manifest = found.manifest(pipeline, found.rollout(pipeline).stable)
    except ModelMissing:
        return None
    return float(manifest.metrics["accuracy"])
