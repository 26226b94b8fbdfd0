"""Which version of a model answers: `<store>/<model>/rollout.json`, read by every surface in the same way.

A page is one decision in full. Who answers a record is a function of its key and this page alone, so every worker,
every surface and a replay agree without talking; time has no part in it. What moves with time (the steps of a canary)
is moved by whoever watches it, as a change of the page, with a line in its history. (Five strategies in one file: what
tells them apart shows best side by side.)
"""

from collections.abc import Sequence
from itertools import pairwise, repeat
from typing import Annotated, Literal, Self, cast

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, TypeAdapter, model_validator
from xxhash import xxh3_64_intdigest

from app.models.guards import Guards
from app.models.manifest import ModelName, Version
from app.specs import Spec

SLICES = 10_000  # shares are exact to a hundredth of a per cent


def _whole_slices(percent: float) -> float:
    """The same; raises ValueError for a share that no number of slices is."""
    if abs(percent * SLICES / 100 - round(percent * SLICES / 100)) > 1e-6:
        raise ValueError(f"{percent:g} is no multiple of 0.01")
    return percent


Percent = Annotated[float, Field(ge=100 / SLICES, le=100), AfterValidator(_whole_slices)]
Salt = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,64}$")]
ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]

# What `answered_by` says where no arm of an experiment answered.
RESERVED_NAMES = frozenset({"stable", "canary", "fallback", "shadow"})


class RolloutChange(Spec):
    """One line of the history: what was decided, by whom and why.

    before: what was in force until then, in words; empty for the first.
    versions: every version the page names since then. automatic: decided by a program from measurements.
    """

    revision: Annotated[int, Field(ge=1)]
    at: AwareDatetime
    who: str
    why: str
    strategy: str
    stable: Version
    previous: Version | None = None
    before: str = ""
    versions: tuple[Version, ...] = ()
    automatic: bool = False


def _slices(keys: Sequence[bytes | None], salt: str) -> npt.NDArray[np.int64]:
    """Each key's place in 0..SLICES-1, (n,): XXH3 (64 bit) of the key, seeded by that of the salt."""
    seed = xxh3_64_intdigest(salt.encode())
    known = [key or b"" for key in keys] if None in keys else cast("Sequence[bytes]", keys)
    hashes = np.fromiter(map(xxh3_64_intdigest, known, repeat(seed)), np.uint64, len(keys))
    return (hashes % np.uint64(SLICES)).astype(np.int64)


class Page(Spec):
    """What every strategy has.

    revision: rises by one with each change; the last line of `history` made this one.
    previous: the version that was stable before this one, what a rollback goes back to.
    held: a person has taken over; a program that watches measures on, and changes nothing.
    guards: what that program decides by; they stay as they are from one page to the next.
    """

    format: Literal[1] = 1
    model: ModelName
    revision: Annotated[int, Field(ge=1)]
    stable: Version
    previous: Version | None = None
    held: bool = False
    guards: Guards = Guards()
    history: Annotated[tuple[RolloutChange, ...], Field(min_length=1)]

    @property
    def arms(self) -> tuple["Arm", ...]:
        """Who may answer, the first of them stable; a record's arm is an index into this."""
        return (Arm(name="stable", version=self.stable, weight=1.0),)

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that has to be loaded and warm, without repetition, stable first."""
        return tuple(dict.fromkeys(arm.version for arm in self.arms))

    @property
    def named(self) -> frozenset[str]:
        """Every version this page speaks of, answering or not: none of them may leave the store."""
        others = (self.previous, *self._beside())
        return frozenset({self.stable, *(version for version in others if version is not None)})

    def _beside(self) -> tuple[str, ...]:
        """What a strategy names beside `stable` and `previous`."""
        return self.versions

    @property
    def words(self) -> str:
        """What is in force, in a few words for people."""
        return f"stable {self.stable}"

    def choose(self, keys: Sequence[bytes | None]) -> npt.NDArray[np.int64] | None:
        """The arm of each record, (n,); None if stable answers all. A record without a key is stable's."""
        bounds = self._bounds()
        if bounds is None:
            return None
        chosen = np.searchsorted(bounds, _slices(keys, self._salt()), side="right")
        chosen[[key is None for key in keys] if None in keys else []] = 0
        return chosen

    def _bounds(self) -> npt.NDArray[np.int64] | None:
        """Where in 0..SLICES each arm but the last ends; None if there is only one."""
        return None

    def _salt(self) -> str:
        """What makes this experiment's choice independent of every other's."""
        return self.model


class Arm(Spec):
    """One of several that share the traffic by weight."""

    name: ArmName
    version: Version
    weight: Annotated[float, Field(gt=0, le=1e6)]


class StableRollout(Page):
    """Every record is answered by `stable`."""

    strategy: Literal["stable"] = "stable"


class BlueGreenRollout(Page):
    """`stable` answers; `standby` is loaded and warm beside it, and one change away from answering."""

    strategy: Literal["blue_green"] = "blue_green"
    standby: Version

    @property
    def versions(self) -> tuple[str, ...]:
        """Both."""
        return tuple(dict.fromkeys((self.stable, self.standby)))

    @property
    def words(self) -> str:
        """Both versions, the one that answers first."""
        return f"blue-green {self.stable}, standby {self.standby}"

    @model_validator(mode="after")
    def _another_version(self) -> Self:
        if self.standby == self.stable:
            raise ValueError(f"standby: version {self.standby} is the stable one")
        return self


