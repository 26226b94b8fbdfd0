"""Tracing, if the settings ask for it: of a process, of its pipelines, of its requests.

The library is imported here and only then: it takes half a second of a start and is an extra.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of_package
from typing import TYPE_CHECKING

import structlog

from app.clock import Clock
from app.errors import BadSettings
from app.observe.tracing_settings import PREFIX, names_without_effect
from app.observe.worker_metrics import Metrics
from app.settings.root import Settings

if TYPE_CHECKING:
    from app.observe.tracing import Tracing
    from app.observe.tracing_batches import StreamTracing
    from app.observe.tracing_requests import RequestTraces

LIBRARY = "opentelemetry", "grpc", "google", "requests"


def tracing_of(settings: Settings, metrics: Metrics, slot: int = 0) -> "Tracing | None":
    """Of this process, which closes it at its end; None if it is off. slot: which of `worker.processes`.

    Raises BadSettings, also if the extra is not installed.
    """
    tracing = settings.tracing
    if not tracing.enabled:
        return None
    without_effect = names_without_effect(os.environ)
    which = f"-{slot}" if settings.worker.processes > 1 else ""
    version = version_of_package("kafka-inference-worker")
    try:
        with _without_standard_names():
            from app.observe.tracing import Tracing, name_spans_in_logs  # noqa: PLC0415 - see above
            from app.observe.tracing_export import otlp_exporter  # noqa: PLC0415

            exporter = otlp_exporter(tracing)
            made = Tracing(tracing, f"{settings.instance_id}{which}", version, exporter, metrics.spans_ended)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in LIBRARY:
            raise
        raise BadSettings(
            f"tracing.enabled: {exc.name} is not installed: pip install 'kafka-inference-worker[tracing]'"
        ) from exc
    name_spans_in_logs()
    log = structlog.get_logger()
    log.info("tracing", endpoint=tracing.url(), protocol=tracing.protocol, sample_ratio=tracing.sample_ratio)
    if without_effect:
        log.warning("environment_names_without_effect", names=without_effect)
    return made


@contextmanager
def _without_standard_names() -> Iterator[None]:
    """Within this block the library finds none of its names, neither where it is imported nor where it is made.

    The settings have what counts of them. The library would add the headers of another backend to ours, and a number
    that is none ends it, some already as it is imported.
    """
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        yield
    finally:
        os.environ.update(taken)


def stream_tracing(
    tracing: "Tracing | None",
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    pipeline: str,
    group_id: str,
    client_id: str,
    output_topic: str,
    most_bytes: int,
) -> "StreamTracing | None":
    """Of one pipeline's batches. most_bytes: of a prediction with its key and headers."""
    if tracing is None:
        return None
    from app.observe.tracing import Allowance, Dice  # noqa: PLC0415
    from app.observe.tracing_batches import BatchSampling, StreamFacts, StreamTracing  # noqa: PLC0415

    wanted = settings.tracing
    sampling = BatchSampling(
        Dice(wanted.sample_ratio), Allowance(wanted.parent_traces_per_s, clock), wanted.records_read, wanted.most_links
    )
    facts = StreamFacts(pipeline, group_id, client_id, output_topic, most_bytes)
    return StreamTracing(tracing.tracer, facts, sampling, metrics.batch_traced)


def request_tracing(
    tracing: "Tracing | None", settings: Settings, metrics: Metrics, clock: Clock
) -> "RequestTraces | None":
    """Of a server's requests, and of the batches that they share."""
    if tracing is None:
        return None
    from app.observe.tracing import Allowance, Dice  # noqa: PLC0415
    from app.observe.tracing_requests import RequestSampling, RequestTraces  # noqa: PLC0415

    wanted = settings.tracing
    sampling = RequestSampling(
        Dice(wanted.sample_ratio), Allowance(wanted.parent_traces_per_s, clock), wanted.most_links
    )
    return RequestTraces(tracing.tracer, sampling, metrics.batch_traced)
