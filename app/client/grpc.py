"""The gRPC client, for threads and for asyncio. Needs the extra `serving`.

Retries are ours, as over REST, and not the library's: one policy, one budget, one request id.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from app.client.answers import Health, Prediction
from app.client.failures import ClientError
from app.client.grpc_messages import (
    Metadata,
    Vector,
    batch_of,
    failure_of,
    health_of,
    key_metadata,
    prediction_of,
    predictions_of,
    request_of,
)
from app.client.rest_pages import Credentials, name_of
from app.client.retrying import Attempts, RetryBudget, RetryPolicy
from app.grpc_api import prediction_pb2 as messages
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub

Method = Any  # a stub's: generated, without types

_OPTIONS = (
    ("grpc.enable_retries", 0),  # a service config must not multiply our attempts
    ("grpc.keepalive_time_ms", 30_000),  # notices a server that is gone without a word
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class _Calls:
    """What both clients know."""

    def __init__(self, credentials: Credentials | None, deadline_s: float, retry: RetryPolicy | None) -> None:
        self._deadline_s = deadline_s
        self._policy = retry or RetryPolicy()
        self._budget = RetryBudget(self._policy)
        self._metadata = tuple((credentials.headers() if credentials else {}).items())

    def _attempts(self, deadline_s: float | None) -> Attempts:
        seconds = self._deadline_s if deadline_s is None else deadline_s
        return Attempts(self._policy, self._budget, seconds, time.monotonic, random.random)

    def _options(self, name: str, key: str | None, left_s: float) -> dict[str, Any]:
        metadata = (("x-request-id", name), *self._metadata, *key_metadata(key))
        return {"timeout": left_s, "metadata": metadata}


class GrpcClient(_Calls):
    """Asks one server, or a proxy before several. May be used by many threads; close it, or use it in `with`.

    address: host:port. tls: from grpc.ssl_channel_credentials; without it the connection is not encrypted.
    deadline_s: of each call that gives none of its own, all of its attempts together; the server knows it.

    Every method raises the ClientError that says what to do next, with the request's id.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        deadline_s: float = 5.0,
        retry: RetryPolicy | None = None,
        tls: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__(credentials, deadline_s, retry)
        self._channel = (
            grpc.insecure_channel(address, _OPTIONS) if tls is None else grpc.secure_channel(address, tls, _OPTIONS)
        )
        self._stub: Any = PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def predict(
        self,
        features: Vector,
        *,
        key: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """Ask about one row of numbers, in the manifest's order: a category as its index, NaN or None if missing."""
        answer, trailing = self._call(self._stub.Predict, request_of(features), key, deadline_s, request_id)
        return prediction_of(answer, trailing)

    def predict_many(
        self,
        rows: Sequence[Vector],
        *,
        key: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> list[Prediction]:
        """Ask about rows at once, all under one key; one that cannot be predicted fails them all, as BadRequest."""
        answer, trailing = self._call(self._stub.BatchPredict, batch_of(rows), key, deadline_s, request_id)
        return predictions_of(answer, len(rows), trailing)

    def health(self, *, deadline_s: float | None = None) -> Health:
        """Whether calls would be answered."""
        answer, _ = self._call(self._stub.HealthCheck, messages.HealthRequest(), None, deadline_s, None)
        return health_of(answer)

    def close(self) -> None:
        """End the connection and every call that is under way."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self,
        method: Method,
        request: Message,
        key: str | None,
        deadline_s: float | None,
        request_id: str | None,
    ) -> tuple[Any, Metadata]:
        name = name_of(request_id)
        attempts = self._attempts(deadline_s)
        try:
            while True:
                left_s = attempts.begin()
                try:
                    answer, call = method.with_call(request, **self._options(name, key, left_s))
                except grpc.RpcError as exc:
                    error = failure_of(exc.code(), exc.details(), _texts(exc.trailing_metadata()))
                    error.__cause__ = exc
                    wait_s = attempts.wait_after(error)
                else:
                    attempts.succeeded()
                    return answer, _texts(call.trailing_metadata())
                time.sleep(wait_s)
        except ClientError as error:
            error.request_id = name
            raise


class AsyncGrpcClient(_Calls):
    """As GrpcClient, on the event loop that it is made on. A cancelled call is cancelled at the server too."""

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        deadline_s: float = 5.0,
        retry: RetryPolicy | None = None,
        tls: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__(credentials, deadline_s, retry)
        self._channel = (
            grpc.aio.insecure_channel(address, _OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(address, tls, _OPTIONS)
        )
        self._stub: Any = PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def predict(
        self,
        features: Vector,
        *,
        key: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """See GrpcClient."""
        answer, trailing = await self._call(self._stub.Predict, request_of(features), key, deadline_s, request_id)
        return prediction_of(answer, trailing)

    async def predict_many(
        self,
        rows: Sequence[Vector],
        *,
        key: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> list[Prediction]:
        """See GrpcClient."""
        answer, trailing = await self._call(self._stub.BatchPredict, batch_of(rows), key, deadline_s, request_id)
        return predictions_of(answer, len(rows), trailing)

    async def health(self, *, deadline_s: float | None = None) -> Health:
        """See GrpcClient."""
        answer, _ = await self._call(self._stub.HealthCheck, messages.HealthRequest(), None, deadline_s, None)
        return health_of(answer)

    async def close(self) -> None:
        """See GrpcClient."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self,
        method: Method,
        request: Message,
        key: str | None,
        deadline_s: float | None,
        request_id: str | None,
    ) -> tuple[Any, Metadata]:
        name = name_of(request_id)
        attempts = self._attempts(deadline_s)
        try:
            while True:
                left_s = attempts.begin()
                call = method(request, **self._options(name, key, left_s))
                try:
                    answer = await call
                except grpc.aio.AioRpcError as exc:
                    error = failure_of(exc.code(), exc.details(), _texts(exc.trailing_metadata()))
                    error.__cause__ = exc
                    wait_s = attempts.wait_after(error)
                else:
                    attempts.succeeded()
                    return answer, _texts(await call.trailing_metadata())
                await asyncio.sleep(wait_s)
        except ClientError as error:
            error.request_id = name
            raise


def _texts(metadata: Any) -> Metadata:  # noqa: ANN401 - both kinds of grpc's, or None
    return {name: value for name, value in metadata or () if isinstance(value, str)}
