"""Composition of `inference-worker serve`: the same models, rollouts and steps as the worker, behind HTTP.

Beside `wiring.py` because no worker needs any of it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import structlog
import uvloop

from app.answering.lineup import Lineup
from app.answering.rollout_follower import MAY_PASS, RolloutFollower
from app.avro.codec import DatumWriter
from app.avro.framing import SingleObjectFraming
from app.avro.resolution import reader_columns
from app.avro.schemas import SchemaDirectory
from app.clock import Clock, SystemClock
from app.errors import BadSettings, DecodeFailed, SchemaIncompatible
from app.models.rollout import ShadowRollout
from app.observe.log import configure_logs
from app.observe.metrics import Metrics, PipelineObserver, RequestMetrics
from app.pipeline.infer import OutputPolicy
from app.serving.admission import OpenBytes
from app.serving.core import OnlineCore, OnlinePolicy
from app.serving.gate import Gate, TokenPolicy
from app.serving.grpc_calls import Calls
from app.serving.grpc_server import GrpcPolicy, GrpcServer, GrpcTls
from app.serving.grpc_services import grpc_services
from app.serving.rest import Routes, application
from app.serving.rest_calls import RestPolicy
from app.serving.rest_connections import PROBES
from app.serving.rest_plain import Served
from app.serving.rest_server import RestServer, ServerPolicy, ServerTls
from app.settings import Pipeline, Settings, load_settings
from app.wiring import (
    LaneMaker,
    StoredVersions,
    caching,
    fallback_policy,
    runtime_policy,
    settings_store,
)

EXIT_DRAINED, EXIT_DRAIN_DEADLINE = 0, 3
MOST_UNKNOWN_CALLS = 4_000  # of gRPC, on their way to the gate: it ends those it does not let in at once
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
    opened = {pipeline.model: _OnlineModel(settings, pipeline, metrics, clock) for pipeline in _distinct(settings)}
    default = _default(settings)
    gate, held = gate_of(settings, clock), OpenBytes(serving.limits.open_bytes)
    app = application(
        {name: model.served for name, model in opened.items()},
        default.model,
        gate,
        _routes(settings),
        RequestMetrics(metrics, "rest"),
        metrics.exposition,
        ending,
        held,
    )
    server = RestServer(app, _server_policy(settings))
    grpc = grpc_server(settings, gate, [model.core for model in opened.values()], metrics, ending, held)
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


@dataclass(frozen=True, slots=True)
class _Opened:
    follower: RolloutFollower
    lineup: Lineup
    event: pa.Schema


class _OnlineModel:
    """One pipeline's model: its core at once, its versions when the store has them."""

    def __init__(self, settings: Settings, pipeline: Pipeline, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._pipeline, self._metrics, self._clock = settings, pipeline, metrics, clock
        self._observer = PipelineObserver(metrics, pipeline.name, settings.serving.batch.slo_s)
        self.core = OnlineCore(pipeline.model, None, _online_policy(settings, pipeline), clock, self._observer)
        self.served = Served(self.core, self._reload)
        self._follower: RolloutFollower | None = None

    async def open(self, retry_s: float) -> None:
        """Until a version serves. Raises what will not pass by itself."""
        told = False
        while True:
            try:
                opened = await asyncio.to_thread(self._open)
            except MAY_PASS as exc:
                if not told:
                    structlog.get_logger().warning("not_ready", model=self.core.model, reason=str(exc))
                told = True
                await asyncio.sleep(retry_s)
                continue
            self._take(opened.lineup, opened.event)
            opened.follower.start(self._take)
            self._follower = opened.follower
            return

    async def close(self, within_s: float) -> None:
        """Answer what is there, and look for no more pages."""
        await self.core.drain(within_s)
        if self._follower is not None:
            await asyncio.to_thread(self._follower.close)

    def _take(self, lineup: Lineup, event: pa.Schema | None = None) -> None:
        if isinstance(lineup.page, ShadowRollout):
            structlog.get_logger().warning("no_shadow_of_requests", version=lineup.page.candidate)
        self.core.serve(lineup, event)

    def _reload(self) -> str | None:
        """On a thread: why what the store has is not served, or None."""
        if self._follower is None:
            return "it is not loaded yet"
        why = self._follower.look()
        return None if why is None else f"{type(why).__name__}: {why}"

    def _open(self) -> _Opened:
        settings, pipeline = self._settings, self._pipeline
        store = settings_store(settings)
        stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
        directory = SchemaDirectory(settings.schemas.directory)
        event = reader_columns(directory.named(pipeline.event_schema or stable.event_schema))
        output = directory.named(pipeline.prediction_schema or stable.prediction_schema)
        try:  # nothing is written with it, but a version that a worker refuses is refused here too
            writer = DatumWriter(SingleObjectFraming(), SingleObjectFraming.header(output.fingerprint), output)
        except DecodeFailed as exc:
            raise SchemaIncompatible(f"pipeline {pipeline.name}: {exc}") from exc
        cached = caching(settings, self._metrics, self._clock)
        lane_of = LaneMaker(pipeline, stable, writer, event, self._clock)
        runtime = replace(runtime_policy(settings, pipeline), max_rows=settings.serving.batch.max_rows)
        versions = StoredVersions(store, pipeline.model, runtime, self._metrics, cached, lane_of)
        follower = RolloutFollower(
            pipeline.model,
            versions,
            self._observer,
            poll_s=settings.models.rollout_poll_s,
            with_previous=pipeline.fallback.previous,
        )
        return _Opened(follower, follower.first(), event)


def grpc_server(
    settings: Settings,
    gate: Gate,
    cores: Sequence[OnlineCore],
    metrics: Metrics,
    ending: asyncio.Event,
    held: OpenBytes | None = None,
) -> GrpcServer | None:
    """What answers gRPC over the same cores, if it is wanted. cores: the default model's first."""
    serving, limits, tls = settings.serving, settings.serving.limits, settings.serving.tls
    if serving.grpc.port is None:
        return None
    policy = GrpcPolicy(
        host=serving.host,
        port=serving.grpc.port,
        max_message_bytes=limits.body_bytes,
        max_open=4 * limits.concurrent_requests + MOST_UNKNOWN_CALLS,
        max_connection_age_s=serving.grpc.connection_age_s,
        reflection=serving.grpc.reflection,
        tls=GrpcTls(tls.cert_file, tls.key_file, tls.client_ca_file, tls.secret("key_password"))
        if tls.cert_file and tls.key_file
        else None,
    )
    calls = Calls(
        gate,
        RequestMetrics(metrics, "grpc"),
        answer_s=limits.answer_s,
        receive_s=limits.receive_s,
        idle_s=limits.idle_s,
        most=limits.concurrent_requests,
        held=held,
    )
    services = grpc_services(calls, cores, ending)
    return GrpcServer(policy, services, lambda: all(core.ready for core in cores), calls, ending)


def gate_of(settings: Settings, clock: Clock) -> Gate:
    """Who may ask. Raises BadSettings."""
    access = settings.serving.access
    key = access.secret("jwt_key")
    tokens = (
        None
        if key is None
        else TokenPolicy(
            key=key,
            algorithms=access.jwt_algorithms,
            issuer=access.jwt_issuer,
            audience=access.jwt_audience,
            predict_scope=access.jwt_predict_scope,
            admin_scope=access.jwt_admin_scope,
        )
    )
    return Gate(_lines(access.secret("api_keys")), _lines(access.secret("admin_keys")), tokens, clock)


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


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


def _online_policy(settings: Settings, pipeline: Pipeline) -> OnlinePolicy:
    batch, limits = settings.serving.batch, settings.serving.limits
    return OnlinePolicy(
        max_rows=batch.max_rows,
        max_wait_s=batch.max_wait_s,
        slo_s=batch.slo_s,
        most_waiting_rows=limits.waiting_rows,
        most_request_rows=limits.request_rows,
        # a bad row is told to its caller; it never ends a server
        outputs=OutputPolicy("clip" if pipeline.bad_output == "clip" else "dead_letter"),
        fallback=replace(fallback_policy(pipeline), then="stop"),
    )


def _routes(settings: Settings) -> Routes:
    serving, limits = settings.serving, settings.serving.limits
    return Routes(
        cors_origins=serving.cors_origins,
        health=serving.health_route,
        predict=serving.predict_route,
        open_description=serving.access.open_description,
        policy=RestPolicy(limits.body_bytes, limits.concurrent_requests, limits.answer_s),
    )


def _server_policy(settings: Settings) -> ServerPolicy:
    serving, limits = settings.serving, settings.serving.limits
    tls = serving.tls
    return ServerPolicy(
        host=serving.host,
        port=serving.port,
        receive_s=limits.receive_s,
        idle_s=limits.idle_s,
        connections=limits.connections,
        message_bytes=limits.body_bytes,
        probes=(*PROBES, *([serving.health_route] if serving.health_route else [])),
        tls=ServerTls(tls.cert_file, tls.key_file, tls.secret("key_password"), tls.client_ca_file)
        if tls.cert_file and tls.key_file
        else None,
    )


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
