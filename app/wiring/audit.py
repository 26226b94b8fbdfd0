"""`inference-worker audit`: what keeps the trail, what asks it, and what deletes of it."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import structlog

from app.audit.expiry import Expired, expire
from app.audit.features import with_features
from app.audit.filing import AuditObserver
from app.audit.lane import RollPolicy
from app.audit.masking import Mask
from app.audit.objects import TrailObjects, open_objects
from app.audit.query import Answer, Question, answers
from app.audit.trail import FEATURES, PREDICTIONS, Trail
from app.audit.writer import AuditPolicy, AuditWriter
from app.clock import Clock, SystemClock
from app.errors import BadSettings
from app.exit_status import EXIT_DRAIN_DEADLINE, EXIT_DRAINED
from app.kafka.audit_source import AuditSource, check_topics
from app.kafka.client_config import GroupPolicy, consumer_properties
from app.kafka.watchdog import Watchdog
from app.observe.audit_metrics import AuditMetrics
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.overdue import watch
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.audit_topics import kept_pipelines, kept_topics
from app.wiring.clients import client_policy

QUEUE_SHARE = 0.25  # of audit.memory_budget_bytes, beside it: fetched records wait in the client


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
    watch(watchdog, ended)
    structlog.get_logger().info("started", pipelines=pipelines, http_port=server.port)
    try:
        return EXIT_DRAINED if writer.run(stop) else EXIT_DRAIN_DEADLINE
    finally:
        ended.set()
        server.close()


def build_writer(
    settings: Settings, clock: Clock, stop: Event, watchdog: Watchdog, observer: AuditObserver
) -> AuditWriter:
    """Check everything that can be checked, and connect. Raises StartupError."""
    audit = settings.audit
    objects = _objects(settings, create=True)
    kept = kept_topics(settings, objects, clock)
    objects.has("_")  # whether the store answers, and lets us in
    client = client_policy(settings, "audit")
    check_topics(client, list(kept))
    group = GroupPolicy(
        group_id=settings.audit_group_id,
        protocol=settings.kafka.group_protocol,
        session_timeout_s=settings.kafka.session_timeout_s,
    )
    properties = consumer_properties(client, group, int(audit.memory_budget_bytes * QUEUE_SHARE))
    source = AuditSource(properties, list(kept), "earliest", clock, watchdog, _Unwatched())
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
    kept_key = Mask(audit.mask, audit.secret()).key(key.encode())
    found = answers(_trails(settings, pipeline, PREDICTIONS), Question(kept_key, since, until, limit), progress)
    if not audit.features:
        return found
    return with_features(found, {trail.pipeline: trail for trail in _trails(settings, pipeline, FEATURES)}, kept_key)


def expire_audit(settings_file: Path, *, dry_run: bool) -> list[Expired]:
    """`inference-worker audit expire`: delete what is older than audit.retention_days. Raises AppError."""
    settings = load_settings(settings_file)
    days = settings.audit.retention_days
    if days is None:
        raise BadSettings("audit.retention_days is not set: nothing is ever too old")
    today = datetime.now(UTC).date()
    trails = _trails(settings, None, PREDICTIONS)
    # features that were kept once are deleted too, whatever audit.features says now
    trails += [trail for trail in _trails(settings, None, FEATURES) if trail.files()]
    return [expire(trail, today, days, dry_run=dry_run) for trail in trails]


def _trails(settings: Settings, name: str | None, kind: str) -> list[Trail]:
    objects = _objects(settings, create=False)
    names = [pipeline.name for pipeline in kept_pipelines(settings)]
    if name is not None and name not in names:
        raise BadSettings(f"--pipeline {name}: not kept; there are {', '.join(names)}")
    return [Trail(objects, one, kind) for one in names if name in {None, one}]


def _objects(settings: Settings, *, create: bool) -> TrailObjects:
    access = settings.models.store_options.access()
    return open_objects(settings.audit.store, Path.cwd(), access, create=create)


class _Unwatched:
    """A SourceObserver: the source's log says it all."""

    def offset_reset(self, reason: str, missed: int) -> None:
        pass
