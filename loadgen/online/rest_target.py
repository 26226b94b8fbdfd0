"""A REST server under load, over aiohttp: the client that costs the least of those that are kept well."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from loadgen.errors import BadOption, ServerFailed
from loadgen.online.rest_requests import RestRequests
from loadgen.online.target import CONNECTION, TIMEOUT, Reply

PROBE_TIMEOUT_S = 10.0


class RestTarget:
    """Asks one server over at most `connections` kept connections; never asks again by itself."""

    def __init__(
        self,
        url: str,
        requests: RestRequests,
        *,
        timeout_s: float,
        connections: int,
        headers: Mapping[str, str],
        ca_file: Path | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadOption(f"--url {url!r}: http://host:port or https://host:port is needed")
        if connections < 1 or not timeout_s > 0:
            raise BadOption("--connections: 1 or more; --timeout: seconds, more than 0")
        self.rows = requests.rows
        self._url = url.rstrip("/") + requests.path
        self.description = f"POST {self._url}"
        self._requests = requests
        self._timeout_s = timeout_s
        self._connections = connections
        self._headers = {"Content-Type": "application/json", **headers}
        self._tls = _tls(ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """See Target."""
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=self._tls)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                status, body = await self._post(0)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            await self.close()
            raise ServerFailed(f"{self._url} does not answer: {error!r}") from error
        if status in (400, 401, 403, 404, 405, 422):  # more of these would be no measurement
            await self.close()
            text = body[:300].decode(errors="replace")
            raise ServerFailed(f"{self._url} refuses what it was asked: {status} {text}")

    async def ask(self, number: int) -> Reply:
        """See Target."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._post(number)
        except TimeoutError:
            return Reply(TIMEOUT)
        except (aiohttp.ClientError, OSError):
            return Reply(CONNECTION)
        return self._requests.reply(status, body)

    async def close(self) -> None:
        """See Target."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, number: int) -> tuple[int, bytes]:
        assert self._session is not None, "open() comes first"  # noqa: S101 # nosec B101
        async with self._session.post(self._url, data=self._requests.body(number)) as answer:
            return answer.status, await answer.read()


def _tls(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise BadOption(f"--ca-file {ca_file}: {error}") from error
