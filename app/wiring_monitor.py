"""Composition of `inference-worker monitor`.

Beside `wiring.py` because no worker needs any of it, least of all the library that it runs on, which is an extra.
"""

import asyncio
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog

from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.avro.record_writer import RecordWriter
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import BadSettings, BrokerRefused, MonitorFailed
from app.kafka.client_config import ClientPolicy, Properties, admin_properties
from app.kafka.own_topics import OwnTopic, make_topics, partition_counts
from app.kafka.sample import sampled_rows
from app.kafka.schema_lookups import BackgroundLookups
from app.models.manifest import Manifest, Reference
from app.models.model_store import ModelStore
from app.monitor.board import Board
from app.monitor.drift import DriftPolicy
from app.monitor.monitor_settings import MonitorSettings, OutcomeSettings
from app.monitor.outcome_stage import AnswerFields, OutcomeFields, OutcomeReading, OutcomeStage
from app.monitor.outcomes import OutcomePolicy
from app.monitor.publisher import Publisher, PublishPolicy
from app.monitor.references import References
from app.monitor.stage import Send, Stage, changelog_topic
from app.monitor.window_stage import WindowStage
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.observe.monitor_metrics import MonitorMetrics
from app.pipeline.decode import Decoder
from app.ports import SchemaSource
from app.settings import Pipeline, Settings, load_settings
from app.specs import ProbabilitiesOutput
from app.wiring import registered_header, settings_registry, settings_store

SUMMARY_SCHEMA, MONITOR_SCHEMA, COMPARISON_SCHEMA = "ModelSummary", "MonitorSummary", "ShadowComparison"


@dataclass(frozen=True, slots=True)
class _Wire:
    """How records are framed here. output_header: of what the monitor publishes."""

    framing: Framing
    schemas: SchemaSource
    directory: SchemaDirectory
    output_header: bytes


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the stream runs. own_topics: with their numbers of partitions."""

    windows: Sequence[WindowStage]
    outcomes: Sequence[OutcomeStage]
    own_topics: Mapping[str, int]

    @property
    def stages(self) -> list[Stage]:
        """All of them."""
        return [*self.windows, *self.outcomes]


@dataclass(frozen=True, slots=True)
class _Publishing:
    """What is told every so often: the lag at once, figures on a thread."""

    publisher: Publisher
    board: Board
    lag: Callable[[], Mapping[tuple[str, int], int]]

    def look(self) -> Callable[[], Sequence[Send]]:
        """Take what is to be told now."""
        self.board.show_lag(self.lag())
        return partial(self.publisher.publish, self.publisher.look())


def run_monitor(settings_file: Path) -> NoReturn:
    """`inference-worker monitor`: until SIGTERM, when the process ends. Raises AppError if it cannot start."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    try:
        # the extra may not be installed
        from app.monitor.library import StreamPolicy  # noqa: PLC0415
        from app.monitor.stream import MonitorStream  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise BadSettings(f"{exc.name} is not installed: pip install 'kafka-inference-worker[monitor]'") from exc
    clock, monitor, metrics = SystemClock(), settings.monitor, MonitorMetrics()
    admin = admin_properties(_client_policy(settings))
    wire = _wire(settings, clock)
    parts = _parts(settings, wire, settings_store(settings), admin, clock)
    own = [OwnTopic(name, count, compacted=True) for name, count in parts.own_topics.items()]
    tables = [
        OwnTopic(changelog_topic(monitor.group_id, table), stage.partitions, compacted=True)
        for stage in parts.stages
        for table in stage.tables
    ]
    make_topics(admin, [*own, *tables, *_publish_topic(admin, monitor)], monitor.replication)
    board = Board(metrics)
    references = References(
        partial(_reference, settings_store(settings)), clock, ThreadPoolExecutor(1, thread_name_prefix="references")
    )
    writer = RecordWriter(wire.output_header, wire.directory.named(MONITOR_SCHEMA))
    shares = {pipeline.name: pipeline.monitoring.sample_share for pipeline in settings.pipelines}
    policy = PublishPolicy(monitor.publish_topic, monitor.window_s, drift_policy(monitor), shares)
    publisher = Publisher(parts.windows, references, policy, writer.write, board.show, clock)
    data = tempfile.TemporaryDirectory(prefix="inference-monitor-")  # faust wants one; nothing is kept in it
    stream_policy = StreamPolicy(
        group_id=monitor.group_id,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        data_directory=data.name,
        session_timeout_s=settings.kafka.session_timeout_s,
        start_from="latest" if settings.kafka.start_from == "latest" else "earliest",
        replication=monitor.replication,
        stalled_s=monitor.stalled_s,
        publish_s=monitor.publish_s,
        faust=_credentials(settings),
    )

    async def run() -> None:
        stream = MonitorStream(stream_policy, parts.stages, parts.own_topics, board.tell, clock)
        health = Health(alive=stream.stuck, ready=lambda: None if stream.ready else "partitions are not restored yet")
        server = ProbeServer(settings.http.host, settings.http.port, metrics, health)

        def started() -> None:
            structlog.get_logger().info("started", http_port=server.port, stages=[s.name for s in parts.stages])

        try:
            await stream.run(_Publishing(publisher, board, stream.lag), started)
        finally:
            server.close()

    try:
        asyncio.run(run())
        _end(0)
    except MonitorFailed as exc:
        structlog.get_logger().error("monitor_failed", error=str(exc))
        _end(1)
    finally:
        data.cleanup()


