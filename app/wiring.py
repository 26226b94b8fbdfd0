"""The composition root: the one file that names every concrete class."""

import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from app.avro.codec import DatumWriter
from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.resolution import reader_columns
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import (
    DecodeFailed,
    ModelMissing,
    NotReachable,
    SchemaIncompatible,
    SchemaMissing,
    SchemaRegistryUnavailable,
    StartupError,
)
from app.kafka.checks import BrokerCheck, CheckResult
from app.kafka.client_config import (
    ClientPolicy,
    DeliveryPolicy,
    GroupPolicy,
    Properties,
    consumer_properties,
    producer_properties,
)
from app.kafka.outbox import OutputTopics
from app.kafka.partition_watch import PartitionWatch
from app.kafka.permissions import PipelineUse
from app.kafka.schema_lookups import BackgroundLookups
from app.kafka.sink import AtLeastOnceSink
from app.kafka.source import KafkaSource
from app.kafka.topic_limits import TopicLimits, topic_limits
from app.kafka.transactions import TransactionalSink
from app.kafka.watchdog import Watchdog
from app.models.cpu_quota import cpu_quota
from app.models.manifest import Manifest
from app.models.model_store import open_store
from app.models.runtime import OnnxModel, RuntimePolicy, load_model
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.observe.merged import ProcessMetrics
from app.observe.metrics import Metrics, PipelineObserver
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher, Pace
from app.pipeline.dead_letter import DeadLetterLimit, FloodGate
from app.pipeline.decode import Decoder
from app.pipeline.encode import Answerer, PredictionEncoder
from app.pipeline.features import FeaturePlan
from app.pipeline.infer import OutputPolicy
from app.pipeline.objective import LatencyObjective
from app.ports import SchemaSource, Sink
from app.settings import Pipeline, Settings, load_settings, settings_text
from app.train.training import Pipeline as TrainedPipeline
from app.train.training import train_model
from app.worker.chain import Chain, ChainPolicy
from app.worker.children import Children
from app.worker.process import Stream, WorkerProcess
from app.worker.scoring import Scoring
from app.worker.slot import SupervisorLine
from app.worker.stream import StreamPolicy, StreamWorker
from app.worker.supervisor import Supervisor

# Shares of worker.memory_budget_bytes: fetched records wait in the client, outputs until they are acknowledged.
CONSUMER_SHARE, PRODUCER_SHARE = 0.5, 0.25
BATCH_SHARE = 0.25 / 4  # of each: one filling, one prepared, one with the model, one being delivered
SHORTEST_COMMIT_INTERVAL_S = 0.01  # about what a transaction takes to commit

T = TypeVar("T")

SHIPPED_SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker ready to run: every start-up check has passed."""

    process: WorkerProcess
    metrics: Metrics
    partition_watch: PartitionWatch


def run_worker(settings_file: Path) -> int:
    """`inference-worker run`: until drained; returns the exit status. Raises AppError."""
    text = settings_text(settings_file)
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format)
    if settings.worker.processes > 1:
        return _supervise(settings, Children(settings_file, text))
    worker = build_worker(settings)
    health = Health(alive=worker.process.alive, ready=worker.process.ready)
    server = ProbeServer(settings.http.host, settings.http.port, worker.metrics, health)
    structlog.get_logger().info("started", http_port=server.port, pipelines=[p.name for p in settings.pipelines])
    worker.process.handle_signals()
    worker.partition_watch.start()
    try:
        return worker.process.run()
    finally:
        worker.partition_watch.close()
        server.close()


def _supervise(settings: Settings, children: Children) -> int:
    """Several worker processes and one address for all; no client and no session in this one."""
    metrics, worker = ProcessMetrics(), settings.worker
    supervisor = Supervisor(worker.processes, children.spawn, metrics, worker.drain_timeout_s, SystemClock())
    health = Health(alive=supervisor.alive, ready=supervisor.ready)
    server = ProbeServer(settings.http.host, settings.http.port, metrics, health)
    pipelines = [pipeline.name for pipeline in settings.pipelines]
    structlog.get_logger().info("started", http_port=server.port, pipelines=pipelines, processes=worker.processes)
    try:
        return children.run(supervisor)
    finally:
        server.close()


def run_slot(settings_file: Path, text: str, slot: int, line: int) -> int:
    """One of several processes, started by the one above; returns the exit status. Raises AppError.

    text: of the settings file. line: file descriptor of the supervisor's line.
    """
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format, slot=slot)
    supervisor = SupervisorLine(line)
    worker = build_worker(settings, slot=slot)
    worker.process.handle_signals()
    supervisor.begin(worker.process, worker.metrics.samples)
    if slot == 0:  # one of them counts what all could see
        worker.partition_watch.start()
    try:
        return worker.process.run()
    finally:
        worker.partition_watch.close()
        supervisor.close()


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """What a worker would run with, secrets masked; what follows from it; what the checks found, if asked for."""

    settings: Mapping[str, object]
    derived: Mapping[str, object]
    checks: Sequence[CheckResult]


def check_config(settings_file: Path, *, live: bool) -> ConfigReport:
    """`inference-worker check-config`: changes nothing, and connects to nothing unless `live`. Raises BadSettings."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    uses = [_use(settings, pipeline) for pipeline in settings.pipelines]
    derived: dict[str, object] = {
        "instance_id": settings.instance_id,
        "wire_format": "Confluent" if settings.schemas.registry_url else "Avro single-object",
        "pipelines": {
            use.pipeline: {"group_id": use.group_id, "transactional_id": use.transactional_id} for use in uses
        },
    }
    if settings.worker.processes > 1:
        derived["identities"] = {
            pipeline.name: [settings.identity_of(pipeline, slot) for slot in range(settings.worker.processes)]
            for pipeline in settings.pipelines
        }
    return ConfigReport(settings.model_dump(mode="json"), derived, _live_checks(settings, uses) if live else ())


