"""One pipeline of a worker: its steps, checked, and the Kafka clients at both of its ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.answering.rollout_follower import RolloutFollower
from app.answering.scoring import Scoring
from app.avro.columns import reader_columns
from app.avro.datum_writer import DatumWriter
from app.avro.schemas import SchemaDirectory
from app.clock import Clock
from app.errors import DecodeFailed, SchemaIncompatible
from app.kafka.client_config import (
    ClientPolicy,
    DeliveryPolicy,
    GroupPolicy,
    Properties,
    consumer_properties,
    producer_properties,
)
from app.kafka.outbox import FRAMING_BYTES, OutputTopics
from app.kafka.permissions import PipelineUse
from app.kafka.sink import AtLeastOnceSink
from app.kafka.source import KafkaSource
from app.kafka.topic_limits import TopicLimits, topic_limits
from app.kafka.transactions import TransactionalSink
from app.kafka.watchdog import Watchdog
from app.models.runtime import OnnxModel
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import Metrics
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher, Pace
from app.pipeline.dead_letter import DeadLetterLimit, FloodGate
from app.pipeline.decode import Decoder
from app.pipeline.infer import OutputPolicy
from app.pipeline.objective import LatencyObjective
from app.ports import Model, Sink
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.wiring.lanes import LaneMaker, StoredVersions, fallback_policy, runtime_policy
from app.wiring.result_cache import most_rows
from app.wiring.stores import settings_store
from app.wiring.summaries import summary_writer
from app.wiring.tracing import stream_tracing
from app.wiring.wire_format import wire_format
from app.worker.chain import Chain, ChainPolicy
from app.worker.process import Stream
from app.worker.shadow import Shadow
from app.worker.stream import StreamPolicy, StreamWorker
from app.worker.summing import Summing, SummingPolicy
from app.worker.traced_chain import TracedChain

if TYPE_CHECKING:
    from app.observe.tracing import Tracing

# Shares of worker.memory_budget_bytes: fetched records wait in the client, outputs until they are acknowledged.
CONSUMER_SHARE, PRODUCER_SHARE = 0.5, 0.25
BATCH_SHARE = 0.25 / 4  # of each: one filling, one prepared, one with the model, one being delivered
SHORTEST_COMMIT_INTERVAL_S = 0.01  # about what a transaction takes to commit


def pipeline_use(settings: Settings, pipeline: Pipeline, slot: int = 0) -> PipelineUse:
    """What it needs of the brokers, and under which names. slot: which of `worker.processes`."""
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


class PipelineParts:
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
        self._settings, self._pipeline, self._clock, self._metrics = settings, pipeline, clock, metrics
        self._identity = settings.identity_of(pipeline, slot)
        self._observer = PipelineObserver(metrics, pipeline.name, pipeline.batch.slo_s)
        self.use = pipeline_use(settings, pipeline, slot)
        store = settings_store(settings)
        stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
        directory = SchemaDirectory(settings.schemas.directory)
        reader = directory.named(pipeline.event_schema or stable.event_schema)
        output = directory.named(pipeline.prediction_schema or stable.prediction_schema)
        framing, schemas, header = wire_format(settings, pipeline.output_topic, output, directory, clock)
        try:
            writer = DatumWriter(framing, header, output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        self._decoder = Decoder(framing, schemas, reader, clock)
        lane_of = LaneMaker(pipeline, stable, writer, reader_columns(reader), clock)
        self._runtime = runtime_policy(settings, pipeline)
        self.versions = StoredVersions(store, pipeline.model, self._runtime, metrics, cached, lane_of)
        self.follower = RolloutFollower(
            pipeline.model,
            self.versions,
            self._observer,
            poll_s=settings.models.rollout_poll_s,
            with_previous=pipeline.fallback.previous,
        )
        self.lineup = self.follower.first()
        self._summaries = summary_writer(settings, pipeline, directory)
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

    def stream(
        self, policy: ClientPolicy, limits: TopicLimits, shadow: Shadow | None, tracing: "Tracing | None" = None
    ) -> tuple[Stream, Chain]:
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
            clock,
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
        batches = stream_tracing(
            tracing,
            settings,
            self._metrics,
            clock,
            pipeline=pipeline.name,
            group_id=group_id,
            client_id=policy.client_id,
            output_topic=pipeline.output_topic,
            most_bytes=limits.max_output_bytes,
        )
        steps = ChainPolicy(OutputPolicy(pipeline.bad_output), limits.max_output_bytes, fallback_policy(pipeline))
        chain = (
            Chain(self._decoder, self.lineup, steps, clock)
            if batches is None
            else TracedChain(self._decoder, self.lineup, steps, clock, batches)
        )
        pace = _pace(pipeline, clock)
        flood_limit = DeadLetterLimit(pipeline.dead_letter_limit.records, pipeline.dead_letter_limit.window_s)
        worker = StreamWorker(
            source=source,
            sink=sink,
            batcher=MicroBatcher(_batch_policy(pipeline, budget), clock, pace),
            pace=pace,
            chain=chain,
            scoring=Scoring(
                chain.answer,
                pipeline.name,
                clock,
                most_rows(settings.models.cache),
                run_rows=self._runtime.max_rows,
                runs_at_once=self._runtime.runs_at_once,
            ),
            flood=FloodGate(flood_limit, clock),
            policy=StreamPolicy(
                settings.worker.drain_timeout_s,
                pipeline.input_topics[0] if len(pipeline.input_topics) == 1 else None,
            ),
            clock=clock,
            observer=self._observer,
            shadow=shadow,
            summing=summing,
            tracing=batches,
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