def _end(status: int) -> NoReturn:
    """The library's threads may never end. What is durable is right, so the process can end without them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def drift_policy(monitor: MonitorSettings) -> DriftPolicy:
    """As the settings have it."""
    return DriftPolicy(**monitor.drift.model_dump())


def _client_policy(settings: Settings) -> ClientPolicy:
    return ClientPolicy(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=f"inference-worker-{settings.instance_id}-monitor",
        security=settings.kafka.security.properties(),
        extra=settings.kafka.client,
    )


def _wire(settings: Settings, clock: Clock) -> _Wire:
    directory = SchemaDirectory(settings.schemas.directory)
    output = directory.named(MONITOR_SCHEMA)
    if settings.schemas.registry_url is None:
        return _Wire(SingleObjectFraming(), directory, directory, SingleObjectFraming.header(output.fingerprint))
    registry = settings_registry(settings, settings.schemas.registry_url)
    header = registered_header(settings, registry, settings.monitor.publish_topic, output)
    return _Wire(ConfluentFraming(), BackgroundLookups(registry, clock), directory, header)


def _parts(settings: Settings, wire: _Wire, store: ModelStore, admin: Properties, clock: Clock) -> _Parts:
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
    return _Parts(windows, outcomes, {parts_of[topic]: counts[topic] for topic in summary_topics})


def _outcome_stage(
    settings: Settings,
    pipeline: Pipeline,
    outcome: OutcomeSettings,
    wire: _Wire,
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


def _reference(store: ModelStore, model: str, version: str) -> Mapping[str, Reference]:
    return store.manifest(model, version).reference


def _publish_topic(admin: Properties, monitor: MonitorSettings) -> list[OwnTopic]:
    """Made if it is not there; with how many partitions it was made is its owner's business."""
    try:
        partition_counts(admin, [monitor.publish_topic])
    except BrokerRefused:
        return [OwnTopic(monitor.publish_topic, 1, compacted=True)]
    return []


def _credentials(settings: Settings) -> dict[str, Any]:
    """The security of the cluster, in the library's words."""
    security = settings.kafka.security
    if security.mechanism == "OAUTHBEARER":
        raise BadSettings(
            "kafka.security.mechanism OAUTHBEARER is not supported by the monitor: use another one for it"
        )
    if security.protocol == "PLAINTEXT":
        return {}
    from faust import SASLCredentials, SSLCredentials  # noqa: PLC0415 - the extra
    from faust.types.auth import SASLMechanism  # noqa: PLC0415

    context = None
    if security.protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(security.ca_file) if security.ca_file else None)
        if security.cert_file is not None:
            context.load_cert_chain(security.cert_file, security.key_file, security.secret("key_password"))
    if security.mechanism is None:
        return {"broker_credentials": SSLCredentials(context)}
    return {
        "broker_credentials": SASLCredentials(
            mechanism=SASLMechanism(security.mechanism),
            username=security.username,
            password=security.secret("password"),
            ssl_context=context,
        )
    }
