"""`inference-worker check-config`: what a worker would run with, and all that it would refuse."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.answering.handler_start import handler_class
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import SystemClock
from app.errors import SchemaMissing, StartupError
from app.kafka.checks import BrokerCheck, CheckResult
from app.kafka.client_config import ClientPolicy, GroupPolicy, consumer_properties
from app.kafka.permissions import PipelineUse
from app.models.runtime import OnnxModel, load_model
from app.observe.log import configure_logs
from app.observe.worker_metrics import Metrics
from app.settings.pipelines import Pipeline
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.clients import worker_client
from app.wiring.lanes import runtime_policy
from app.wiring.pipeline_parts import PipelineParts, pipeline_use
from app.wiring.stores import settings_store
from app.wiring.summaries import summary_writer
from app.wiring.wire_format import wire_format

T = TypeVar("T")


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
    uses = [pipeline_use(settings, pipeline) for pipeline in settings.pipelines]
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
    if not live:
        _checked_client(settings)
    return ConfigReport(settings.model_dump(mode="json"), derived, _live_checks(settings, uses) if live else ())


def _checked_client(settings: Settings) -> ClientPolicy:
    """A worker's. Raises BadSettings for what does not fit its group, as a worker does when it makes its consumer."""
    policy, kafka = worker_client(settings), settings.kafka
    consumer_properties(policy, GroupPolicy(kafka.group_id, kafka.group_protocol, kafka.session_timeout_s), 0)
    return policy


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
    broker = answers.to("settings of the Kafka client", lambda: BrokerCheck(_checked_client(settings)))
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
    fits = answers.to(what, lambda: PipelineParts(without_registry, pipeline, Metrics(), SystemClock()))
    if fits:
        for version in fits.versions.page().versions[1:]:
            answers.to(f"{pipeline.name}: version {version}", partial(fits.versions.lane, version))
    if fits and settings.schemas.registry_url is not None:
        output = directory.named(pipeline.prediction_schema or found.prediction_schema)
        answers.to(
            f"{pipeline.name}: schema registry {settings.schemas.registry_url}",
            lambda: _check_registry(settings, pipeline, directory, output),
        )


def _stable_model(settings: Settings, pipeline: Pipeline) -> OnnxModel:
    """The version the rollout calls stable, verified and warm."""
    store = settings_store(settings)
    stable = store.rollout(pipeline.model).stable
    return load_model(store.fetch(pipeline.model, stable), runtime_policy(settings, pipeline))


def _check_registry(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory, output: Schema) -> None:
    """As at start, but registers nothing."""
    schemas = settings.schemas.model_copy(update={"auto_register": False})
    only_looking = settings.model_copy(update={"schemas": schemas})
    try:
        wire_format(only_looking, pipeline.output_topic, output, directory, SystemClock())
        summary_writer(only_looking, pipeline, directory)
    except SchemaMissing:
        if not settings.schemas.auto_register:
            raise
