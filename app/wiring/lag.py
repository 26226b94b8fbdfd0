"""`inference-worker lag`: which groups are watched, once or until the end; no model, no schema and no worker."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import structlog

from app.clock import SystemClock
from app.errors import BadSettings
from app.kafka.checks import BrokerCheck
from app.kafka.lag import KafkaGroups
from app.lag.board import Board
from app.lag.exporter import ExportPolicy, LagExporter
from app.lag.readings import GroupLag, StartFrom, WatchedGroup
from app.lag.report import as_cells, as_json
from app.lag.watch import LagWatch
from app.observe.http import Health, ProbeServer
from app.observe.lag_metrics import LagMetrics
from app.observe.log import configure_logs
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.clients import client_policy

READ_WITHIN_S = 3.0  # of each look and group, twice: for ages, and to count
READ_ONCE_WITHIN_S = 30.0
COUNT_ONCE = 1_000_000  # records, of each group: a few seconds


@dataclass(frozen=True, slots=True)
class LagReport:
    """One look. tables: (title, rows) per group. problems: what was not seen, and why."""

    groups: Sequence[Mapping[str, Any]]
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]]
    problems: Sequence[str]


def run_lag(settings_file: Path) -> None:
    """`inference-worker lag`: until SIGTERM. Raises AppError."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    stop, clock, metrics = Event(), SystemClock(), LagMetrics()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    groups = watched_groups(settings)
    reader = _reader(settings, groups, READ_WITHIN_S)
    lag = settings.lag
    watch = LagWatch(reader, groups, lag.count_records, clock)
    # the pause; all calls for marks; and for each group what reading may take
    alive_within_s = lag.poll_s + 60.0 + len(groups) * 3 * READ_WITHIN_S
    policy = ExportPolicy(lag.poll_s, lag.keep_s, alive_within_s)
    exporter = LagExporter(watch, Board(metrics), policy, lag.scaling.policy(), clock, stop.wait)
    server = ProbeServer(settings.http.host, settings.http.port, metrics, Health(exporter.alive, exporter.ready))
    structlog.get_logger().info("started", http_port=server.port, groups=[group.group_id for group in groups])
    try:
        exporter.run()
    finally:
        server.close()
        reader.close()
    structlog.get_logger().info("stopped")


def look_once(settings_file: Path, *, exact: bool) -> LagReport:
    """`inference-worker lag --once`. Raises AppError."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    looks = look_now(settings, exact=exact)
    return LagReport(
        groups=as_json(looks),
        tables=[(_title(lag), [as_cells(partition) for partition in lag.partitions]) for lag in looks],
        problems=[
            f"group {lag.group.group_id}: {what}: {why}" for lag in looks for what, why in sorted(lag.unknown.items())
        ],
    )


def look_now(settings: Settings, *, exact: bool = False) -> list[GroupLag]:
    """All groups as they are now. exact: count every record, however long that takes. Raises StartupError."""
    groups = watched_groups(settings)
    reader = _reader(settings, groups, None if exact else READ_ONCE_WITHIN_S)
    try:
        return LagWatch(reader, groups, None if exact else COUNT_ONCE, SystemClock()).look()
    finally:
        reader.close()


def watched_groups(settings: Settings) -> list[WatchedGroup]:
    """The pipelines' groups, and what `lag:` asks for besides. Raises BadSettings for a group that is there twice."""
    start_from = settings.kafka.start_from
    reads: dict[str, list[tuple[str, ...]]] = {}
    for pipeline in settings.pipelines:
        reads.setdefault(settings.group_id_of(pipeline), []).append(pipeline.input_topics)
    groups = [WatchedGroup(group_id, tuple(topics), start_from) for group_id, topics in reads.items()]
    lag = settings.lag
    if lag.monitor:
        groups.append(_monitor(settings))
    if lag.audit:
        groups.append(_audit(settings))
    groups += [_other(group_id, other.topics, other.start_from) for group_id, other in lag.groups.items()]
    ids = [group.group_id for group in groups]
    if twice := sorted({group_id for group_id in ids if ids.count(group_id) > 1}):
        raise BadSettings(f"lag: {', '.join(twice)}: a group that is watched already")
    return groups


def _monitor(settings: Settings) -> WatchedGroup:
    """What it reads of others; not its own topics, nor comparisons, whose topic may not be there."""
    topics = [pipeline.monitoring.summary_topic for pipeline in settings.pipelines]
    for pipeline in settings.pipelines:
        if (outcome := settings.monitor.outcomes.get(pipeline.name)) is not None:
            topics += [pipeline.monitoring.sample_topic, outcome.topic]
    read = tuple(dict.fromkeys(topic for topic in topics if topic is not None))
    if not read:
        raise BadSettings("lag.monitor: no pipeline has a monitoring.summary_topic: there is nothing to monitor")
    return _other(settings.monitor.group_id, read, "latest" if settings.kafka.start_from == "latest" else "earliest")


def _audit(settings: Settings) -> WatchedGroup:
    """What it reads: predictions and, if features are kept, events."""
    kept = settings.audit.pipelines
    pipelines = [pipeline for pipeline in settings.pipelines if kept is None or pipeline.name in kept]
    if not pipelines:
        raise BadSettings("lag.audit: audit.pipelines names no pipeline that there is")
    topics = [pipeline.output_topic for pipeline in pipelines]
    if settings.audit.features:
        topics += [topic for pipeline in pipelines for topic in pipeline.input_topics]
    return _other(settings.audit_group_id, tuple(dict.fromkeys(topics)), "earliest")


def _other(group_id: str, topics: tuple[str, ...], start_from: StartFrom) -> WatchedGroup:
    return WatchedGroup(group_id, (topics,), start_from, scaled=False)


def _reader(settings: Settings, groups: Sequence[WatchedGroup], read_within_s: float | None) -> KafkaGroups:
    """Raises StartupError, naming everything that is wrong."""
    policy = client_policy(settings, "lag")
    BrokerCheck(policy).check_watching({group.group_id: group.topics for group in groups})
    return KafkaGroups(policy, [group.group_id for group in groups], read_within_s)


def _title(lag: GroupLag) -> str:
    if not lag.complete:
        return f"group {lag.group.group_id}: not all of it was seen"
    at_most = "at most " if any(partition.uncounted for partition in lag.partitions) else ""
    return f"group {lag.group.group_id}: {at_most}{lag.records} records, {lag.seconds:.1f} s, {lag.members} members"
