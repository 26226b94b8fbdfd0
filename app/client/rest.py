"""The REST client, for threads and for asyncio. The two differ in how they wait, and in nothing else."""

import asyncio
import random
import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from app.client.answers import Health, Prediction, Rejection
from app.client.failures import BadAnswer, ClientError, DeadlineExceeded, Unreachable
from app.client.rest_pages import (
    Credentials,
    Features,
    Page,
    batch_body,
    health_of,
    name_of,
    page_of,
    predict_body,
    prediction_of,
    predictions_of,
)
from app.client.retrying import Attempts, RetryBudget, RetryPolicy

CONNECT_S = 1.0  # a server that does not take a connection in this time is not there; another attempt may meet another
MOST_ANSWER_BYTES = 64 * 1024 * 1024
_LIMITS = httpx2.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=30.0)


class _Calls:
    """What both clients know: the server, how to name requests, and when to ask again."""

    def __init__(self, url: str, credentials: Credentials | None, deadline_s: float, retry: RetryPolicy | None) -> None:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as exc:
            raise ValueError(f"{url!r}: {exc}") from exc
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url!r}: http://host:port or https://host:port is needed")
        self._url = url.rstrip("/")
        self._deadline_s = deadline_s
        self._policy = retry or RetryPolicy()
        self._budget = RetryBudget(self._policy)
        self._headers = {
            "content-type": "application/json",
            "user-agent": "inference-worker-client",
            **(credentials.headers() if credentials else {}),
        }

    def _attempts(self, deadline_s: float | None) -> Attempts:
        seconds = self._deadline_s if deadline_s is None else deadline_s
        return Attempts(self._policy, self._budget, seconds, time.monotonic, random.random)

    def _request(self, path: str, body: bytes | None, request_id: str, left_s: float) -> dict[str, Any]:
        """Arguments of `stream`. Each step of the exchange may take what is left; the whole is bounded elsewhere."""
        return {
            "method": "GET" if body is None else "POST",
            "url": self._url + path,
            "content": body,
            "headers": {**self._headers, "x-request-id": request_id},
            "timeout": httpx2.Timeout(left_s, connect=min(left_s, CONNECT_S)),
        }


