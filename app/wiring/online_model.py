"""One model of a server: its core at once, its versions when the store has them."""

import asyncio
from dataclasses import dataclass, replace

import pyarrow as pa
import structlog

from app.answering.lineup import Lineup
from app.answering.rollout_follower import MAY_PASS, RolloutFollower
from app.avro.columns import reader_columns
from app.avro.datum_writer import DatumWriter
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import SchemaDirectory
from app.clock import Clock
from app.errors import DecodeFailed, SchemaIncompatible
from app.models.rollout import ShadowRollout
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import Metrics
from app.serving.call_tracing import RequestTracing
from app.serving.core import OnlineCore
from app.serving.rest_plain import Served
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.wiring.lanes import LaneMaker, StoredVersions, runtime_policy
from app.wiring.result_cache import caching
from app.wiring.serving_policies import online_policy
from app.wiring.stores import settings_store


@dataclass(frozen=True, slots=True)
class _Opened:
    follower: RolloutFollower
    lineup: Lineup
    event: pa.Schema


class OnlineModel:
    """One pipeline's model: its core at once, its versions when the store has them."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        metrics: Metrics,
        clock: Clock,
        tracing: RequestTracing | None = None,
    ) -> None:
        self._settings, self._pipeline, self._metrics, self._clock = settings, pipeline, metrics, clock
        self._observer = PipelineObserver(metrics, pipeline.name, settings.serving.batch.slo_s)
        self.core = OnlineCore(pipeline.model, None, online_policy(settings, pipeline), clock, self._observer, tracing)
        self.served = Served(self.core, self._reload)
        self._follower: RolloutFollower | None = None

    async def open(self, retry_s: float) -> None:
        """Until a version serves. Raises what will not pass by itself."""
        told = False
        while True:
            try:
                opened = await asyncio.to_thread(self._open)
            except MAY_PASS as exc:
                if not told:
                    structlog.get_logger().warning("not_ready", model=self.core.model, reason=str(exc))
                told = True
                await asyncio.sleep(retry_s)
                continue
            self._take(opened.lineup, opened.event)
            opened.follower.start(self._take)
            self._follower = opened.follower
            return

    async def close(self, within_s: float) -> None:
        """Answer what is there, and look for no more pages."""
        await self.core.drain(within_s)
        if self._follower is not None:
            await asyncio.to_thread(self._follower.close)

    def _take(self, lineup: Lineup, event: pa.Schema | None = None) -> None:
        if isinstance(lineup.page, ShadowRollout):
            structlog.get_logger().warning("no_shadow_of_requests", version=lineup.page.candidate)
        self.core.serve(lineup, event)

    def _reload(self) -> str | None:
        """On a thread: why what the store has is not served, or None."""
        if self._follower is None:
            return "it is not loaded yet"
        why = self._follower.look()
        return None if why is None else f"{type(why).__name__}: {why}"

    def _open(self) -> _Opened:
        settings, pipeline = self._settings, self._pipeline
        store = settings_store(settings)
        stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
        directory = SchemaDirectory(settings.schemas.directory)
        event = reader_columns(directory.named(pipeline.event_schema or stable.event_schema))
        output = directory.named(pipeline.prediction_schema or stable.prediction_schema)
        try:  # nothing is written with it, but a version that a worker refuses is refused here too
            writer = DatumWriter(SingleObjectFraming(), SingleObjectFraming.header(output.fingerprint), output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        cached = caching(settings, self._metrics, self._clock)
        lane_of = LaneMaker(pipeline, stable, writer, event, self._clock)
        runtime = replace(runtime_policy(settings, pipeline, online=True), max_rows=settings.serving.batch.max_rows)
        versions = StoredVersions(store, pipeline.model, runtime, self._metrics, cached, lane_of)
        follower = RolloutFollower(
            pipeline.model,
            versions,
            self._observer,
            poll_s=settings.models.rollout_poll_s,
            with_previous=pipeline.fallback.previous,
        )
        return _Opened(follower, follower.first(), event)
