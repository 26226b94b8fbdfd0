"""From a version in the store to a lane of a pipeline: loaded, verified, and fit for it."""

from collections.abc import Callable, Mapping

import pyarrow as pa
import structlog

from app.answering.asking import FallbackPolicy
from app.answering.breaker import Breaker
from app.answering.handled_inputs import HandledPlan
from app.answering.handler_start import handled
from app.answering.lineup import Lane
from app.avro.datum_writer import DatumWriter
from app.clock import Clock
from app.errors import SchemaIncompatible
from app.models.cpu_quota import cpu_quota
from app.models.manifest import Manifest, Reference
from app.models.model_store import ModelStore
from app.models.runtime import CPU, OnnxModel, RuntimePolicy, golden_tensors, load_model
from app.observe.worker_metrics import Metrics
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.features.plan import FeaturePlan
from app.ports import Model, ModelChooser, Tensors
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.specs import Constant
from app.wiring.summaries import summary_plan


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
            summary=summary_plan(pipeline, model, references, with_features=not isinstance(plan, HandledPlan)),
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


def fallback_policy(pipeline: Pipeline) -> FallbackPolicy:
    """Who answers in its place while a version fails."""
    fallback = pipeline.fallback
    return FallbackPolicy(fallback.previous, fallback.constant, pipeline.on_model_failure)


def runtime_policy(settings: Settings, pipeline: Pipeline, *, online: bool = False) -> RuntimePolicy:
    """How the sessions of its versions run. online: there is no backlog, each question is one run.

    So it is on a device, which shares itself out; and whose runs may never end, when the process should.
    """
    cpus = max(1, cpu_quota() // settings.worker.processes)
    one_run = online or settings.models.providers != (CPU,)
    threads = cpus if one_run else min(cpus, settings.models.threads_per_run or cpus)
    return RuntimePolicy(
        intra_op_threads=threads,
        max_rows=pipeline.batch.max_records,
        providers=settings.models.providers,
        runs_at_once=cpus // threads,
    )
