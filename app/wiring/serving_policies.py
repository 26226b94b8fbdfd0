"""From the settings of `serve` to what its parts are told: who may ask, how much, and over what."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from app.clock import Clock
from app.observe.worker_metrics import Metrics, RequestMetrics
from app.pipeline.infer import OutputPolicy
from app.serving.admission import OpenBytes
from app.serving.call_tracing import RequestTracing
from app.serving.core import OnlineCore
from app.serving.gate import Gate, TokenPolicy
from app.serving.grpc_calls import Calls
from app.serving.grpc_server import GrpcPolicy, GrpcServer, GrpcTls
from app.serving.grpc_services import grpc_services
from app.serving.online_policy import OnlinePolicy
from app.serving.rest import Routes
from app.serving.rest_calls import RestPolicy
from app.serving.rest_connections import PROBES
from app.serving.rest_server import ServerPolicy, ServerTls
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.wiring.lanes import fallback_policy

MOST_UNKNOWN_CALLS = 4_000  # of gRPC, on their way to the gate: it ends those it does not let in at once


def grpc_server(
    settings: Settings,
    gate: Gate,
    cores: Sequence[OnlineCore],
    metrics: Metrics,
    ending: asyncio.Event,
    held: OpenBytes | None = None,
    tracing: RequestTracing | None = None,
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
        tracing=tracing,
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


def online_policy(settings: Settings, pipeline: Pipeline) -> OnlinePolicy:
    """How much a core takes, and what happens to a bad answer."""
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


def routes_of(settings: Settings) -> Routes:
    """What is answered over HTTP, where, and for whom."""
    serving, limits = settings.serving, settings.serving.limits
    return Routes(
        cors_origins=serving.cors_origins,
        health=serving.health_route,
        predict=serving.predict_route,
        open_description=serving.access.open_description,
        policy=RestPolicy(limits.body_bytes, limits.concurrent_requests, limits.answer_s),
    )


def server_policy(settings: Settings) -> ServerPolicy:
    """How patient the HTTP server is, and whom it trusts. Raises BadSettings if a secret cannot be read."""
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