class CanaryStep(Spec):
    """percent: of keys that the candidate answers. hold_s: seconds it must have done well before the next step."""

    percent: Percent
    hold_s: Annotated[float, Field(ge=0)]


class CanaryRollout(Page):
    """The candidate answers a share of the keys that grows step by step; a key once its stays its.

    step: index into `steps`. since: when that step began. salt: decides which keys come first.
    """

    strategy: Literal["canary"] = "canary"
    candidate: Version
    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1, max_length=100)]
    step: Annotated[int, Field(ge=0)] = 0
    since: AwareDatetime
    salt: Salt

    @property
    def words(self) -> str:
        """The candidate, its share and how far it has come."""
        where = f"step {self.step + 1} of {len(self.steps)}"
        return f"canary {self.candidate} at {self.percent:g} % ({where}), stable {self.stable}"

    @property
    def percent(self) -> float:
        """What the candidate answers now."""
        return self.steps[self.step].percent

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Stable and the canary; weights in per cent."""
        rest = max(100.0 - self.percent, 1e-9)  # a weight is above zero; nothing falls into this one
        return (
            Arm(name="stable", version=self.stable, weight=rest),
            Arm(name="canary", version=self.candidate, weight=self.percent),
        )

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if any(later.percent <= earlier.percent for earlier, later in pairwise(self.steps)):
            raise ValueError("steps: each has to have a larger percent than the one before")
        if self.step >= len(self.steps):
            raise ValueError(f"step: {self.step} is not one of the {len(self.steps)} steps, counted from 0")
        if self.candidate == self.stable:
            raise ValueError(f"candidate: version {self.candidate} is the stable one")
        return self

    def _bounds(self) -> npt.NDArray[np.int64]:
        # the canary has the highest slices: a larger share keeps the keys of a smaller one
        return np.array([SLICES - round(self.percent * SLICES / 100)], np.int64)

    def _salt(self) -> str:
        return self.salt


class AbRollout(Page):
    """Named arms share the keys by weight; `stable` answers records without a key, and is usually one of the arms."""

    strategy: Literal["ab"] = "ab"
    variants: Annotated[tuple[Arm, ...], Field(min_length=2, max_length=20)]
    salt: Salt

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Stable first, with next to no weight; then the named ones."""
        return (Arm(name="stable", version=self.stable, weight=1e-9), *self.variants)

    @property
    def words(self) -> str:
        """Each arm with its version and weight."""
        arms = ", ".join(f"{arm.name} = {arm.version} ({arm.weight:g})" for arm in self.variants)
        return f"ab {arms}, stable {self.stable}"

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [arm.name for arm in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("variants: a name occurs twice")
        if reserved := sorted(set(names) & RESERVED_NAMES):
            raise ValueError(f"variants: {', '.join(reserved)} cannot be the name of an arm")
        return self

    def _bounds(self) -> npt.NDArray[np.int64]:
        weights = np.array([arm.weight for arm in self.variants])
        ends = np.rint(np.cumsum(weights)[:-1] / weights.sum() * SLICES).astype(np.int64)
        return np.concatenate([np.zeros(1, np.int64), ends])  # nothing for the first arm, stable

    def _salt(self) -> str:
        return self.salt


class ShadowRollout(Page):
    """`stable` answers; the candidate scores a share of the same records, after delivery, for comparison only.

    budget_s: of time per second that shadow scoring may take; what does not fit is left out and counted.
    """

    strategy: Literal["shadow"] = "shadow"
    candidate: Version
    percent: Percent = 100.0
    budget_s: Annotated[float, Field(gt=0, le=1)] = 0.2

    @property
    def versions(self) -> tuple[str, ...]:
        """Only what answers: the candidate is loaded by whoever does the shadow's work."""
        return (self.stable,)

    @property
    def words(self) -> str:
        """The candidate, its share, and who answers."""
        return f"shadow {self.candidate} of {self.percent:g} %, stable {self.stable}"

    def _beside(self) -> tuple[str, ...]:
        return (self.candidate,)

    def shadowed(self, keys: Sequence[bytes | None]) -> npt.NDArray[np.bool_]:
        """Which records the candidate is to score as well, (n,)."""
        return _slices(keys, self.model) < round(self.percent * SLICES / 100)

    @model_validator(mode="after")
    def _another_version(self) -> Self:
        if self.candidate == self.stable:
            raise ValueError(f"candidate: version {self.candidate} is the stable one")
        return self


Rollout = Annotated[
    StableRollout | BlueGreenRollout | CanaryRollout | AbRollout | ShadowRollout, Field(discriminator="strategy")
]
ROLLOUT: TypeAdapter[Rollout] = TypeAdapter(Rollout)


def first_rollout(
    model: str, version: str, *, at: AwareDatetime, who: str, why: str = "first version published"
) -> StableRollout:
    """The first page of a model: this version is stable, and there was nothing before."""
    change = RolloutChange(
        revision=1,
        at=at,
        who=who,
        why=why,
        strategy="stable",
        stable=version,
        versions=(version,),
    )
    return StableRollout(model=model, revision=1, stable=version, history=(change,))
