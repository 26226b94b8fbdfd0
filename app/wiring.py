"""The composition root: the one file that names every concrete class."""

import getpass
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as version_of_package
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import structlog

from app.answering.asking import FallbackPolicy
from app.answering.breaker import Breaker
from app.answering.handled_inputs import HandledPlan
from app.answering.handler_start import handled, handler_class
from app.answering.lineup import Lane, Lineup
from app.answering.rollout_follower import RolloutFollower
from app.answering.scoring import Scoring
from app.avro.codec import DatumWriter
from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.record_writer import RecordWriter
from app.avro.resolution import reader_columns
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import (
    BadSettings,
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
from app.kafka.comparisons import Comparisons
from app.kafka.outbox import FRAMING_BYTES, OutputTopics
from app.kafka.partition_watch import PartitionWatch
from app.kafka.permissions import PipelineUse
from app.kafka.schema_lookups import BackgroundLookups
from app.kafka.sink import AtLeastOnceSink
from app.kafka.source import KafkaSource
from app.kafka.topic_limits import TopicLimits, topic_limits
from app.kafka.transactions import TransactionalSink
from app.kafka.watchdog import Watchdog
from app.models.cache import CachedModel, CachePolicy, Sharing
from app.models.cpu_quota import cpu_quota
from app.models.desk import ModelDesk
from app.models.manifest import Manifest, NumberReference, Reference
from app.models.model_store import ModelStore, open_store
from app.models.rollout import ShadowRollout
from app.models.runtime import OnnxModel, RuntimePolicy, golden_tensors, load_model
from app.models.shared_answers import SharedStore
from app.observe.http import Health, ProbeServer
from app.observe.live_page import LivePage
from app.observe.log import configure_logs
from app.observe.look import OneProcess, Watched
from app.observe.merged import ProcessMetrics
from app.observe.metrics import Metrics, PipelineObserver, ShadowMetrics
from app.observe.snapshot import PipelineFacts, WorkerFacts
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher, Pace
from app.pipeline.dead_letter import DeadLetterLimit, FloodGate
from app.pipeline.decode import Decoder
from app.pipeline.encode import Answerer, PredictionEncoder
from app.pipeline.features import FeaturePlan
from app.pipeline.infer import OutputPolicy
from app.pipeline.objective import LatencyObjective
from app.pipeline.summary import SummaryPlan
from app.ports import Model, ModelChooser, SchemaSource, Sink, Tensors
from app.rollouts.measurements import NAMES, Measurements
from app.rollouts.watch import Report, Watcher
from app.settings import ModelCache, Pipeline, Settings, load_settings, settings_text
from app.specs import Constant
from app.train.training import Pipeline as TrainedPipeline
from app.train.training import train_model
from app.worker.chain import Chain, ChainPolicy
from app.worker.children import Children
from app.worker.process import Stream, WorkerProcess
from app.worker.shadow import Shadow, ShadowChild, ShadowPage, ShadowPolicy
from app.worker.shadow_process import ShadowProcess, give_up
from app.worker.shadow_scoring import ShadowScorer, check_writer, serve
from app.worker.slot import SupervisorLine
from app.worker.stream import StreamPolicy, StreamWorker
from app.worker.summing import Summing, SummingPolicy
from app.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from app.kafka.schema_registry import RegistrySchemas

# Shares of worker.memory_budget_bytes: fetched records wait in the client, outputs until they are acknowledged.
CONSUMER_SHARE, PRODUCER_SHARE = 0.5, 0.25
BATCH_SHARE = 0.25 / 4  # of each: one filling, one prepared, one with the model, one being delivered
SHADOW_QUEUE_SHARE = 1 / 8  # of pipelines[].shadow_memory_bytes: comparisons wait in the client
SHORTEST_COMMIT_INTERVAL_S = 0.01  # about what a transaction takes to commit

T = TypeVar("T")

SIGNAL_WITHIN_S = 0.25
SUMMARY_SCHEMA = "ModelSummary"
WORKER_METRICS = "http://127.0.0.1:8080/metrics"  # where a worker on this machine shows them by default
SHIPPED_SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker ready to run: every start-up check has passed."""

    process: WorkerProcess
    metrics: Metrics
    partition_watch: PartitionWatch
    rollouts: Sequence["_Rollout"]

    def run(self) -> int:
        """Until drained, with models changing meanwhile; returns the exit status."""
        for rollout in self.rollouts:
            rollout.start()
        try:
            return self.process.run()
        finally:
            for rollout in self.rollouts:
                rollout.close()


@dataclass(frozen=True, slots=True)
class _Rollout:
    """What follows the rollout page of one pipeline: who answers, and who is beside."""

    follower: RolloutFollower
    chain: Chain
    first: Lineup
    shadow: Shadow | None

    def start(self) -> None:
        self._beside(self.first)
        self.follower.start(self._switch)

    def _switch(self, lineup: Lineup) -> None:
        self.chain.serve(lineup)
        self._beside(lineup)

    def _beside(self, lineup: Lineup) -> None:
        page = lineup.page if isinstance(lineup.page, ShadowRollout) else None
        if self.shadow is not None:
            self.shadow.follow(page)
        elif page is not None:
            structlog.get_logger().warning("no_shadow_without_a_settings_file", version=page.candidate)

    def close(self) -> None:
        self.follower.close()
        if self.shadow is not None:
            self.shadow.close()


def run_worker(settings_file: Path) -> int:
    """`inference-worker run`: until drained; returns the exit status. Raises AppError."""
    text = settings_text(settings_file)
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format)
    if settings.worker.processes > 1:
        return _supervise(settings, Children(settings_file, text))
    worker = build_worker(settings, given=SettingsGiven(settings_file, text))
    health = Health(alive=worker.process.alive, ready=worker.process.ready)
    page = _live_page(settings, OneProcess(worker.metrics), health)
    server = ProbeServer(settings.http.host, settings.http.port, worker.metrics, health, page)
    structlog.get_logger().info("started", http_port=server.port, pipelines=[p.name for p in settings.pipelines])
    worker.process.handle_signals()
    worker.partition_watch.start()
    try:
        return worker.run()
    finally:
        worker.partition_watch.close()
        server.close()


def _supervise(settings: Settings, children: Children) -> int:
    """Several worker processes and one address for all; no client and no session in this one."""
    metrics, worker = ProcessMetrics(), settings.worker
    supervisor = Supervisor(worker.processes, children.spawn, metrics, worker.drain_timeout_s, SystemClock())
    health = Health(alive=supervisor.alive, ready=supervisor.ready)
    server = ProbeServer(settings.http.host, settings.http.port, metrics, health, _live_page(settings, metrics, health))
    pipelines = [pipeline.name for pipeline in settings.pipelines]
    structlog.get_logger().info("started", http_port=server.port, pipelines=pipelines, processes=worker.processes)
    try:
        return children.run(supervisor)
    finally:
        server.close()


def _live_page(settings: Settings, watched: Watched, health: Health) -> LivePage:
    pipelines = tuple(
        PipelineFacts(
            pipeline.name, pipeline.model, tuple(pipeline.input_topics), pipeline.output_topic,
            pipeline.dead_letter_topic, settings.group_id_of(pipeline),
        )
        for pipeline in settings.pipelines
    )  # fmt: skip
    facts = WorkerFacts(
        settings.instance_id,
        version_of_package("kafka-inference-worker"),
        settings.delivery.mode,
        settings.worker.processes,
        pipelines,
    )
    return LivePage(watched, facts, SystemClock(), health.alive, health.ready)


def run_slot(settings_file: Path, text: str, slot: int, line: int) -> int:
    """One of several processes, started by the one above; returns the exit status. Raises AppError.

    text: of the settings file. line: file descriptor of the supervisor's line.
    """
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format, slot=slot)
    supervisor = SupervisorLine(line)
    worker = build_worker(settings, slot=slot, given=SettingsGiven(settings_file, text))
    worker.process.handle_signals()
    supervisor.begin(worker.process, worker.metrics.samples, lambda: tuple(worker.metrics.refused))
    if slot == 0:  # one of them counts what all could see
        worker.partition_watch.start()
    try:
        return worker.run()
    finally:
        worker.partition_watch.close()
        supervisor.close()


@dataclass(frozen=True, slots=True)
class SettingsGiven:
    """The settings file, and what it said when it was read: other processes of a worker are told the same."""

    file: Path
    text: str


def run_shadow(settings_file: Path, text: str, name: str, version: str, *, worker: int, line: int) -> int:
    """Beside a worker, started by it: score what comes over the line with this version; returns the exit status.

    name: of the pipeline. worker: the process that it ends with. line: file descriptor. Raises AppError.
    """
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format, shadow=version)
    pipeline = next(pipeline for pipeline in settings.pipelines if pipeline.name == name)
    give_up(pipeline.shadow_memory_bytes, worker)
    with socket.socket(fileno=line) as connection, ExitStack() as closing:
        serve(connection, lambda: _shadow_scorer(settings, pipeline, version, closing), ShadowPolicy().most_bytes)
    return 0


def _shadow_scorer(settings: Settings, pipeline: Pipeline, version: str, closing: ExitStack) -> ShadowScorer:
    clock, store, topic = SystemClock(), settings_store(settings), pipeline.comparison_topic
    stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
    stored = store.fetch(pipeline.model, version)
    for what, named, ours, theirs in (
        ("event", pipeline.event_schema, stored.manifest.event_schema, stable.event_schema),
        ("prediction", pipeline.prediction_schema, stored.manifest.prediction_schema, stable.prediction_schema),
    ):
        if named is None and ours != theirs:
            raise SchemaIncompatible(f"version {version} is for the {what} schema {ours}, stable for {theirs}")
    model = load_model(stored, RuntimePolicy(providers=settings.models.providers))
    directory = SchemaDirectory(settings.schemas.directory)
    reader = directory.named(pipeline.event_schema or stable.event_schema)
    schema = directory.named("ShadowComparison")
    beside = pipeline.model_copy(update={"output_topic": topic})
    framing, _, header = _wire_format(settings, beside, directory, schema, clock)
    writer = DatumWriter(framing, header, schema)
    check_writer(writer)
    policy = _client_policy(settings)
    policy = replace(policy, client_id=f"{policy.client_id}-shadow")
    queue_bytes = int(pipeline.shadow_memory_bytes * SHADOW_QUEUE_SHARE)
    comparisons = Comparisons(policy, topic, max_queued_bytes=queue_bytes)
    closing.callback(comparisons.close)
    event, path = reader_columns(reader), pipeline.handler
    steps = None if path is None else handled(path, model, event, golden_tensors(stored.manifest))
    threads = runtime_policy(settings, pipeline).intra_op_threads
    return ShadowScorer(model, event, writer, comparisons.publish, clock, steps, threads=threads)


def _shadow(
    given: SettingsGiven, pipeline: Pipeline, metrics: Metrics, clock: Clock, policy: ShadowPolicy | None = None
) -> Shadow:
    def launch(page: ShadowPage) -> ShadowChild:
        command = ["run-shadow", "--config", str(given.file), "--pipeline", pipeline.name]
        command += ["--version", page.candidate, "--worker", str(os.getpid())]
        return ShadowProcess(command, json.dumps(given.text))

    observer = ShadowMetrics(metrics, pipeline.name, pipeline.model)
    return Shadow(launch, policy or ShadowPolicy(), clock, observer)


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
    handler = pipeline.handler
    if handler is not None and not answers.to(f"{pipeline.name}: handler {handler}", lambda: handler_class(handler)):
        answers.results.append(CheckResult(what, "not asked", "it needs the handler"))
        return
    if found is None or directory is None:
        answers.results.append(CheckResult(what, "not asked", "it needs the model and the schema directory"))
        return
    schemas = settings.schemas.model_copy(update={"registry_url": None})
    without_registry = settings.model_copy(update={"schemas": schemas})
    fits = answers.to(what, lambda: _PipelineParts(without_registry, pipeline, Metrics(), SystemClock()))
    if fits:
        for version in fits.versions.page().versions[1:]:
            answers.to(f"{pipeline.name}: version {version}", partial(fits.versions.lane, version))
    if fits and settings.schemas.registry_url is not None:
        output = directory.named(pipeline.prediction_schema or found.prediction_schema)
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
        _summary_writer(only_looking, pipeline, directory)
    except SchemaMissing:
        if not settings.schemas.auto_register:
            raise


def build_worker(
    settings: Settings, *, slot: int = 0, check_broker: bool = True, given: SettingsGiven | None = None
) -> Worker:
    """Check everything that can be checked, load the models, connect. Raises StartupError.

    slot: which of `worker.processes`. check_broker: False for mock brokers, which do not answer such questions.
    given: where the settings come from; a shadow's process cannot be started without.
    """
    clock = SystemClock()
    metrics = Metrics()
    policy = _client_policy(settings, slot)
    cached = caching(settings, metrics, clock)
    parts = [_PipelineParts(settings, pipeline, metrics, clock, slot, cached) for pipeline in settings.pipelines]
    if check_broker:
        BrokerCheck(policy).check([part.use for part in parts])
        limits = [part.limits(policy) for part in parts]
    else:
        limits = [TopicLimits()] * len(parts)
    shadows = [_shadow(given, pipeline, metrics, clock) if given else None for pipeline in settings.pipelines]
    connected = [
        part.stream(policy, its_limits, shadow) for part, its_limits, shadow in zip(parts, limits, shadows, strict=True)
    ]
    topics = {topic for part in parts for topic in (*part.use.inputs, part.use.output, part.use.dead_letters)}
    return Worker(
        WorkerProcess([stream for stream, _ in connected], settings.worker.drain_timeout_s, clock),
        metrics,
        PartitionWatch(policy, topics, metrics),
        [
            _Rollout(part.follower, chain, part.lineup, shadow)
            for part, (_, chain), shadow in zip(parts, connected, shadows, strict=True)
        ],
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
        shadow=pipeline.shadow_topic,
        monitoring=pipeline.monitoring.topics,
    )


class _PipelineParts:
    """Everything of one pipeline but its Kafka clients, checked on construction."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        metrics: Metrics,
        clock: Clock,
        slot: int = 0,
        cached: Callable[[OnnxModel], Model] = lambda model: model,
    ) -> None:
        self._settings, self._pipeline, self._clock = settings, pipeline, clock
        self._identity = settings.identity_of(pipeline, slot)
        self._observer = PipelineObserver(metrics, pipeline.name, pipeline.batch.slo_s)
        self.use = _use(settings, pipeline, slot)
        store = settings_store(settings)
        stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
        directory = SchemaDirectory(settings.schemas.directory)
        reader = directory.named(pipeline.event_schema or stable.event_schema)
        output = directory.named(pipeline.prediction_schema or stable.prediction_schema)
        framing, schemas, header = _wire_format(settings, pipeline, directory, output, clock)
        try:
            writer = DatumWriter(framing, header, output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        self._decoder = Decoder(framing, schemas, reader, clock)
        lane_of = LaneMaker(pipeline, stable, writer, reader_columns(reader), clock)
        self.versions = StoredVersions(
            store, pipeline.model, runtime_policy(settings, pipeline), metrics, cached, lane_of
        )
        self.follower = RolloutFollower(
            pipeline.model,
            self.versions,
            self._observer,
            poll_s=settings.models.rollout_poll_s,
            with_previous=pipeline.fallback.previous,
        )
        self.lineup = self.follower.first()
        self._summaries = _summary_writer(settings, pipeline, directory)
        if self._summaries is not None:
            for plan in [lane.summary for lane in self.lineup.lanes if lane.summary is not None]:
                self._summaries.write(plan.record(plan.nothing(), 0))

    def limits(self, policy: ClientPolicy) -> TopicLimits:
        """What its output topics take, by the broker."""
        monitoring = self._pipeline.monitoring
        return topic_limits(
            policy,
            self.use.output,
            self.use.dead_letters,
            sample=monitoring.sample_topic,
            summaries=monitoring.summary_topic,
        )

    def stream(self, policy: ClientPolicy, limits: TopicLimits, shadow: Shadow | None) -> tuple[Stream, Chain]:
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
            max_batch_bytes=limits.max_batch_bytes,
        )
        summing = self._summing(limits)
        sink = self._sink(producer_properties(policy, delivery), source, delivery, limits, watchdog, summing)
        chain = Chain(
            decoder=self._decoder,
            lineup=self.lineup,
            policy=ChainPolicy(OutputPolicy(pipeline.bad_output), limits.max_output_bytes, fallback_policy(pipeline)),
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
            shadow=shadow,
            summing=summing,
        )
        return Stream(pipeline.name, worker, watchdog), chain

    def _summing(self, limits: TopicLimits) -> Summing | None:
        if self._summaries is None:
            return None
        monitoring = self._pipeline.monitoring
        policy = SummingPolicy(
            bucket_s=monitoring.bucket_s,
            interval_s=monitoring.interval_s,
            transactional=self._settings.delivery.mode == "exactly_once",
            most_bytes=(limits.summary_bytes or limits.prediction_bytes) - FRAMING_BYTES,
        )
        return Summing(self._summaries.write, policy, self._clock)

    def _sink(
        self,
        properties: Properties,
        source: KafkaSource,
        delivery: DeliveryPolicy,
        limits: TopicLimits,
        watchdog: Watchdog,
        summaries: Summing | None,
    ) -> Sink:
        pipeline = self._pipeline
        topics = OutputTopics(
            pipeline.output_topic,
            pipeline.dead_letter_topic,
            pipeline.output_partitioning,
            limits.dead_letter_bytes,
            limits.before_max_ms,
            limits.after_max_ms,
            pipeline.monitoring.sample_topic,
            pipeline.monitoring.sample_share,
            (limits.sample_bytes or limits.prediction_bytes) - FRAMING_BYTES,
            pipeline.monitoring.summary_topic,
        )
        if delivery.transactional_id is None:
            return AtLeastOnceSink(properties, source, topics, delivery, self._clock, watchdog, summaries)
        return TransactionalSink(
            properties, source.consumer, topics, delivery, self._clock, watchdog, self._observer, summaries
        )


