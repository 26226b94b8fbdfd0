"""A worker of all its pipelines, checked and connected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.answering.lineup import Lineup
from app.answering.rollout_follower import RolloutFollower
from app.clock import SystemClock
from app.kafka.checks import BrokerCheck
from app.kafka.partition_watch import PartitionWatch
from app.kafka.topic_limits import TopicLimits
from app.models.rollout import ShadowRollout
from app.observe.worker_metrics import Metrics
from app.settings.root import Settings
from app.wiring.clients import worker_client
from app.wiring.pipeline_parts import PipelineParts
from app.wiring.result_cache import caching
from app.wiring.shadow import SettingsGiven, shadow_of
from app.wiring.tracing import tracing_of
from app.worker.chain import Chain
from app.worker.process import WorkerProcess
from app.worker.shadow import Shadow

if TYPE_CHECKING:
    from app.observe.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker ready to run: every start-up check has passed."""

    process: WorkerProcess
    metrics: Metrics
    partition_watch: PartitionWatch
    rollouts: Sequence["_Rollout"]
    tracing: "Tracing | None" = None

    def run(self) -> int:
        """Until drained, with models changing meanwhile; returns the exit status."""
        for rollout in self.rollouts:
            rollout.start()
        try:
            return self.process.run()
        finally:
            for rollout in self.rollouts:
                rollout.close()
            if self.tracing is not None:
                self.tracing.close()


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


def build_worker(
    settings: Settings, *, slot: int = 0, check_broker: bool = True, given: SettingsGiven | None = None
) -> Worker:
    """Check everything that can be checked, load the models, connect. Raises StartupError.

    slot: which of `worker.processes`. check_broker: False for mock brokers, which do not answer such questions.
    given: where the settings come from; a shadow's process cannot be started without.
    """
    clock = SystemClock()
    metrics = Metrics()
    policy = worker_client(settings, slot)
    cached = caching(settings, metrics, clock)
    parts = [PipelineParts(settings, pipeline, metrics, clock, slot, cached) for pipeline in settings.pipelines]
    if check_broker:
        BrokerCheck(policy).check([part.use for part in parts])
        limits = [part.limits(policy) for part in parts]
    else:
        limits = [TopicLimits()] * len(parts)
    tracing = tracing_of(settings, metrics, slot)
    shadows = [shadow_of(given, pipeline, metrics, clock) if given else None for pipeline in settings.pipelines]
    connected = [
        part.stream(policy, its_limits, shadow, tracing)
        for part, its_limits, shadow in zip(parts, limits, shadows, strict=True)
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
        tracing,
    )
