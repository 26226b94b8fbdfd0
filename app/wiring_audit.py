"""Composition of `audit run`, `query` and `expire`.

Beside `wiring.py` because no worker needs any of it, and nobody who asks the trail needs the rest.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import structlog

from app.audit.expiry import Expired, expire
from app.audit.lane import RollPolicy
from app.audit.masking import Mask, check_names
from app.audit.objects import TrailObjects, open_objects
from app.audit.query import Answer, Question, answers
from app.audit.rows import PipelineRows, kept_fields
from app.audit.trail import Trail
from app.audit.watching import watch
from app.audit.writer import AuditObserver, AuditPolicy, AuditWriter, Kept
from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import BadSettings
from app.kafka.audit_source import AuditSource, check_topics
from app.kafka.client_config import ClientPolicy, GroupPolicy, consumer_properties
from app.kafka.schema_lookups import BackgroundLookups
from app.kafka.watchdog import Watchdog
from app.observe.audit_metrics import AuditMetrics
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.pipeline.decode import Decoder
from app.ports import SchemaSource
from app.settings import Pipeline, Settings, load_settings
from app.wiring import settings_registry, settings_store

QUEUE_SHARE = 0.25  # of audit.memory_budget_bytes, beside it: fetched records wait in the client
EXIT_DEADLINE, EXIT_WATCHDOG = 3, 4  # as the worker's


def run_audit(settings_file: Path) -> int:
    """`inference-worker audit run`: until SIGTERM; returns the exit status. Raises AppError."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    clock, ended = SystemClock(), Event()
    watchdog = Watchdog(clock)
    pipelines = [pipeline.name for pipeline in kept_pipelines(settings)]
    metrics = AuditMetrics(pipelines)
    writer = build_writer(settings, clock, stop, watchdog, metrics)
    metrics.watch(writer.waiting)
    health = Health(
        alive=lambda: f"{call.name} does not return" if (call := watchdog.overdue()) else None,
        ready=lambda: None if writer.ready else "it has no partitions yet, or does not know where their trails end",
    )
    server = ProbeServer(settings.http.host, settings.http.port, metrics, health)
    watch(watchdog.overdue, lambda: os._exit(EXIT_WATCHDOG), ended)
    structlog.get_logger().info("started", pipelines=pipelines, http_port=server.port)
    try:
        return 0 if writer.run(stop) else EXIT_DEADLINE
    finally:
        ended.set()
        server.close()


def build_writer(
    settings: Settings, clock: Clock, stop: Event, watchdog: Watchdog, observer: AuditObserver
) -> AuditWriter:
    """Check everything that can be checked, and connect. Raises StartupError."""
    audit, pipelines = settings.audit, kept_pipelines(settings)
    framing, schemas = _wire_format(settings, clock)
    directory = SchemaDirectory(settings.schemas.directory)
    readers = {pipeline.name: _prediction_schema(settings, pipeline, directory) for pipeline in pipelines}
    check_names(audit.mask, [kept_fields(reader) for reader in readers.values()])
    mask = Mask(audit.mask, audit.secret())
    objects = _objects(settings, create=True)
    kept = {
        pipeline.output_topic: Kept(
            Trail(objects, pipeline.name),
            PipelineRows(
                Decoder(framing, schemas or directory, readers[pipeline.name], clock), readers[pipeline.name], mask
            ),
        )
        for pipeline in pipelines
    }
    objects.has("_")  # whether the store answers, and lets us in
    client = ClientPolicy(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=f"inference-worker-{settings.instance_id}-audit",
        security=settings.kafka.security.properties(),
        extra=settings.kafka.client,
    )
    check_topics(client, list(kept))
    group = GroupPolicy(
        group_id=settings.audit_group_id,
        protocol=settings.kafka.group_protocol,
        session_timeout_s=settings.kafka.session_timeout_s,
    )
    properties = consumer_properties(client, group, int(audit.memory_budget_bytes * QUEUE_SHARE))
    source = AuditSource(properties, list(kept), "earliest", watchdog, _Unwatched())
    policy = AuditPolicy(
        roll=RollPolicy(audit.file_rows, audit.file_bytes, audit.file_age_s),
        memory_bytes=audit.memory_budget_bytes,
        retention_days=audit.retention_days,
        drain_timeout_s=settings.worker.drain_timeout_s,
    )
    return AuditWriter(source, kept, policy, clock, stop.wait, observer)


def query_audit(
    settings_file: Path,
    key: str,
    *,
    pipeline: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    progress: Callable[[int, int], None],
) -> list[Answer]:
    """`inference-worker audit query`: the newest records with this key. Raises AppError."""
    settings = load_settings(settings_file)
    audit = settings.audit
    question = Question(Mask(audit.mask, audit.secret()).key(key.encode()), since, until, limit)
    return answers(_trails(settings, pipeline), question, progress)


def expire_audit(settings_file: Path, *, dry_run: bool) -> list[Expired]:
    """`inference-worker audit expire`: delete what is older than audit.retention_days. Raises AppError."""
    settings = load_settings(settings_file)
    days = settings.audit.retention_days
    if days is None:
        raise BadSettings("audit.retention_days is not set: nothing is ever too old")
    today = datetime.now(UTC).date()
    return [expire(trail, today, days, dry_run=dry_run) for trail in _trails(settings, None)]


def kept_pipelines(settings: Settings) -> list[Pipeline]:
    """Those whose predictions are kept. Raises BadSettings for a name that is none, and for a topic that two share."""
    wanted = settings.audit.pipelines
    known = {pipeline.name: pipeline for pipeline in settings.pipelines}
    if unknown := sorted(set(wanted or ()) - known.keys()):
        raise BadSettings(f"audit.pipelines: {', '.join(unknown)}: no such pipeline; there are {', '.join(known)}")
    kept = list(known.values()) if wanted is None else [known[name] for name in dict.fromkeys(wanted)]
    topics = Counter(pipeline.output_topic for pipeline in kept)
    if shared := [topic for topic, pipelines in topics.items() if pipelines > 1]:
        raise BadSettings(f"audit.pipelines: several write to {', '.join(shared)}: name one of them")
    return kept


def _trails(settings: Settings, name: str | None) -> list[Trail]:
    objects = _objects(settings, create=False)
    names = [pipeline.name for pipeline in kept_pipelines(settings)]
    if name is not None and name not in names:
        raise BadSettings(f"--pipeline {name}: not kept; there are {', '.join(names)}")
    return [Trail(objects, one) for one in names if name in {None, one}]


def _objects(settings: Settings, *, create: bool) -> TrailObjects:
    access = settings.models.store_options.access()
    return open_objects(settings.audit.store, Path.cwd(), access, create=create)


def _prediction_schema(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory) -> Schema:
    if pipeline.prediction_schema is not None:
        return directory.named(pipeline.prediction_schema)
    store = settings_store(settings)
    return directory.named(store.manifest(pipeline.model, store.rollout(pipeline.model).stable).prediction_schema)


def _wire_format(settings: Settings, clock: Clock) -> tuple[Framing, SchemaSource | None]:
    """How records are framed, and who knows their schemas; None: the schema directory."""
    if settings.schemas.registry_url is None:
        return SingleObjectFraming(), None
    return ConfluentFraming(), BackgroundLookups(settings_registry(settings, settings.schemas.registry_url), clock)


class _Unwatched:
    """A SourceObserver: the source's log says it all."""

    def offset_reset(self, reason: str, missed: int) -> None:
        pass
