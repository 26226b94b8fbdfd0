"""`inference-worker monitor`: the stream of its stages, and what it tells of them."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog

from app.avro.record_writer import RecordWriter
from app.clock import SystemClock
from app.errors import BrokerRefused, MonitorFailed
from app.kafka.client_config import Properties, admin_properties
from app.kafka.own_topics import OwnTopic, make_topics, partition_counts
from app.models.manifest import Reference
from app.models.model_store import ModelStore
from app.monitor.board import Board
from app.monitor.drift import DriftPolicy
from app.monitor.library import FaustLibrary
from app.monitor.monitor_settings import MonitorSettings
from app.monitor.publisher import Publisher, PublishPolicy
from app.monitor.references import References
from app.monitor.stage import Send, changelog_topic
from app.monitor.stream import MonitorStream, StreamPolicy
from app.observe.http import Health, ProbeServer
from app.observe.log import configure_logs
from app.observe.monitor_metrics import MonitorMetrics
from app.settings.reading import load_settings
from app.wiring.clients import client_policy
from app.wiring.monitor_credentials import stream_credentials
from app.wiring.monitor_stages import MONITOR_SCHEMA, monitor_stages, monitor_wire
from app.wiring.stores import settings_store


@dataclass(frozen=True, slots=True)
class _Publishing:
    """What is told every so often: the lag at once, figures on a thread."""

    publisher: Publisher
    board: Board
    lag: Callable[[], Mapping[tuple[str, int], int]]

    def look(self) -> Callable[[], Sequence[Send]]:
        """Take what is to be told now."""
        self.board.show_lag(self.lag())
        return partial(self.publisher.publish, self.publisher.look())


def run_monitor(settings_file: Path) -> NoReturn:
    """`inference-worker monitor`: until SIGTERM, when the process ends. Raises AppError if it cannot start."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    clock, monitor, metrics = SystemClock(), settings.monitor, MonitorMetrics()
    admin = admin_properties(client_policy(settings, "monitor"))
    wire = monitor_wire(settings, clock)
    parts = monitor_stages(settings, wire, settings_store(settings), admin, clock)
    own = [OwnTopic(name, count, compacted=True) for name, count in parts.own_topics.items()]
    tables = [
        OwnTopic(changelog_topic(monitor.group_id, table), stage.partitions, compacted=True)
        for stage in parts.stages
        for table in stage.tables
    ]
    make_topics(admin, [*own, *tables, *_publish_topic(admin, monitor)], monitor.replication)
    board = Board(metrics)
    references = References(
        partial(_reference, settings_store(settings)), clock, ThreadPoolExecutor(1, thread_name_prefix="references")
    )
    writer = RecordWriter(wire.output_header, wire.directory.named(MONITOR_SCHEMA))
    shares = {pipeline.name: pipeline.monitoring.sample_share for pipeline in settings.pipelines}
    policy = PublishPolicy(monitor.publish_topic, monitor.window_s, drift_policy(monitor), shares)
    publisher = Publisher(parts.windows, references, policy, writer.write, board.show, clock)
    # faust wants one; nothing is kept in it, and a thread of it may still be there when the monitor ends
    data = tempfile.TemporaryDirectory(prefix="inference-monitor-", ignore_cleanup_errors=True)
    stream_policy = StreamPolicy(
        group_id=monitor.group_id,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        data_directory=data.name,
        session_timeout_s=settings.kafka.session_timeout_s,
        start_from="latest" if settings.kafka.start_from == "latest" else "earliest",
        replication=monitor.replication,
        stalled_s=monitor.stalled_s,
        publish_s=monitor.publish_s,
        faust=stream_credentials(settings),
    )

    async def run() -> None:
        stream = MonitorStream(stream_policy, parts.stages, parts.own_topics, board.tell, clock, FaustLibrary)
        health = Health(alive=stream.stuck, ready=lambda: None if stream.ready else "partitions are not restored yet")
        server = ProbeServer(settings.http.host, settings.http.port, metrics, health)

        def started() -> None:
            structlog.get_logger().info("started", http_port=server.port, stages=[s.name for s in parts.stages])

        try:
            await stream.run(_Publishing(publisher, board, stream.lag), started)
        finally:
            server.close()

    try:
        asyncio.run(run())
        status = 0
    except MonitorFailed as exc:
        structlog.get_logger().error("monitor_failed", error=str(exc))
        status = 1
    finally:
        data.cleanup()
    _end(status)


def _end(status: int) -> NoReturn:
    """The library's threads may never end. What is durable is right, so the process can end without them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def drift_policy(monitor: MonitorSettings) -> DriftPolicy:
    """As the settings have it."""
    return DriftPolicy(**monitor.drift.model_dump())


def _reference(store: ModelStore, model: str, version: str) -> Mapping[str, Reference]:
    return store.manifest(model, version).reference


def _publish_topic(admin: Properties, monitor: MonitorSettings) -> list[OwnTopic]:
    """Made if it is not there; with how many partitions it was made is its owner's business."""
    try:
        partition_counts(admin, [monitor.publish_topic])
    except BrokerRefused:
        return [OwnTopic(monitor.publish_topic, 1, compacted=True)]
    return []
