"""The composition root: the one file that names every concrete class."""

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from app.avro.codec import DatumWriter
from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.resolution import reader_columns
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import DecodeFailed, ModelMissing, NotReachable, SchemaIncompatible, SchemaRegistryUnavailable
from app.kafka.checks import BrokerCheck, PipelineTopics
from app.kafka.client_config import (
    ClientPolicy,
    DeliveryPolicy,
    GroupPolicy,
    Properties,
    consumer_properties,
    producer_properties,
)
from app.kafka.outbox import OutputTopics
from app.kafka.schema_registry import RegistryPolicy, RegistrySchemas
from app.kafka.sink import AtLeastOnceSink
from app.kafka.source import KafkaSource
from app.kafka.transactions import TransactionalSink
from app.kafka.watchdog import Watchdog
from app.models.cpu_quota import cpu_quota
from app.models.manifest import Manifest
from app.models.model_store import open_store
from app.models.runtime import OnnxModel, RuntimePolicy, load_model
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.observe.metrics import Metrics, PipelineObserver
from app.pipeline.batcher import BatchPolicy, MicroBatcher
from app.pipeline.dead_letter import DeadLetterLimit, FloodGate
from app.pipeline.decode import Decoder
from app.pipeline.encode import Answerer, PredictionEncoder
from app.pipeline.features import FeaturePlan
from app.ports import SchemaSource, Sink
from app.settings import Pipeline, Settings, load_settings
from app.train.training import Pipeline as TrainedPipeline
from app.train.training import train_model
from app.worker.chain import Chain
from app.worker.process import Stream, WorkerProcess
from app.worker.scoring import Scoring
from app.worker.stream import StreamPolicy, StreamWorker

# Shares of worker.memory_budget_bytes: fetched records wait in the client, outputs until they are acknowledged.
CONSUMER_SHARE, PRODUCER_SHARE = 0.5, 0.25

SHIPPED_SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker ready to run: every start-up check has passed."""

    process: WorkerProcess
    metrics: Metrics


def run_worker(settings_file: Path) -> int:
    """`inference-worker run`: until drained; returns the exit status. Raises AppError."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    worker = build_worker(settings)
    health = Health(alive=worker.process.alive, ready=worker.process.ready)
    server = ProbeServer(settings.http.host, settings.http.port, worker.metrics, health)
    structlog.get_logger().info("started", http_port=server.port, pipelines=[p.name for p in settings.pipelines])
    worker.process.handle_signals()
    try:
        return worker.process.run()
    finally:
        server.close()


def build_worker(settings: Settings, *, check_broker: bool = True) -> Worker:
    """Check everything that can be checked, load the models, connect. Raises StartupError.

    check_broker: False for mock brokers, which do not answer such questions.
    """
    clock = SystemClock()
    metrics = Metrics()
    policy = _client_policy(settings)
    parts = [_PipelineParts(settings, pipeline, metrics, clock) for pipeline in settings.pipelines]
    if check_broker:
        BrokerCheck(policy).check([part.topics for part in parts])
    streams = [part.stream(policy) for part in parts]
    return Worker(WorkerProcess(streams, settings.worker.drain_timeout_s, clock), metrics)


def _client_policy(settings: Settings) -> ClientPolicy:
    return ClientPolicy(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=f"inference-worker-{settings.instance_id}",
        security=settings.kafka.security.properties(),
        extra=settings.kafka.client,
    )


