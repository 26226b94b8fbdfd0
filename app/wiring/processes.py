"""`inference-worker run`: the worker as one process, or as several under a supervisor."""

from importlib.metadata import version as version_of_package
from pathlib import Path

import structlog

from app.clock import SystemClock
from app.observe.http import Health, ProbeServer
from app.observe.live_page import LivePage
from app.observe.log import configure_logs
from app.observe.look import OneProcess, Watched
from app.observe.merged import ProcessMetrics
from app.observe.pipeline_snapshot import PipelineFacts
from app.observe.snapshot import WorkerFacts
from app.settings.reading import load_settings, settings_text
from app.settings.root import Settings
from app.wiring.shadow import SettingsGiven
from app.wiring.worker import build_worker
from app.worker.children import Children
from app.worker.slot import SupervisorLine
from app.worker.supervisor import Supervisor


def run_worker(settings_file: Path) -> int:
    """`inference-worker run`: until drained; returns the exit status. Raises AppError."""
    text = settings_text(settings_file)
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format)
    if settings.worker.processes > 1:
        return _supervise(settings, Children(settings_file, text))
    worker = build_worker(settings, given=SettingsGiven(settings_file, text))
    health = Health(alive=worker.process.alive, ready=worker.process.ready)
    page = _live_page(settings, OneProcess(worker.metrics), health)
    server = ProbeServer(settings.http.host, settings.http.port, worker.metrics, health, page)
    structlog.get_logger().info("started", http_port=server.port, pipelines=[p.name for p in settings.pipelines])
    worker.process.handle_signals()
    worker.partition_watch.start()
    try:
        return worker.run()
    finally:
        worker.partition_watch.close()
        server.close()


def run_slot(settings_file: Path, text: str, slot: int, line: int) -> int:
    """One of several processes, started by the one above; returns the exit status. Raises AppError.

    text: of the settings file. line: file descriptor of the supervisor's line.
    """
    settings = load_settings(settings_file, text)
    configure_logs(settings.log.level, settings.log.format, slot=slot)
    supervisor = SupervisorLine(line)
    worker = build_worker(settings, slot=slot, given=SettingsGiven(settings_file, text))
    worker.process.handle_signals()
    supervisor.begin(worker.process, worker.metrics.samples, lambda: tuple(worker.metrics.refused))
    if slot == 0:  # one of them counts what all could see
        worker.partition_watch.start()
    try:
        return worker.run()
    finally:
        worker.partition_watch.close()
        supervisor.close()


def _supervise(settings: Settings, children: Children) -> int:
    """Several worker processes and one address for all; no client and no session in this one."""
    metrics, worker = ProcessMetrics(), settings.worker
    supervisor = Supervisor(worker.processes, children.spawn, metrics, drain_and_close_s(settings), SystemClock())
    health = Health(alive=supervisor.alive, ready=supervisor.ready)
    server = ProbeServer(settings.http.host, settings.http.port, metrics, health, _live_page(settings, metrics, health))
    pipelines = [pipeline.name for pipeline in settings.pipelines]
    structlog.get_logger().info("started", http_port=server.port, pipelines=pipelines, processes=worker.processes)
    try:
        return children.run(supervisor)
    finally:
        server.close()


def drain_and_close_s(settings: Settings) -> float:
    """What a worker process may take to drain and then to export its last spans."""
    tracing = settings.tracing
    return settings.worker.drain_timeout_s + (tracing.close_timeout_s if tracing.enabled else 0.0)


def _live_page(settings: Settings, watched: Watched, health: Health) -> LivePage:
    pipelines = tuple(
        PipelineFacts(
            pipeline.name, pipeline.model, tuple(pipeline.input_topics), pipeline.output_topic,
            pipeline.dead_letter_topic, settings.group_id_of(pipeline),
        )
        for pipeline in settings.pipelines
    )  # fmt: skip
    facts = WorkerFacts(
        settings.instance_id,
        version_of_package("kafka-inference-worker"),
        settings.delivery.mode,
        settings.worker.processes,
        pipelines,
    )
    return LivePage(watched, facts, SystemClock(), health.alive, health.ready)
