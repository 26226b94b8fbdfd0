"""The gRPC server: address, certificates, limits, health, reflection, and an orderly end."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from app.errors import BadSettings
from app.serving.grpc_calls import Call, CallFailed, Calls, Code, Stream, read

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
LOOK_S = 0.5  # how often a health stream looks whether its answer is another
MOST_METADATA_BYTES = 16 * 1024
HANDSHAKE_MS = 10_000  # gRPC's own two minutes are for nobody


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """Certificate and key of the server, PEM. client_ca_file: clients have to have a certificate of one of these."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    key_password: str | None = None


@dataclass(frozen=True, slots=True)
class GrpcPolicy:
    """Where it listens, and what it takes.

    max_message_bytes: of a request and of an answer. max_open: calls at a time, of whatever kind and before anybody
    looks who makes them; far above what `Calls` lets in, which counts who may call and who need not say who they are
    apart.
    max_connection_age_s: connections older than this are asked to reconnect, so that new servers get their share.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    max_message_bytes: int = 4 * 1024 * 1024
    max_open: int = 10_000
    max_connection_age_s: float | None = None
    reflection: bool = True
    tls: GrpcTls | None = None


class GrpcServer:
    """Serves these services until it is drained. On one event loop.

    Until `start`, connections are refused: a proxy takes that for what it is, and asks another server. An UNAVAILABLE
    of ours is an answer to it, like any other.

    services: by full name. ready: whether rows would be answered now. ending: set here when draining begins.
    """

    def __init__(
        self,
        policy: GrpcPolicy,
        services: dict[str, grpc.GenericRpcHandler],
        ready: Callable[[], bool],
        calls: Calls,
        ending: asyncio.Event,
    ) -> None:
        self._policy, self._names, self._ready, self._ending = policy, list(services), ready, ending
        self._server = grpc.aio.server(options=_options(policy), maximum_concurrent_rpcs=policy.max_open)
        health = calls.service(HEALTH, {"Check": self._check}, {"Watch": self._watch}, {"Check", "Watch"})
        self._server.add_generic_rpc_handlers((*services.values(), health))
        if policy.reflection:
            told = {"ServerReflectionInfo": _reflection((*services, HEALTH, reflection.SERVICE_NAME))}
            handlers = (calls.service(reflection.SERVICE_NAME, {}, told),)  # only to those who may call
            self._server.add_generic_rpc_handlers(handlers)
        self._credentials: grpc.ServerCredentials | None = None
        self._reserved: socket.socket | None = None
        self.port = 0

    def reserve(self) -> None:
        """Take the address, so that nobody else does, and refuse connections to it; `port` is known afterwards.

        Raises BadSettings if the address is taken or not ours, or the certificates are none.
        """
        policy = self._policy
        self._credentials = None if policy.tls is None else _credentials(policy.tls)
        try:
            self._reserved = _bound(policy.host, policy.port)
        except OSError as exc:
            raise BadSettings(f"grpc: cannot listen on {_address(policy.host, policy.port)}: {exc.strerror}") from exc
        self.port = int(self._reserved.getsockname()[1])

    async def start(self) -> None:
        """Listen, on the reserved address if there is one. Raises BadSettings as `reserve`."""
        if self._reserved is None:
            self.reserve()
        self._release()  # grpc binds for itself, and has the address within microseconds
        address = _address(self._policy.host, self.port)
        try:
            if self._credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, self._credentials)
        except RuntimeError as exc:
            raise BadSettings(f"grpc: cannot listen on {address}") from exc
        await self._server.start()

    async def drain(self, within_s: float) -> None:
        """Take no new calls and wait for those there are; what is not over in time is cancelled."""
        self._ending.set()
        self._release()
        await self._server.stop(within_s)

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()

    def _status(self, body: bytes) -> "health_pb2.HealthCheckResponse":
        service = read(health_pb2.HealthCheckRequest, body).service
        kinds = health_pb2.HealthCheckResponse
        if service and service not in self._names:
            return kinds(status=kinds.SERVICE_UNKNOWN)
        serving = self._ready() and not self._ending.is_set()
        return kinds(status=kinds.SERVING if serving else kinds.NOT_SERVING)

    async def _check(self, body: bytes, _call: Call) -> bytes:
        status = self._status(body)
        if status.status == status.SERVICE_UNKNOWN:
            raise CallFailed(Code.NOT_FOUND, f"there is no such service, there are {', '.join(self._names)}")
        return status.SerializeToString()

    async def _watch(self, bodies: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        """The status, then every other one; ends when the server does, which else would wait for it."""
        said: bytes | None = None
        body = await anext(aiter(bodies), b"")
        while True:
            ending = self._ending.is_set()  # as the status below sees it: it may be set while that is being sent
            status = self._status(body).SerializeToString()
            if status != said:
                yield status
            said = status
            if ending:
                return
            try:
                await asyncio.wait_for(self._ending.wait(), LOOK_S)
            except TimeoutError:
                continue


def _reflection(names: Sequence[str]) -> Stream:
    servicer = reflection.ReflectionServicer(names)

    async def told(bodies: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        async for body in bodies:
            request = read(reflection_pb2.ServerReflectionRequest, body)
            answers = servicer.ServerReflectionInfo(iter([request]), None)  # type: ignore[arg-type] # it asks it nothing
            for response in answers:
                yield response.SerializeToString()

    return told


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen: the kernel refuses who connects. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as grpc: a restart need not wait for TIME_WAIT
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _options(policy: GrpcPolicy) -> Sequence[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", policy.max_message_bytes),
        ("grpc.max_send_message_length", policy.max_message_bytes),
        ("grpc.max_metadata_size", MOST_METADATA_BYTES),
        ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word: its calls leave their batches
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.so_reuseport", 0),  # else a second server shares the port, and nobody says so
    ]
    if policy.max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", round(policy.max_connection_age_s * 1000)))
    return options


def _credentials(tls: GrpcTls) -> grpc.ServerCredentials:
    """Raises BadSettings, naming the files. grpc itself would not say what is wrong with one, or that anything is."""
    password = (tls.key_password or "").encode()
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert_file, tls.key_file, lambda: password)
        authorities = None
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            authorities = tls.client_ca_file.read_bytes()
        pair = (_in_the_clear(tls.key_file.read_bytes(), password), tls.cert_file.read_bytes())
    except (OSError, ValueError) as exc:  # ssl's errors are OSErrors
        files = ", ".join(str(file) for file in (tls.cert_file, tls.key_file, tls.client_ca_file) if file)
        raise BadSettings(f"grpc: these are no certificate, its key and authorities: {files}: {exc}") from exc
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def _in_the_clear(key: bytes, password: bytes) -> bytes:
    """The key as grpc takes it: it has no way to be told a password."""
    if not password:
        return key
    return load_pem_private_key(key, password).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