class LaneMaker:
    """Sees whether a loaded version fits a pipeline that runs."""

    def __init__(
        self, pipeline: Pipeline, first: Manifest, writer: DatumWriter, columns: pa.Schema, clock: Clock
    ) -> None:
        self._pipeline, self._first, self._writer, self._columns = pipeline, first, writer, columns
        self._clock = clock

    def __call__(
        self,
        model: Model,
        constant: Mapping[str, Constant] | None,
        golden: Tensors,
        references: Mapping[str, Reference],
    ) -> Lane:
        """Its part in the rollout comes later. golden: inputs of its own. Raises SchemaIncompatible, HandlerInvalid."""
        pipeline, first = self._pipeline, self._first
        for what, named, found, serving in (
            ("event", pipeline.event_schema, model.event_schema, first.event_schema),
            ("prediction", pipeline.prediction_schema, model.prediction_schema, first.prediction_schema),
        ):
            if named is None and found != serving:
                raise SchemaIncompatible(
                    f"model {model.name!r} version {model.version} is for the {what} schema {found}, pipeline "
                    f"{pipeline.name} runs with {serving}: that changes with a restart only"
                )
        if pipeline.fallback.constant and constant is None:
            log = structlog.get_logger()
            log.warning("no_constant_in_the_manifest", pipeline=pipeline.name, model=model.name, version=model.version)
        columns = self._columns
        plan, outputs = (
            handled(pipeline.handler, model, columns, golden)
            if pipeline.handler is not None
            else (FeaturePlan(model.inputs, columns), None)
        )
        return Lane(
            plan,
            PredictionEncoder(self._writer, model, columns),
            Answerer(model),
            Breaker(pipeline.fallback.retry_s, self._clock),
            constant,
            outputs=outputs,
            summary=_summary_plan(pipeline, model, references, with_features=not isinstance(plan, HandledPlan)),
        )


