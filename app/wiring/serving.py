"""`inference-worker serve`: the same models, rollouts and steps as the worker, behind HTTP and gRPC."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
import uvloop

from app.clock import SystemClock
from app.errors import BadSettings
from app.exit_status import EXIT_DRAIN_DEADLINE, EXIT_DRAINED
from app.observe.log import configure_logs
from app.observe.worker_metrics import Metrics, RequestMetrics
from app.serving.admission import OpenBytes
from app.serving.rest import application
from app.serving.rest_server import RestServer
from app.settings.pipelines import Pipeline
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.online_model import OnlineModel
from app.wiring.serving_policies import gate_of, grpc_server, routes_of, server_policy
from app.wiring.tracing import request_tracing, tracing_of

# A slow model's thread and the loop take turns at the interpreter lock; with Python's 5 ms a batch waits that long for
# each of its turns while the loop is busy.
SWITCH_INTERVAL_S = 0.0005


def serve(settings_file: Path) -> int:
    """`inference-worker serve`: until SIGTERM; returns the exit status. Raises AppError."""
    settings = load_settings(settings_file)
    configure_logs(settings.log.level, settings.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    clock, metrics, serving = SystemClock(), Metrics(), settings.serving
    ending = asyncio.Event()
    tracing = tracing_of(settings, metrics)
    traces = request_tracing(tracing, settings, metrics, clock)
    opened = {each.model: OnlineModel(settings, each, metrics, clock, traces) for each in _distinct(settings)}
    default = _default(settings)
    gate, held = gate_of(settings, clock), OpenBytes(serving.limits.open_bytes)
    app = application(
        {name: model.served for name, model in opened.items()},
        default.model,
        gate,
        routes_of(settings),
        RequestMetrics(metrics, "rest"),
        metrics.exposition,
        ending,
        held,
        traces,
    )
    server = RestServer(app, server_policy(settings))
    grpc = grpc_server(settings, gate, [model.core for model in opened.values()], metrics, ending, held, traces)
    leaving = asyncio.Event()
    _end_on_signals(leaving)
    if grpc is not None:
        grpc.reserve()
    await server.start()
    log = structlog.get_logger()
    log.info(
        "started",
        http_port=server.port,
        grpc_port=None if grpc is None else grpc.port,
        models=list(opened),
        tls=serving.tls.cert_file is not None,
    )
    opening = [asyncio.create_task(model.open(settings.models.rollout_poll_s)) for model in opened.values()]
    waiting = asyncio.create_task(leaving.wait())

    async def opened_all() -> None:
        if grpc is not None:  # not before: no proxy can tell "no model is ready" in a gRPC answer from any other
            await grpc.start()
        log.info("ready")

    try:
        await _until_over(opening, waiting, opened_all)
        return EXIT_DRAINED
    finally:
        if leaving.is_set():  # nobody is sent here any more, once everybody has heard of it
            for model in opened.values():
                model.core.leave()
            await asyncio.sleep(serving.drain_delay_s)
        ending.set()
        for task in (*opening, waiting):
            task.cancel()
        stopping = [server.stop(serving.drain_timeout_s)]
        if grpc is not None:
            stopping.append(grpc.drain(serving.drain_timeout_s))
        await asyncio.gather(*stopping)
        for model in opened.values():
            await model.close(1.0)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        log.info("drained")


async def _until_over(
    opening: Sequence["asyncio.Task[None]"], waiting: "asyncio.Task[bool]", then: Callable[[], Awaitable[None]]
) -> None:
    """Until the end is asked for. Raises what keeps a model from being opened, for good.

    then: called once, when every model is open; what it raises is raised.
    """
    pending: set[asyncio.Task[object]] = {*opening, waiting}
    while waiting in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if pending == {waiting}:
            await then()


def _distinct(settings: Settings) -> Sequence[Pipeline]:
    """One pipeline for each model: the default one, or the first."""
    default = _default(settings)
    by_model: Mapping[str, Pipeline] = {pipeline.model: pipeline for pipeline in reversed(settings.pipelines)}
    return list(({default.model: default} | {**by_model, default.model: default}).values())


def _default(settings: Settings) -> Pipeline:
    wanted = settings.serving.pipeline
    if wanted is None:
        return settings.pipelines[0]
    for pipeline in settings.pipelines:
        if pipeline.name == wanted:
            return pipeline
    there = ", ".join(pipeline.name for pipeline in settings.pipelines)
    raise BadSettings(f"serving.pipeline: there is no pipeline {wanted!r}, there are {there}")


def _end_on_signals(leaving: asyncio.Event) -> None:
    """SIGTERM and SIGINT drain; a second one ends the process at once."""

    def end() -> None:
        if leaving.is_set():
            os._exit(EXIT_DRAIN_DEADLINE)
        leaving.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # not on the main thread: a test ends it otherwise
            loop.add_signal_handler(number, end)
