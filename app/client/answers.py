"""What the server says, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer about one row; None where the surface does not say it.

    prediction: a class or a number. probabilities: of every class, in the manifest's order. confidence: of the
    predicted class. answered_by: stable, canary … or fallback. rollout_revision: of the page that chose the version.
    """

    prediction: int | float | str
    probabilities: tuple[float, ...] | None = None
    confidence: float | None = None
    model: str | None = None
    model_version: str | None = None
    answered_by: str | None = None
    rollout_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one row of many has no answer. reason: of a closed list, as in dead letters. field: where it is one's."""

    reason: str
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether requests would be answered; None where the surface does not say it."""

    status: str
    model_loaded: bool
    model_version: str | None = None
    uptime_seconds: float | None = None
    total_predictions: int | None = None