class StoredVersions:
    """From the model store to a lane; a `rollout_follower.Versions`."""

    def __init__(
        self,
        store: ModelStore,
        model: str,
        runtime: RuntimePolicy,
        metrics: Metrics,
        cached: Callable[[OnnxModel], Model],
        lane_of: LaneMaker,
    ) -> None:
        self._store, self._model, self._runtime, self._metrics = store, model, runtime, metrics
        self._cached, self._lane_of = cached, lane_of

    def page(self) -> ModelChooser:
        """What is in force."""
        return self._store.rollout(self._model)

    def digest(self, version: str) -> str:
        """Of the model in the store."""
        return self._store.manifest(self._model, version).model_digest

    def lane(self, version: str) -> Lane:
        """Loaded, verified, warm, and fit for the pipeline."""
        stored = self._store.fetch(self._model, version)
        model = load_model(stored, self._runtime)
        fallback = stored.manifest.fallback
        constant = fallback.fields if fallback else None
        manifest = stored.manifest
        lane = self._lane_of(self._cached(model), constant, golden_tensors(manifest), manifest.reference)
        self._metrics.model_loaded(model.name, version, model.load_s)
        self._metrics.model_runs_on(model.name, version, model.provider)
        padded_to = model.buckets or None
        structlog.get_logger().info("model_loaded", model=model.name, version=version, padded_to=padded_to)
        return lane


