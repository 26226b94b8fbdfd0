"""A gRPC server on a free port over an online core, and a client's connection to it."""

import asyncio
from contextlib import asynccontextmanager

import grpc
from online_world import OnlineWorld

from app.grpc_api.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub
from app.serving.grpc_calls import Calls
from app.serving.grpc_server import GrpcPolicy, GrpcServer
from app.serving.grpc_services import grpc_services
from app.serving.refusals import NotAllowed


class SeenCalls:
    """A CallObserver that remembers."""

    def __init__(self):
        self.ended = []

    def call_ended(self, method, code, seconds):
        assert seconds >= 0
        self.ended.append((method.rpartition("/")[2], code))


class OneKey:
    """A Gate that knows one key, and one token whose owner may do nothing."""

    def admit(self, authorization, api_key):
        if authorization == "Bearer of-a-reader":
            raise NotAllowed("a reader may not predict", known=True)
        if api_key != "sesame":  # pragma: allowlist secret
            raise NotAllowed("no valid API key")


class GrpcWorld:
    """`server` and `channel` are there within `up`; `server` from `make` on."""

    def __init__(self, *models, page=None, gate=None, policy=None, receive_s=10.0, calls=None, **online):
        self.online = OnlineWorld(*models, page=page, **online)
        self.core = self.online.core
        self.calls_seen = SeenCalls()
        self.gate, self.policy = gate, policy or GrpcPolicy(port=0)
        self.limits = {"receive_s": receive_s} | (calls or {})
        self.server = None

    def make(self):
        """The server, not yet started."""
        ending = asyncio.Event()
        calls = Calls(self.gate, self.calls_seen, **self.limits)
        services = grpc_services(calls, [self.core], ending)
        self.server = GrpcServer(self.policy, services, lambda: self.core.ready, calls, ending)
        return self.server

    @asynccontextmanager
    async def up(self, credentials=None, options=()):
        await (self.server or self.make()).start()
        address = f"localhost:{self.server.port}"
        make = grpc.aio.insecure_channel if credentials is None else grpc.aio.secure_channel
        async with make(*([address] if credentials is None else [address, credentials]), options=options) as channel:
            self.channel = channel
            self.prediction = PredictionServiceStub(channel)
            self.inference = GRPCInferenceServiceStub(channel)
            try:
                yield self
            finally:
                await self.server.drain(0)


async def failure_of(call):
    """The error that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        return exc
    raise AssertionError("the call did not fail")
