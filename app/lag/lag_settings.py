"""What `inference-worker lag` can be told: the section `lag:`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.lag.desired_replicas import ScalingPolicy
from app.sections import Name, Seconds, Section

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
SomeSeconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

_DEFAULT = ScalingPolicy()


class ScalingSettings(Section):
    """How many processes a group of a pipeline should have: docs/SCALING.md."""

    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = _DEFAULT.min_replicas
    max_replicas: Annotated[int, Field(ge=1, le=10_000)] = Field(
        _DEFAULT.max_replicas, description="Never more than there are partitions, whatever this says"
    )
    drain_target_s: Seconds = Field(_DEFAULT.drain_target_s, description="A backlog is to be gone within so long")
    capacity_per_process: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = Field(
        _DEFAULT.capacity_per_process, description="Records per second, until it is measured; default: measured only"
    )
    utilization: Share = Field(_DEFAULT.utilization, description="Of their capacity, asked for when nothing is wrong")
    dead_band: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        _DEFAULT.dead_band, description="The autoscaler's own tolerance; smaller steps are not made"
    )
    reaction_s: SomeSeconds = Field(_DEFAULT.reaction_s, description="From a new number to processes that work")
    rebalance_pause_s: SomeSeconds = Field(
        _DEFAULT.rebalance_pause_s, description="How long a rebalance stops the group"
    )
    hold_s: Seconds = Field(_DEFAULT.hold_s, description="Fewer must have been enough for so long")
    rise_s: Seconds = Field(_DEFAULT.rise_s, description="The arrival rate is averaged over so long when it rises")
    fall_s: Seconds = Field(_DEFAULT.fall_s, description="and when it falls")
    capacity_memory_s: Seconds = Field(_DEFAULT.capacity_memory_s, description="The measured capacity is averaged over")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.policy()
        return self

    def policy(self) -> ScalingPolicy:
        """For the formula."""
        return ScalingPolicy(**self.model_dump())


class WatchedGroupSettings(Section):
    """Another group of the same cluster, by its id."""

    topics: Annotated[tuple[Topic, ...], Field(min_length=1)]
    start_from: Literal["earliest", "latest"] = Field("earliest", description="Where it begins without an offset")


class LagSettings(Section):
    """`inference-worker lag`: how far the pipelines' groups are behind, seen from outside (docs/LAG.md)."""

    poll_s: Annotated[float, Field(ge=0.5, le=3600, allow_inf_nan=False)] = Field(5.0, description="How often it looks")
    keep_s: Seconds = Field(
        20.0, description="How long figures are shown that no look renewed; then their series are gone"
    )
    count_records: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        50_000,
        description="So many records of a group's backlog are read in one look, to count them; each is read once. "
        "Until all are, offsets count as records",
    )
    monitor: bool = Field(default=False, description="Watch the monitor's group as well")
    audit: bool = Field(default=False, description="Watch the audit trail's group as well")
    groups: dict[Name, WatchedGroupSettings] = Field(
        default_factory=dict, description="Further groups by id: `{topics: […], start_from: earliest}`"
    )
    scaling: ScalingSettings = ScalingSettings()

    @model_validator(mode="after")
    def _kept_for_more_than_a_look(self) -> Self:
        if self.keep_s < 2 * self.poll_s:
            raise ValueError(f"keep_s {self.keep_s:g} is less than two looks of poll_s {self.poll_s:g}")
        return self