class _Answers:
    """What start-up checks found, in the order in which they were asked."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []

    def to(self, what: str, question: Callable[[], T]) -> T | None:
        """The answer; None if it was a refusal, which is noted."""
        try:
            answer = question()
        except StartupError as exc:
            self.results.append(CheckResult(what, "failed", f"{type(exc).__name__}: {exc}"))
            return None
        self.results.append(CheckResult(what, "ok"))
        return answer


def _live_checks(settings: Settings, uses: Sequence[PipelineUse]) -> Sequence[CheckResult]:
    """Everything `build_worker` would refuse, not only the first of it."""
    answers = _Answers()
    where = settings.schemas.directory
    directory = answers.to(f"schema directory {where}", lambda: SchemaDirectory(where))
    for pipeline in settings.pipelines:
        _check_pipeline(settings, pipeline, directory, answers)
    broker = answers.to("settings of the Kafka client", lambda: BrokerCheck(_client_policy(settings)))
    return [*answers.results, *(broker.results(uses) if broker else ())]


def _check_pipeline(
    settings: Settings, pipeline: Pipeline, directory: SchemaDirectory | None, answers: _Answers
) -> None:
    found = answers.to(f"{pipeline.name}: model {pipeline.model}", lambda: _stable_model(settings, pipeline))
    what = f"{pipeline.name}: schemas and features"
    if found is None or directory is None:
        answers.results.append(CheckResult(what, "not asked", "it needs the model and the schema directory"))
        return
    model, _ = found
    schemas = settings.schemas.model_copy(update={"registry_url": None})
    without_registry = settings.model_copy(update={"schemas": schemas})
    fits = answers.to(what, lambda: _PipelineParts(without_registry, pipeline, Metrics(), SystemClock()))
    if fits and settings.schemas.registry_url is not None:
        output = directory.named(pipeline.prediction_schema or model.prediction_schema)
        answers.to(
            f"{pipeline.name}: schema registry {settings.schemas.registry_url}",
            lambda: _check_registry(settings, pipeline, directory, output),
        )


def _check_registry(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory, output: Schema) -> None:
    """As at start, but registers nothing."""
    schemas = settings.schemas.model_copy(update={"auto_register": False})
    only_looking = settings.model_copy(update={"schemas": schemas})
    try:
        _wire_format(only_looking, pipeline, directory, output, SystemClock())
    except SchemaMissing:
        if not settings.schemas.auto_register:
            raise


def build_worker(settings: Settings, *, slot: int = 0, check_broker: bool = True) -> Worker:
    """Check everything that can be checked, load the models, connect. Raises StartupError.

    slot: which of `worker.processes`. check_broker: False for mock brokers, which do not answer such questions.
    """
    clock = SystemClock()
    metrics = Metrics()
    policy = _client_policy(settings, slot)
    parts = [_PipelineParts(settings, pipeline, metrics, clock, slot) for pipeline in settings.pipelines]
    if check_broker:
        BrokerCheck(policy).check([part.use for part in parts])
        limits = [topic_limits(policy, part.use.output, part.use.dead_letters) for part in parts]
    else:
        limits = [TopicLimits()] * len(parts)
    streams = [part.stream(policy, its_limits) for part, its_limits in zip(parts, limits, strict=True)]
    topics = {topic for part in parts for topic in (*part.use.inputs, part.use.output, part.use.dead_letters)}
    return Worker(
        WorkerProcess(streams, settings.worker.drain_timeout_s, clock),
        metrics,
        PartitionWatch(policy, topics, metrics),
    )


def _client_policy(settings: Settings, slot: int = 0) -> ClientPolicy:
    which = f"-{slot}" if settings.worker.processes > 1 else ""
    return ClientPolicy(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=f"inference-worker-{settings.instance_id}{which}",
        security=settings.kafka.security.properties(),
        extra=settings.kafka.client,
    )


def _use(settings: Settings, pipeline: Pipeline, slot: int = 0) -> PipelineUse:
    return PipelineUse(
        pipeline=pipeline.name,
        inputs=pipeline.input_topics,
        output=pipeline.output_topic,
        dead_letters=pipeline.dead_letter_topic,
        group_id=settings.group_id_of(pipeline),
        transactional_id=settings.identity_of(pipeline, slot) if settings.delivery.mode == "exactly_once" else None,
        keeps_partition=pipeline.output_partitioning == "source",
    )


class _PipelineParts:
    """Everything of one pipeline but its Kafka clients, checked on construction."""

    def __init__(self, settings: Settings, pipeline: Pipeline, metrics: Metrics, clock: Clock, slot: int = 0) -> None:
        self._settings, self._pipeline, self._clock = settings, pipeline, clock
        self._identity = settings.identity_of(pipeline, slot)
        self._observer = PipelineObserver(metrics, pipeline.name, pipeline.batch.slo_s)
        self.use = _use(settings, pipeline, slot)
        model, revision = _stable_model(settings, pipeline)
        metrics.model_loaded(model.name, model.version, model.load_s)
        directory = SchemaDirectory(settings.schemas.directory)
        reader = directory.named(pipeline.event_schema or model.event_schema)
        output = directory.named(pipeline.prediction_schema or model.prediction_schema)
        framing, schemas, header = _wire_format(settings, pipeline, directory, output, clock)
        columns = reader_columns(reader)
        try:
            writer = DatumWriter(framing, header, output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        self._decoder = Decoder(framing, schemas, reader, clock)
        self._plan = FeaturePlan(model.inputs, columns)
        self._encoder = PredictionEncoder(writer, model, columns)
        self._answerer = Answerer(model, "stable", revision)

    def stream(self, policy: ClientPolicy, limits: TopicLimits) -> Stream:
        """Connect: one consumer, one producer."""
        settings, pipeline, clock = self._settings, self._pipeline, self._clock
        group_id = settings.group_id_of(pipeline)
        identity = self._identity
        budget = settings.worker.memory_budget_bytes / len(settings.pipelines)
        group = GroupPolicy(
            group_id=group_id,
            protocol=settings.kafka.group_protocol,
            session_timeout_s=settings.kafka.session_timeout_s,
            instance_id=identity if settings.worker.static_membership else None,
        )
        watchdog = Watchdog(clock)
        source = KafkaSource(
            consumer_properties(policy, group, int(budget * CONSUMER_SHARE)),
            pipeline.input_topics,
            settings.kafka.start_from,
            watchdog,
            self._observer,
        )
        delivery = DeliveryPolicy(
            transactional_id=identity if settings.delivery.mode == "exactly_once" else None,
            commit_interval_s=_commit_interval_s(settings, pipeline),
            transaction_timeout_s=settings.delivery.transaction_timeout_s,
            compression=settings.delivery.compression,
            max_queued_bytes=int(budget * PRODUCER_SHARE),
            max_message_bytes=max(limits.prediction_bytes, limits.dead_letter_bytes),
            max_batch_bytes=min(limits.prediction_bytes, limits.dead_letter_bytes),
        )
        sink = self._sink(producer_properties(policy, delivery), source, delivery, limits, watchdog)
        chain = Chain(
            decoder=self._decoder,
            plan=self._plan,
            encoder=self._encoder,
            answerer=self._answerer,
            policy=ChainPolicy(OutputPolicy(pipeline.bad_output), limits.max_output_bytes),
            clock=clock,
        )
        pace = _pace(pipeline, clock)
        flood_limit = DeadLetterLimit(pipeline.dead_letter_limit.records, pipeline.dead_letter_limit.window_s)
        worker = StreamWorker(
            source=source,
            sink=sink,
            batcher=MicroBatcher(_batch_policy(pipeline, budget), clock, pace),
            pace=pace,
            chain=chain,
            scoring=Scoring(chain.answer, pipeline.name, clock),
            flood=FloodGate(flood_limit, clock),
            policy=StreamPolicy(settings.worker.drain_timeout_s),
            clock=clock,
            observer=self._observer,
        )
        return Stream(pipeline.name, worker, watchdog)

    def _sink(
        self,
        properties: Properties,
        source: KafkaSource,
        delivery: DeliveryPolicy,
        limits: TopicLimits,
        watchdog: Watchdog,
    ) -> Sink:
        pipeline = self._pipeline
        topics = OutputTopics(
            pipeline.output_topic,
            pipeline.dead_letter_topic,
            pipeline.output_partitioning,
            limits.dead_letter_bytes,
            limits.before_max_ms,
            limits.after_max_ms,
        )
        if delivery.transactional_id is None:
            return AtLeastOnceSink(properties, source, topics, delivery, self._clock, watchdog)
        return TransactionalSink(properties, source.consumer, topics, delivery, self._clock, watchdog, self._observer)


def _batch_policy(pipeline: Pipeline, budget_bytes: float) -> BatchPolicy:
    return BatchPolicy(pipeline.batch.max_records, min(pipeline.batch.max_bytes, int(budget_bytes * BATCH_SHARE)))


def _pace(pipeline: Pipeline, clock: Clock) -> Pace:
    batch = pipeline.batch
    return FixedWait(batch.max_wait_s, clock) if batch.slo_s is None else LatencyObjective(batch.slo_s, clock)


def _commit_interval_s(settings: Settings, pipeline: Pipeline) -> float:
    """Under a backlog outcomes wait this long for their transaction, and an objective counts that."""
    delivery, slo_s = settings.delivery, pipeline.batch.slo_s
    if slo_s is None or delivery.mode == "at_least_once":
        return delivery.commit_interval_s
    return min(delivery.commit_interval_s, max(slo_s / 4, SHORTEST_COMMIT_INTERVAL_S))


def _stable_model(settings: Settings, pipeline: Pipeline) -> tuple[OnnxModel, int]:
    """The version the rollout calls stable, verified and warm, and the rollout's revision."""
    store = open_store(settings.models.store, Path.cwd())
    rollout = store.rollout(pipeline.model)
    threads = max(1, cpu_quota() // settings.worker.processes)
    runtime = RuntimePolicy(intra_op_threads=threads, max_rows=pipeline.batch.max_records)
    return load_model(store.fetch(pipeline.model, rollout.stable), runtime), rollout.revision


def _wire_format(
    settings: Settings, pipeline: Pipeline, directory: SchemaDirectory, output: Schema, clock: Clock
) -> tuple[Framing, SchemaSource, bytes]:
    """How records are framed, where writer schemas come from, and the header of our predictions."""
    if settings.schemas.registry_url is None:
        return SingleObjectFraming(), directory, SingleObjectFraming.header(output.fingerprint)
    # here, because its client takes a fifth of a worker's start to import (OAuth, HTTP): only those who need it pay
    from app.kafka.schema_registry import RegistryPolicy, RegistrySchemas  # noqa: PLC0415

    registry = RegistrySchemas(
        RegistryPolicy(settings.schemas.registry_url, settings.schemas.registry_username, settings.schemas.password())
    )
    subject = f"{pipeline.output_topic}-value"
    try:
        schema_id = registry.output_id(subject, output.text, register=settings.schemas.auto_register)
    except SchemaRegistryUnavailable as exc:
        raise NotReachable(f"schema registry {exc}") from exc
    return ConfluentFraming(), BackgroundLookups(registry, clock), ConfluentFraming.header(schema_id)


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