class RestClient(_Calls):
    """Asks one server, or a proxy before several. May be used by many threads; close it, or use it in `with`.

    deadline_s: of each call that gives none of its own, all of its attempts together.
    tls: whom to trust, and what certificate to show; by default the system's authorities.
    transport: instead of the network; for tests.

    Every method raises the ClientError that says what to do next, with the request's id.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        deadline_s: float = 5.0,
        retry: RetryPolicy | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, credentials, deadline_s, retry)
        self._http = httpx2.Client(verify=tls or True, transport=transport, limits=_LIMITS, trust_env=False)

    def predict(
        self,
        features: Features,
        *,
        key: str | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """Ask about one row. key: what rollouts stick to; without one the stable version answers."""
        page = self._call("/predict", predict_body(features, key, version), deadline_s, request_id)
        return prediction_of(page)

    def predict_many(
        self,
        instances: Sequence[Features],
        *,
        keys: Sequence[str | None] | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> list[Prediction | Rejection]:
        """Ask about rows at once; a row that cannot be predicted costs the others nothing, unless it is all of them."""
        page = self._call("/predict/batch", batch_body(instances, keys, version), deadline_s, request_id)
        return predictions_of(page, len(instances))

    def health(self, *, deadline_s: float | None = None) -> Health:
        """Whether requests would be answered. Raises NotServing if not."""
        return health_of(self._call("/health", None, deadline_s, None))

    def model_info(self, *, deadline_s: float | None = None) -> Page:
        """What the model takes and gives, as the server writes it."""
        return self._call("/model/info", None, deadline_s, None)

    def reload(self, *, deadline_s: float | None = None) -> Page:
        """Tell this server to look for a new version now; administrators only, and not through a proxy."""
        return self._call("/model/reload", b"", deadline_s, None)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, path: str, body: bytes | None, deadline_s: float | None, request_id: str | None) -> Page:
        name = name_of(request_id)
        attempts = self._attempts(deadline_s)
        try:
            while True:
                left_s = attempts.begin()
                try:
                    page = page_of(*self._exchange(self._request(path, body, name, left_s), left_s))
                except ClientError as error:
                    wait_s = attempts.wait_after(error)
                else:
                    attempts.succeeded()
                    return page
                time.sleep(wait_s)
        except ClientError as error:
            error.request_id = name
            raise

    def _exchange(self, request: dict[str, Any], left_s: float) -> tuple[int, httpx2.Headers, bytes]:
        until = time.monotonic() + left_s
        body = bytearray()
        try:
            with self._http.stream(**request) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    _check(len(body), until)
                return response.status_code, response.headers, bytes(body)
        except httpx2.HTTPError as exc:
            raise _failure(exc, until) from exc


class AsyncRestClient(_Calls):
    """As RestClient, on the event loop that it is first used on. A cancelled call is cancelled at the server too."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        deadline_s: float = 5.0,
        retry: RetryPolicy | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, credentials, deadline_s, retry)
        self._http = httpx2.AsyncClient(verify=tls or True, transport=transport, limits=_LIMITS, trust_env=False)

    async def predict(
        self,
        features: Features,
        *,
        key: str | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """See RestClient."""
        page = await self._call("/predict", predict_body(features, key, version), deadline_s, request_id)
        return prediction_of(page)

    async def predict_many(
        self,
        instances: Sequence[Features],
        *,
        keys: Sequence[str | None] | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> list[Prediction | Rejection]:
        """See RestClient."""
        page = await self._call("/predict/batch", batch_body(instances, keys, version), deadline_s, request_id)
        return predictions_of(page, len(instances))

    async def health(self, *, deadline_s: float | None = None) -> Health:
        """See RestClient."""
        return health_of(await self._call("/health", None, deadline_s, None))

    async def model_info(self, *, deadline_s: float | None = None) -> Page:
        """See RestClient."""
        return await self._call("/model/info", None, deadline_s, None)

    async def reload(self, *, deadline_s: float | None = None) -> Page:
        """See RestClient."""
        return await self._call("/model/reload", b"", deadline_s, None)

    async def close(self) -> None:
        """See RestClient."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, path: str, body: bytes | None, deadline_s: float | None, request_id: str | None) -> Page:
        name = name_of(request_id)
        attempts = self._attempts(deadline_s)
        try:
            while True:
                left_s = attempts.begin()
                try:
                    page = page_of(*await self._exchange(self._request(path, body, name, left_s), left_s))
                except ClientError as error:
                    wait_s = attempts.wait_after(error)
                else:
                    attempts.succeeded()
                    return page
                await asyncio.sleep(wait_s)
        except ClientError as error:
            error.request_id = name
            raise

    async def _exchange(self, request: dict[str, Any], left_s: float) -> tuple[int, httpx2.Headers, bytes]:
        until = time.monotonic() + left_s
        body = bytearray()
        try:
            async with asyncio.timeout(left_s), self._http.stream(**request) as response:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    _check(len(body), until)
                return response.status_code, response.headers, bytes(body)
        except httpx2.HTTPError as exc:
            raise _failure(exc, until) from exc
        except TimeoutError as exc:
            raise DeadlineExceeded("no whole answer in time") from exc


def _check(size: int, until: float) -> None:
    """A server that sends without end, or a byte at a time, is not waited for."""
    if size > MOST_ANSWER_BYTES:
        raise BadAnswer(f"the answer has more than {MOST_ANSWER_BYTES} bytes")
    if time.monotonic() > until:
        raise DeadlineExceeded("no whole answer in time")


def _failure(exc: httpx2.HTTPError, until: float) -> ClientError:
    said = f"{type(exc).__name__}: {exc}"
    late = time.monotonic() >= until  # connecting too had no more time than the deadline left
    if isinstance(exc, httpx2.TimeoutException) and (late or not isinstance(exc, httpx2.ConnectTimeout)):
        return DeadlineExceeded(said)
    return BadAnswer(said) if isinstance(exc, httpx2.DecodingError | httpx2.TooManyRedirects) else Unreachable(said)
