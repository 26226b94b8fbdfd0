"""What the monitor can be told: the section `monitor:`. Apart from the library that it runs on, which is an extra."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.monitor.windows import WindowPolicy

Text = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(ge=1, le=86_400)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class _Section(BaseModel):
    """Frozen, and refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OutcomeSettings(_Section):
    """Where the truth about one pipeline's events comes, and how it is read."""

    topic: Topic = Field(description="Keyed as the pipeline's events, with as many partitions as its sample topic")
    record: Text = Field(description="Name of the records' schema, as `ChurnOutcome`")
    label: Text = Field(description="Its field with the true class: one of the manifest's classes, or a boolean")
    event_time: Text = Field("event_time", description="Its field with the event_time of the event that it is about")


class DriftSettings(_Section):
    """When a feature counts as drifted: app/monitor/drift.py has the tests."""

    min_rows: Annotated[int, Field(ge=50, le=1_000_000)] = Field(
        500, description="Warm-up: a window with fewer rows is not judged"
    )
    significance: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)] = Field(
        1e-5, description="Chance of a false alarm per window and version, over all features and tests"
    )
    least_shift: Share = Field(0.1, description="Of the mean, in standard deviations of the training data")
    least_distance: Share = Field(0.05, description="Of the distribution functions of a number")
    least_psi: Share = Field(0.02, description="Population stability index of a category")
    least_share: Share = Field(0.01, description="Of missing, unknown and outside values, beyond training's")


class MonitorSettings(_Section):
    """`inference-worker monitor`: what it reads is pipelines[].monitoring's summary_topic and sample_topic."""

    group_id: Text = Field("inference-monitor", description="Its consumer group, and the prefix of its own topics")
    window_s: WholeSeconds = Field(60, description="Figures are of windows of this length; a multiple of bucket_s")
    grace_s: Seconds = Field(10.0, description="How long after its end a window is complete: workers write later")
    keep_s: Annotated[int, Field(ge=60, le=86_400)] = Field(
        600, description="How late a summary may come; how long the last window of a version is shown"
    )
    outcome_window_s: WholeSeconds = Field(
        3600, description="How long a prediction waits for its outcome, and what accuracy is of"
    )
    most_waiting_keys: Annotated[int, Field(ge=1_000, le=100_000_000)] = Field(
        200_000, description="Keys that wait for an outcome, per partition; 2 kB of memory each. Then the oldest go"
    )
    outcomes: dict[str, OutcomeSettings] = Field(
        default_factory=dict,
        description="By pipeline: `{topic: …, record: ChurnOutcome, label: churned, event_time: event_time}`",
    )
    publish_topic: Topic = Field("inference.monitor", description="Compacted; a record for each version")
    publish_s: Annotated[float, Field(ge=0.1, le=600, allow_inf_nan=False)] = Field(
        5.0, description="How often figures are made anew, in metrics and in publish_topic"
    )
    replication: Annotated[int, Field(ge=1, le=10)] = Field(1, description="Of the topics that it makes for itself")
    stalled_s: Seconds = Field(
        120.0,
        description="It ends with an error if for so long there is something to read and nothing comes, or a start or "
        "a rebalance does not end",
    )
    drift: DriftSettings = DriftSettings()

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if self.keep_s < 2 * self.window_s:
            raise ValueError(f"keep_s {self.keep_s} is less than two windows of {self.window_s} s")
        return self

    @property
    def windows(self) -> WindowPolicy:
        """For the windows."""
        return WindowPolicy(self.window_s, self.grace_s, self.keep_s, self.outcome_window_s)
