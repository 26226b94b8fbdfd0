"""Who answers: the versions of one rollout page, each with all that it takes, as one thing that never changes.

A batch is prepared, answered and finished by the lineup that it met first, so each of its records has exactly one
version whatever is decided meanwhile. A new page is a new lineup; replacing the one reference to it is the switch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from app.answering.breaker import Breaker
from app.answering.handled_outputs import HandledOutputs
from app.facts import InUse, Serving
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.features.plan import FeaturePlan, Features, features_of
from app.pipeline.infer import Inference, OutputPolicy, infer
from app.pipeline.summary.plan import SummaryPlan
from app.ports import ModelChooser, Tensors
from app.records import Columns, IntArray, Record
from app.specs import Constant

FALLBACK = "fallback"


class InputPlan(Protocol):
    """Makes a version's inputs: by the manifest, by a handler, or of the columns of files."""

    def apply(self, columns: Columns) -> Features:
        """As `FeaturePlan.apply`."""
        ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Lane:
    """One loaded version in one part: what makes its inputs, itself, and what writes its answers.

    encoder: None where answers are no records: in files.
    constant: what its manifest says to answer while it fails, or None.
    stable: who is asked while it fails, where it is not that itself. previous: who is asked then, if that is wanted.
    outputs: the handler that makes fields of its answers, None where the manifest says how.
    summary: how its answers are added up, None if nobody wants that.
    """

    plan: InputPlan
    encoder: PredictionEncoder | None
    answerer: Answerer
    breaker: Breaker
    constant: Mapping[str, Constant] | None = None
    stable: "Lane | None" = None
    previous: "Lane | None" = None
    outputs: HandledOutputs | None = None
    summary: SummaryPlan | None = None

    @property
    def version(self) -> str:
        """Of its model."""
        return self.answerer.model.version

    def features_beside(self, columns: Columns) -> Features:
        """Its inputs, off the stream thread: a compiled plan is that one's alone."""
        if isinstance(self.plan, FeaturePlan):
            return features_of(columns, self.answerer.model.inputs)
        return self.plan.apply(columns)

    def infer(self, tensors: Tensors, rows: IntArray, policy: OutputPolicy) -> Inference:
        """Its answers, see `infer.infer`."""
        ask = infer if self.outputs is None else self.outputs.infer
        return ask(self.answerer.model, tensors, rows, policy)

    def playing(self, part: str, revision: int, stable: "Lane | None" = None, previous: "Lane | None" = None) -> "Lane":
        """The same version in this part of this revision."""
        return replace(self, answerer=Answerer(self.answerer.model, part, revision), stable=stable, previous=previous)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Lineup:
    """One rollout page, ready: lanes[i] answers what the page gives to its arm i."""

    page: ModelChooser
    lanes: tuple[Lane, ...]

    def choose(self, records: Sequence[Record]) -> IntArray | None:
        """Index into `lanes` of each record, (n,); None if the first answers all, which costs nothing."""
        if len(self.lanes) == 1:
            return None
        return self.page.choose([record.key() for record in records])


def lineup_of(page: ModelChooser, lanes: Mapping[str, Lane]) -> Lineup:
    """The lineup of a page. lanes: by version; others than the page's are left alone.

    Stable's must be there. What an absent arm should answer is stable's, as the fallback that it is.
    """
    stable = lanes[page.arms[0].version]
    before = lanes.get(page.previous) if page.previous is not None else None

    def in_place_of(lane: Lane, other: Lane | None) -> Lane | None:
        return None if other is None or other.version == lane.version else other.playing(FALLBACK, page.revision)

    def lane_of(name: str, version: str) -> Lane:
        lane, part = (lanes[version], name) if version in lanes else (stable, FALLBACK)
        return lane.playing(part, page.revision, in_place_of(lane, stable), in_place_of(lane, before))

    return Lineup(page, tuple(lane_of(arm.name, arm.version) for arm in page.arms))


def serving_of(page: ModelChooser, lanes: Mapping[str, Lane], model: str) -> Serving:
    """What is loaded for a page and why, for the observer."""
    parts = [(arm.version, arm.name) for arm in page.arms]
    parts += [(version, "standby") for version in page.versions if version not in dict(parts)]
    if page.previous is not None:
        parts.append((page.previous, "previous"))
    return Serving(
        model,
        page.revision,
        tuple(InUse(v, lanes[v].answerer.model.digest, part) for v, part in parts if v in lanes),
    )
