"""Which version of a model answers: `<store>/<model>/rollout.json`, read by every surface in the same way."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from app.models.manifest import ModelName, Version
from app.specs import Spec


class RolloutChange(Spec):
    """One line of the history: what was decided, by whom and why."""

    revision: Annotated[int, Field(ge=1)]
    at: AwareDatetime
    who: str
    why: str
    strategy: str
    stable: Version


class Rollout(Spec):
    """The decision in force.

    revision: rises by one with each change; the last line of `history` made this one.
    strategy "stable": every record is answered by the version `stable`.
    """

    format: Literal[1] = 1
    model: ModelName
    revision: Annotated[int, Field(ge=1)]
    strategy: Literal["stable"] = "stable"
    stable: Version
    history: Annotated[tuple[RolloutChange, ...], Field(min_length=1)]


def first_rollout(model: str, version: str, *, at: AwareDatetime, who: str) -> Rollout:
    """Decide for the first version of a model: it is stable, there is nothing else to choose from."""
    change = RolloutChange(revision=1, at=at, who=who, why="first version published", strategy="stable", stable=version)
    return Rollout(model=model, revision=1, stable=version, history=(change,))
