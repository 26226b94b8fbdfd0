"""A version beside a worker: what starts its process, and what that process is."""

import json
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from app.answering.handler_start import handled
from app.avro.columns import reader_columns
from app.avro.datum_writer import DatumWriter
from app.avro.schemas import SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import SchemaIncompatible
from app.kafka.comparisons import Comparisons
from app.models.runtime import RuntimePolicy, golden_tensors, load_model
from app.observe.log import configure_logs
from app.observe.pipeline_observer import ShadowMetrics
from app.observe.worker_metrics import Metrics
from app.settings.pipelines import Pipeline
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.clients import worker_client
from app.wiring.lanes import runtime_policy
from app.wiring.stores import settings_store
from app.wiring.wire_format import COMPARISON_SCHEMA, wire_format
from app.worker.shadow import Shadow, ShadowChild, ShadowPolicy
from app.worker.shadow_offer import ShadowPage
from app.worker.shadow_process import ShadowProcess, give_up
from app.worker.shadow_scoring import ShadowScorer, check_writer, serve

SHADOW_QUEUE_SHARE = 1 / 8  # of pipelines[].shadow_memory_bytes: comparisons wait in the client


@dataclass(frozen=True, slots=True)
class SettingsGiven:
    """The settings file, and what it said when it was read: other processes of a worker are told the same."""

    file: Path
    text: str


def shadow_of(given: SettingsGiven, pipeline: Pipeline, metrics: Metrics, clock: Clock) -> Shadow:
    """Starts a process for whatever version the rollout page has beside; none before that."""

    def launch(page: ShadowPage) -> ShadowChild:
        command = ["run-shadow", "--config", str(given.file), "--pipeline", pipeline.name]
        command += ["--version", page.candidate, "--worker", str(os.getpid())]
        return ShadowProcess(command, json.dumps(given.text))

    observer = ShadowMetrics(metrics, pipeline.name, pipeline.model)
    return Shadow(launch, ShadowPolicy(), clock, observer)


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
    schema = directory.named(COMPARISON_SCHEMA)
    framing, _, header = wire_format(settings, topic, schema, directory, clock)
    writer = DatumWriter(framing, header, schema)
    check_writer(writer)
    policy = worker_client(settings)
    policy = replace(policy, client_id=f"{policy.client_id}-shadow")
    queue_bytes = int(pipeline.shadow_memory_bytes * SHADOW_QUEUE_SHARE)
    comparisons = Comparisons(policy, topic, max_queued_bytes=queue_bytes)
    closing.callback(comparisons.close)
    event, path = reader_columns(reader), pipeline.handler
    steps = None if path is None else handled(path, model, event, golden_tensors(stored.manifest))
    runtime = runtime_policy(settings, pipeline)
    threads = runtime.intra_op_threads * runtime.runs_at_once
    return ShadowScorer(model, event, writer, comparisons.publish, clock, steps, threads=threads)