class _PipelineParts:
    """Everything of one pipeline but its Kafka clients, checked on construction."""

    def __init__(self, settings: Settings, pipeline: Pipeline, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._pipeline, self._clock = settings, pipeline, clock
        self._observer = PipelineObserver(metrics, pipeline.name)
        self.topics = PipelineTopics(
            pipeline=pipeline.name,
            inputs=pipeline.input_topics,
            output=pipeline.output_topic,
            dead_letters=pipeline.dead_letter_topic,
            keeps_partition=pipeline.output_partitioning == "source",
        )
        model, revision = _stable_model(settings, pipeline.model)
        metrics.model_loaded(model.name, model.version, model.load_s)
        directory = SchemaDirectory(settings.schemas.directory)
        reader = directory.named(pipeline.event_schema or model.event_schema)
        output = directory.named(pipeline.prediction_schema or model.prediction_schema)
        framing, schemas, header = _wire_format(settings, pipeline, directory, output)
        columns = reader_columns(reader)
        try:
            writer = DatumWriter(framing, header, output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        limit = DeadLetterLimit(pipeline.dead_letter_limit.records, pipeline.dead_letter_limit.window_s)
        self._chain = Chain(
            decoder=Decoder(framing, schemas, reader, clock),
            plan=FeaturePlan(model.inputs, columns),
            encoder=PredictionEncoder(writer, model, columns),
            answerer=Answerer(model, "stable", revision),
            flood=FloodGate(limit, clock),
            clock=clock,
        )

    def stream(self, policy: ClientPolicy) -> Stream:
        """Connect: one consumer, one producer."""
        settings, pipeline, clock = self._settings, self._pipeline, self._clock
        group_id = settings.group_id_of(pipeline)
        identity = f"{group_id}-{settings.instance_id}-0"
        if [settings.group_id_of(other) for other in settings.pipelines].count(group_id) > 1:
            identity += f"-{pipeline.name}"  # two pipelines of one group must not fence each other
        budget = settings.worker.memory_budget_bytes / len(settings.pipelines)
        group = GroupPolicy(
            group_id=group_id,
            protocol=settings.kafka.group_protocol,
            session_timeout_s=settings.kafka.session_timeout_s,
            start_from=settings.kafka.start_from,
            instance_id=identity if settings.worker.static_membership else None,
        )
        watchdog = Watchdog(clock)
        source = KafkaSource(
            consumer_properties(policy, group, int(budget * CONSUMER_SHARE)), pipeline.input_topics, watchdog
        )
        delivery = DeliveryPolicy(
            transactional_id=identity if settings.delivery.mode == "exactly_once" else None,
            commit_interval_s=settings.delivery.commit_interval_s,
            transaction_timeout_s=settings.delivery.transaction_timeout_s,
            compression=settings.delivery.compression,
            max_queued_bytes=int(budget * PRODUCER_SHARE),
        )
        sink = self._sink(producer_properties(policy, delivery), source, delivery, watchdog)
        worker = StreamWorker(
            source=source,
            sink=sink,
            batcher=MicroBatcher(_batch_policy(pipeline), clock),
            scoring=Scoring(self._chain.score, pipeline.name),
            policy=StreamPolicy(settings.worker.drain_timeout_s),
            clock=clock,
            observer=self._observer,
        )
        return Stream(pipeline.name, worker, watchdog)

    def _sink(self, properties: Properties, source: KafkaSource, delivery: DeliveryPolicy, watchdog: Watchdog) -> Sink:
        pipeline = self._pipeline
        topics = OutputTopics(pipeline.output_topic, pipeline.dead_letter_topic, pipeline.output_partitioning)
        if delivery.transactional_id is None:
            return AtLeastOnceSink(properties, source, topics, delivery, self._clock, watchdog)
        return TransactionalSink(properties, source.consumer, topics, delivery, self._clock, watchdog, self._observer)


def _batch_policy(pipeline: Pipeline) -> BatchPolicy:
    return BatchPolicy(pipeline.batch.max_records, pipeline.batch.max_bytes, pipeline.batch.max_wait_s)


def _stable_model(settings: Settings, name: str) -> tuple[OnnxModel, int]:
    """The version the rollout calls stable, verified and warm, and the rollout's revision."""
    store = open_store(settings.models.store, Path.cwd())
    rollout = store.rollout(name)
    runtime = RuntimePolicy(intra_op_threads=cpu_quota())
    return load_model(store.fetch(name, rollout.stable), runtime), rollout.revision


def _wire_format(
    settings: Settings, pipeline: Pipeline, directory: SchemaDirectory, output: Schema
) -> tuple[Framing, SchemaSource, bytes]:
    """How records are framed, where writer schemas come from, and the header of our predictions."""
    if settings.schemas.registry_url is None:
        return SingleObjectFraming(), directory, SingleObjectFraming.header(output.fingerprint)
    registry = RegistrySchemas(
        RegistryPolicy(settings.schemas.registry_url, settings.schemas.registry_username, settings.schemas.password())
    )
    subject = f"{pipeline.output_topic}-value"
    try:
        schema_id = registry.output_id(subject, output.text, register=settings.schemas.auto_register)
    except SchemaRegistryUnavailable as exc:
        raise NotReachable(f"schema registry {exc}") from exc
    return ConfluentFraming(), registry, ConfluentFraming.header(schema_id)


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
        who=getpass.getuser(),
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
