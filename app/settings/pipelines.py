"""The section of a pipeline: from topics through a model to a topic, and what is done on the way."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.sections import Name, Seconds, Section

HandlerPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]


class Batch(Section):
    """Bounds of one micro-batch; the first one reached makes it due."""

    max_records: Annotated[int, Field(ge=1, le=100_000)] = 512
    max_bytes: Annotated[int, Field(ge=1, le=1_073_741_824)] = Field(
        4_194_304, description="At most a sixteenth of the pipeline's share of worker.memory_budget_bytes"
    )
    max_wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.01
    slo_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = Field(
        None,
        description="Instead of max_wait_s: how old a record should be at most, by its own timestamp, when its outcome "
        "is durable. Batches wait for company as long as that allows; transactions then last a quarter of it at most",
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.slo_s is not None and "max_wait_s" in self.model_fields_set:
            raise ValueError("max_wait_s and slo_s are both set; choose one")
        return self


class DeadLetterLimitSettings(Section):
    """More dead letters than this within the window stop the worker: something else is wrong."""

    records: Annotated[int, Field(ge=0)] = 1000
    window_s: Seconds = 60.0


class FallbackSettings(Section):
    """Who answers while a model version itself fails (its golden rows fail too), each only after the one before."""

    previous: bool = Field(
        default=False,
        description="The version before stable, which is kept loaded for that. (Where another arm of a rollout fails, "
        "stable answers whatever is set here)",
    )
    constant: bool = Field(
        default=False, description="The answer that the failing version's manifest has under `fallback`, if it has one"
    )
    retry_s: Seconds = Field(10.0, description="A version that failed is left alone for so long, then tried once")


class MonitoringSettings(Section):
    """What the worker says of its own predictions, beside them and in the same transaction (docs/MONITORING.md)."""

    summary_topic: TopicName | None = Field(
        None,
        description="Where summaries of the predictions go, `ModelSummary`; it has to be there at start. Unset: none",
    )
    bucket_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        10, description="A summary is of predictions of one such stretch of time, counted from the epoch"
    )
    interval_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        1.0,
        description="How often summaries are written in at_least_once; in exactly_once each transaction has its own",
    )
    low_confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.6, description="Predictions with less confidence are counted apart"
    )
    sample_topic: TopicName | None = Field(
        None,
        description="Where a sample of the predictions goes as well, by key; it has to be there at start. Unset: none",
    )
    sample_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        1.0, description="Of the keys; whether a key is in the sample depends on it and on this share alone"
    )

    @property
    def topics(self) -> tuple[str, ...]:
        """Those that are written to."""
        return tuple(topic for topic in (self.summary_topic, self.sample_topic) if topic is not None)


class Pipeline(Section):
    """From some topics through one model to another topic."""

    name: Name
    input_topics: Annotated[tuple[TopicName, ...], Field(min_length=1)]
    output_topic: TopicName
    dead_letter_topic: TopicName
    model: Name
    group_id: Name | None = Field(None, description="Default: kafka.group_id, with `-<name>` if there are several")
    event_schema: str | None = Field(None, description="Reader schema; default: the model manifest's")
    prediction_schema: str | None = Field(None, description="Output schema; default: the model manifest's")
    output_partitioning: Literal["source", "key"] = "source"
    handler: HandlerPath | None = Field(
        None,
        description="`package.module:Class`, code of your own in the place of the manifest's feature or output mapping "
        "(docs/HANDLERS.md); it runs as the worker",
    )
    bad_output: Literal["dead_letter", "clip", "stop"] = Field(
        "dead_letter",
        description="For outputs that are not finite or outside the manifest's bounds; `clip` brings finite values to "
        "the nearest bound, `stop` ends the worker",
    )
    fallback: FallbackSettings = FallbackSettings()
    on_model_failure: Literal["stop", "dead_letter"] = Field(
        "stop",
        description="When the model itself fails and no fallback answers: `stop` ends the worker and rejects nothing; "
        "`dead_letter` goes on, up to dead_letter_limit",
    )
    shadow_topic: TopicName | None = Field(
        None,
        description="Where the comparisons of a shadow rollout go; if set, it has to be there at start. Default: "
        "`<output_topic>.shadow`, asked for when a shadow begins",
    )
    shadow_memory_bytes: Annotated[int, Field(ge=268_435_456, le=1_099_511_627_776)] = Field(
        1_073_741_824, description="What a shadow's process may use, beside worker.memory_budget_bytes"
    )
    batch: Batch = Batch()
    dead_letter_limit: DeadLetterLimitSettings = DeadLetterLimitSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        outputs = {self.output_topic, self.dead_letter_topic}
        if len(outputs) < 2 or outputs & set(self.input_topics):
            raise ValueError("input, output and dead-letter topics must all be different")
        if self.comparison_topic in outputs | set(self.input_topics):
            raise ValueError(f"shadow_topic: {self.comparison_topic} is another topic of the pipeline")
        others = outputs | {*self.input_topics, self.comparison_topic}
        for name in ("summary_topic", "sample_topic"):
            topic = getattr(self.monitoring, name)
            if topic in others:
                raise ValueError(f"monitoring.{name}: {topic} is another topic of the pipeline")
            others |= {topic} - {None}
        return self

    @property
    def comparison_topic(self) -> str:
        """Where the comparisons of a shadow go."""
        return self.shadow_topic or f"{self.output_topic}.shadow"


def topic_loop(pipelines: tuple[Pipeline, ...]) -> list[str]:
    """Topics through which a record could come back to where it was, or nothing."""
    leads_to: dict[str, set[str]] = {}
    for pipeline in pipelines:
        for topic in pipeline.input_topics:
            leads_to.setdefault(topic, set()).update(
                {
                    pipeline.output_topic,
                    pipeline.dead_letter_topic,
                    pipeline.comparison_topic,
                    *pipeline.monitoring.topics,
                }
            )

    def follow(path: list[str]) -> list[str]:
        for topic in sorted(leads_to.get(path[-1], ())):
            if topic in path:
                return [*path[path.index(topic) :], topic]
            if found := follow([*path, topic]):
                return found
        return []

    return next((found for topic in sorted(leads_to) if (found := follow([topic]))), [])
