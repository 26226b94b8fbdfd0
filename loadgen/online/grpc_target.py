"""A gRPC server under load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from loadgen.errors import BadOption, ServerFailed
from loadgen.online.grpc_requests import GrpcRequests
from loadgen.online.target import TIMEOUT, Reply

PROBE_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_REFUSALS = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
)


class GrpcTarget:
    """Asks one server over `connections` connections in turn; never asks again by itself.

    Several, because a connection carries 100 calls at a time where a server or proxy allows no more.
    """

    def __init__(
        self,
        address: str,
        requests: GrpcRequests,
        *,
        timeout_s: float,
        connections: int,
        metadata: Mapping[str, str],
        tls: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdigit():
            raise BadOption(f"--address {address!r}: host:port is needed")
        if connections < 1 or not timeout_s > 0:
            raise BadOption("--connections: 1 or more; --timeout: seconds, more than 0")
        self.rows = requests.rows
        self.description = f"{address}{requests.method}"
        self._address = address
        self._requests = requests
        self._timeout_s = timeout_s
        self._connections = connections
        self._metadata = tuple((name.lower(), value) for name, value in metadata.items())
        self._credentials = _credentials(ca_file) if tls or ca_file is not None else None
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[Any] = []

    async def open(self) -> None:
        """See Target."""
        # without a pool of its own, equal channels would share one connection
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.enable_retries", 0),
        )
        for _ in range(self._connections):
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(self._address, options)
            else:
                channel = grpc.aio.secure_channel(self._address, self._credentials, options)
            self._channels.append(channel)
            self._calls.append(channel.unary_unary(self._requests.method))
        try:
            for call in self._calls:
                await self._call(call, 0, PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, *_REFUSALS):
                await self.close()
                raise ServerFailed(f"{self.description}: {error.code().name} {error.details()}") from error

    async def ask(self, number: int) -> Reply:
        """See Target."""
        call = self._calls[number % len(self._calls)]
        try:
            body = await self._call(call, number, self._timeout_s)
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            return Reply(TIMEOUT if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else name)
        return self._requests.reply(body)

    async def close(self) -> None:
        """See Target."""
        for channel in self._channels:
            await channel.close()

    async def _call(self, call: Any, number: int, timeout_s: float) -> bytes:  # noqa: ANN401 - grpc's generic callable
        answer: bytes = await call(
            self._requests.body(number),
            timeout=timeout_s,
            metadata=(*self._metadata, *self._requests.metadata(number)),
        )
        return answer


def _credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    try:
        return grpc.ssl_channel_credentials(ca_file.read_bytes() if ca_file else None)
    except OSError as error:
        raise BadOption(f"--ca-file {ca_file}: {error}") from error