def _summary_plan(
    pipeline: Pipeline, model: Model, references: Mapping[str, Reference], *, with_features: bool
) -> SummaryPlan | None:
    monitoring = pipeline.monitoring
    if monitoring.summary_topic is None:
        return None
    edges = {field: found.bins for field, found in references.items() if isinstance(found, NumberReference)}
    return SummaryPlan(pipeline.name, model, edges, monitoring.low_confidence, with_features=with_features)


def _summary_writer(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory) -> RecordWriter | None:
    """Framed as the predictions are. Raises SchemaMissing, also if the registry lacks the summary topic's schema."""
    topic, url = pipeline.monitoring.summary_topic, settings.schemas.registry_url
    if topic is None:
        return None
    schema = directory.named(SUMMARY_SCHEMA)
    if url is None:
        return RecordWriter(SingleObjectFraming.header(schema.fingerprint), schema)
    return RecordWriter(registered_header(settings, settings_registry(settings, url), topic, schema), schema)


def fallback_policy(pipeline: Pipeline) -> FallbackPolicy:
    """Who answers in its place while a version fails."""
    fallback = pipeline.fallback
    return FallbackPolicy(fallback.previous, fallback.constant, pipeline.on_model_failure)


def runtime_policy(settings: Settings, pipeline: Pipeline) -> RuntimePolicy:
    """How the sessions of its versions run."""
    threads = max(1, cpu_quota() // settings.worker.processes)
    return RuntimePolicy(
        intra_op_threads=threads, max_rows=pipeline.batch.max_records, providers=settings.models.providers
    )


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


def _stable_model(settings: Settings, pipeline: Pipeline) -> OnnxModel:
    """The version the rollout calls stable, verified and warm."""
    store = settings_store(settings)
    stable = store.rollout(pipeline.model).stable
    return load_model(store.fetch(pipeline.model, stable), runtime_policy(settings, pipeline))


def caching(settings: Settings, metrics: Metrics, clock: Clock) -> Callable[[OnnxModel], Model]:
    """Puts a result cache in front of a loaded version, if settings ask for one; one Redis for all of a process."""
    cache = settings.models.cache
    if not cache.enabled:
        return lambda model: model
    policy = CachePolicy(cache.max_bytes, cache.ttl_s)
    store = _shared_store(cache, clock) if cache.redis_url else None

    def cached(model: OnnxModel) -> Model:
        sharing = Sharing(store, model.file_digests) if store else None
        return CachedModel(model, policy, clock, metrics.cache_looked_up, sharing)

    return cached


def _shared_store(cache: ModelCache, clock: Clock) -> SharedStore:
    from app.models.redis_cache import RedisPolicy, RedisStore  # noqa: PLC0415 - only those who share pay the import

    log = structlog.get_logger()

    def notice(problem: str | None) -> None:
        if problem is None:
            log.info("the shared result cache answers")
        else:
            log.warning("the shared result cache is not asked until it answers again", problem=problem)

    where = RedisPolicy(
        url=cache.redis_url or "",
        username=cache.redis_username,
        password=cache.password(),
        ca_file=cache.redis_ca_file,
        ttl_s=cache.ttl_s,
        budget_s=cache.budget_s,
    )
    try:
        return RedisStore(where, clock, notice)
    except ValueError as exc:  # the client's own reading of the URL
        raise BadSettings(f"models.cache.redis_url: {exc}") from exc


def _wire_format(
    settings: Settings, pipeline: Pipeline, directory: SchemaDirectory, output: Schema, clock: Clock
) -> tuple[Framing, SchemaSource, bytes]:
    """How records are framed, where writer schemas come from, and the header of our predictions."""
    if settings.schemas.registry_url is None:
        return SingleObjectFraming(), directory, SingleObjectFraming.header(output.fingerprint)
    registry = settings_registry(settings, settings.schemas.registry_url)
    header = registered_header(settings, registry, pipeline.output_topic, output)
    return ConfluentFraming(), BackgroundLookups(registry, clock), header


def settings_registry(settings: Settings, url: str) -> "RegistrySchemas":
    """The client of the registry at this URL."""
    # here, because its client takes a fifth of a worker's start to import (OAuth, HTTP): only those who need it pay
    from app.kafka.schema_registry import RegistryPolicy, RegistrySchemas  # noqa: PLC0415

    return RegistrySchemas(RegistryPolicy(url, settings.schemas.registry_username, settings.schemas.password()))


def registered_header(settings: Settings, registry: "RegistrySchemas", topic: str, schema: Schema) -> bytes:
    """The frame of records of this topic. Raises NotReachable."""
    try:
        schema_id = registry.output_id(f"{topic}-value", schema.text, register=settings.schemas.auto_register)
    except SchemaRegistryUnavailable as exc:
        raise NotReachable(f"schema registry {exc}") from exc
    return ConfluentFraming.header(schema_id)


def model_desk(store: str | None, settings_file: Path | None) -> ModelDesk:
    """`inference-worker models …`: over `store`, relative to the working directory, or the store of a settings file.

    Raises BadSettings, and ModelMissing if there is no such folder.
    """
    return ModelDesk(named_store(store, settings_file), who(), lambda: datetime.now(UTC))


def named_store(store: str | None, settings_file: Path | None, *, create: bool = False) -> ModelStore:
    """`store` or the store of a settings file, var/models if neither is given; `create` makes the folder.

    Raises BadSettings, and ModelMissing if there is no such folder.
    """
    if store is not None and settings_file is not None:
        raise BadSettings("--store and --config are both given; choose one")
    if settings_file is None:
        return open_store(store or "var/models", Path.cwd(), create=create)
    return settings_store(load_settings(settings_file))


def watch_rollout(
    model: str,
    store: str | None,
    settings_file: Path | None,
    *,
    metrics_urls: Sequence[str],
    prometheus: str | None,
    prometheus_match: str,
    interval_s: float,
    once: bool,
    dry_run: bool,
    tell: Callable[[Report], None],
) -> str:
    """`inference-worker models rollout watch`: until SIGINT or SIGTERM, or `once`; returns how it ended.

    Raises what `named_store` does, and ModelMissing if the model has no rollout.
    """
    # here, because the HTTP client takes a fifth of a worker's start to import, and no worker needs these
    from app.observe.prometheus_server import PrometheusServer  # noqa: PLC0415
    from app.observe.scrape import ScrapedWorkers  # noqa: PLC0415

    if prometheus and metrics_urls:
        raise BadSettings("--metrics-url and --prometheus are both given; workers would be counted twice")
    clock, pages = SystemClock(), named_store(store, settings_file)
    measurements: Measurements = (
        PrometheusServer(model, NAMES, prometheus, clock, match=prometheus_match)
        if prometheus
        else ScrapedWorkers(model, NAMES, metrics_urls or [WORKER_METRICS])
    )
    watcher = Watcher(model, pages, measurements, clock, who=f"rollout watch ({who()})", dry_run=dry_run)
    stop = Event()

    def stopped() -> bool:
        # in short waits: a signal that comes while the interpreter goes to sleep is noticed when it wakes up
        due = clock.monotonic() + interval_s
        while not stop.wait(max(0.0, min(SIGNAL_WITHIN_S, due - clock.monotonic()))):
            if clock.monotonic() >= due:
                return False
        return True

    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if once:
            return watcher.once(tell, stopped).ended
        watcher.run(tell, stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return "stopped"


def settings_store(settings: Settings) -> ModelStore:
    """The store the settings name. Raises BadSettings, and ModelMissing if there is no such folder."""
    return open_store(settings.models.store, Path.cwd(), access=settings.models.store_options.access())


def who() -> str:
    """Whoever gives an order, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's arbitrary user id has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


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
        who=who(),
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
