"""What the monitor reads and joins, as its settings have it, and that it is there and fits together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from app.avro.framing import Framing
from app.avro.record_reader import WholeRecordReader
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock
from app.errors import BadSettings, BrokerRefused
from app.kafka.client_config import Properties
from app.kafka.own_topics import partition_counts
from app.kafka.sample import sampled_rows
from app.models.manifest import Manifest
from app.models.model_store import ModelStore
from app.monitor.monitor_settings import OutcomeSettings
from app.monitor.outcome_stage import AnswerFields, OutcomeFields, OutcomeReading, OutcomeStage
from app.monitor.outcomes import OutcomePolicy
from app.monitor.stage import Stage
from app.monitor.window_stage import WindowStage
from app.pipeline.decode import Decoder
from app.ports import SchemaSource
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.specs import ProbabilitiesOutput
from app.wiring.wire_format import COMPARISON_SCHEMA, SUMMARY_SCHEMA, wire_format

MONITOR_SCHEMA = "MonitorSummary"


@dataclass(frozen=True, slots=True)
class MonitorWire:
    """How records are framed here. output_header: of what the monitor publishes."""

    framing: Framing
    schemas: SchemaSource
    directory: SchemaDirectory
    output_header: bytes


@dataclass(frozen=True, slots=True)
class MonitorStages:
    """What the stream runs. own_topics: with their numbers of partitions."""

    windows: Sequence[WindowStage]
    outcomes: Sequence[OutcomeStage]
    own_topics: Mapping[str, int]

    @property
    def stages(self) -> list[Stage]:
        """All of them."""
        return [*self.windows, *self.outcomes]


def monitor_wire(settings: Settings, clock: Clock) -> MonitorWire:
    """Raises StartupError if a schema is not where it should be."""
    directory = SchemaDirectory(settings.schemas.directory)
    output = directory.named(MONITOR_SCHEMA)
    framing, schemas, header = wire_format(settings, settings.monitor.publish_topic, output, directory, clock)
    return MonitorWire(framing, schemas, directory, header)


def monitor_stages(
    settings: Settings, wire: MonitorWire, store: ModelStore, admin: Properties, clock: Clock
) -> MonitorStages:
    """Raises BadSettings or BrokerRefused if what is to be read is not there, or does not fit together."""
    monitor = settings.monitor
    watched = [pipeline for pipeline in settings.pipelines if pipeline.monitoring.summary_topic]
    if not watched:
        raise BadSettings("no pipeline has a monitoring.summary_topic: there is nothing to monitor")
    names = {pipeline.name for pipeline in watched}
    if unknown := sorted(monitor.outcomes.keys() - names):
        raise BadSettings(f"monitor.outcomes: {', '.join(unknown)}: no pipeline with a monitoring.summary_topic")
    summary_topics = list(dict.fromkeys(str(pipeline.monitoring.summary_topic) for pipeline in watched))
    counts = partition_counts(admin, summary_topics)
    parts_of = {topic: f"{monitor.group_id}-parts-{topic}" for topic in summary_topics}
    reader = WholeRecordReader(wire.framing, wire.schemas, wire.directory.named(SUMMARY_SCHEMA))
    windows = [
        WindowStage(
            topic,
            parts_of[topic],
            counts[topic],
            monitor.windows,
            reader.read,
            [pipeline.name for pipeline in watched if pipeline.monitoring.summary_topic == topic],
        )
        for topic in summary_topics
    ]
    outcomes = [
        _outcome_stage(settings, pipeline, monitor.outcomes[pipeline.name], wire, store, admin, parts_of, clock)
        for pipeline in watched
        if pipeline.name in monitor.outcomes
    ]
    return MonitorStages(windows, outcomes, {parts_of[topic]: counts[topic] for topic in summary_topics})


def _outcome_stage(
    settings: Settings,
    pipeline: Pipeline,
    outcome: OutcomeSettings,
    wire: MonitorWire,
    store: ModelStore,
    admin: Properties,
    parts_of: Mapping[str, str],
    clock: Clock,
) -> OutcomeStage:
    sample_topic = pipeline.monitoring.sample_topic
    if sample_topic is None:
        raise BadSettings(f"monitor.outcomes.{pipeline.name}: the pipeline has no monitoring.sample_topic to join with")
    manifest = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
    counts = partition_counts(admin, [sample_topic, outcome.topic])
    if counts[outcome.topic] != counts[sample_topic]:
        raise BrokerRefused(
            f"{outcome.topic} has {counts[outcome.topic]} partitions and {sample_topic} {counts[sample_topic]}: what "
            "belongs together would not meet"
        )
    shadow_topic = _shadow_topic(pipeline, admin, counts[sample_topic])
    output = _probabilities(manifest)

    def decoder(schema: Schema) -> Decoder:
        return Decoder(wire.framing, wire.schemas, schema, clock)

    prediction = wire.directory.named(pipeline.prediction_schema or manifest.prediction_schema)
    record = wire.directory.named(outcome.record)
    _check_fields(f"monitor.outcomes.{pipeline.name}", record, (outcome.label, outcome.event_time))
    reading = OutcomeReading(
        pipeline=pipeline.name,
        model=pipeline.model,
        classes=[str(label) for label in output.classes],
        sample_topic=sample_topic,
        sample=decoder(prediction),
        sample_fields=_answer_fields(pipeline, output, prediction),
        outcome_topic=outcome.topic,
        outcome=decoder(record),
        outcome_fields=OutcomeFields(outcome.label, outcome.event_time),
        parts_topic=parts_of[str(pipeline.monitoring.summary_topic)],
        partitions=counts[sample_topic],
        sampled=partial(sampled_rows, share=pipeline.monitoring.sample_share),
        shadow_topic=shadow_topic,
        shadow=decoder(wire.directory.named(COMPARISON_SCHEMA)) if shadow_topic else None,
    )
    monitor = settings.monitor
    policy = OutcomePolicy(float(monitor.outcome_window_s), monitor.most_waiting_keys)
    return OutcomeStage(reading, policy, monitor.window_s)


def _shadow_topic(pipeline: Pipeline, admin: Properties, partitions: int) -> str | None:
    """Where comparisons are, if they are there; one that is set has to be."""
    try:
        found = partition_counts(admin, [pipeline.comparison_topic])[pipeline.comparison_topic]
    except BrokerRefused:
        if pipeline.shadow_topic is not None:
            raise
        return None
    if found != partitions:
        structlog.get_logger().warning("shadows_are_not_judged", topic=pipeline.comparison_topic, partitions=found)
        return None
    return pipeline.comparison_topic


def _probabilities(manifest: Manifest) -> ProbabilitiesOutput:
    for output in manifest.outputs:
        if isinstance(output, ProbabilitiesOutput):
            return output
    raise BadSettings(f"monitor.outcomes: {manifest.model} predicts no classes, and only those are judged")


def _answer_fields(pipeline: Pipeline, output: ProbabilitiesOutput, schema: Schema) -> AnswerFields:
    by_quantity = {quantity: field for field, quantity in output.fields.items()}
    if "class" not in by_quantity:
        raise BadSettings(f"monitor.outcomes.{pipeline.name}: predictions do not say which class was predicted")
    fields = AnswerFields(by_quantity["class"], by_quantity.get("probability"), by_quantity.get("probabilities"))
    wanted = ("model_version", "source_topic", "source_partition", "source_offset", fields.predicted, fields.event_time)
    _check_fields(f"monitor.outcomes.{pipeline.name}", schema, wanted)
    return fields


def _check_fields(where: str, schema: Schema, wanted: Sequence[str]) -> None:
    have = {item["name"] for item in schema.fields}
    if missing := [name for name in wanted if name not in have]:
        raise BadSettings(f"{where}: {schema.name} has no field {', '.join(missing)}")
