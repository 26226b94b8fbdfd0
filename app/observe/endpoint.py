"""Asks an address over HTTP for figures. What comes back is not trusted.

It may be too large, too slow, or no figures: that is then what is known of it.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

from app.errors import AppError, BadSettings

WITHIN_S = 5.0
MAX_LINE_BYTES = 1024 * 1024  # a worker's snapshot has about 10 kB
MAX_BYTES = 16 * 1024 * 1024  # a worker's page has about 100 kB


class Unreadable(AppError):
    """An endpoint did not answer, or not with figures."""


class Endpoint:
    """One address. `name` is for people: the address without the password. Any thread may ask."""

    def __init__(self, url: str, within_s: float = WITHIN_S) -> None:
        """Raises BadSettings for an address that cannot be asked."""
        head, separator, rest = url.rpartition("@")
        self.name = f"{head.partition('://')[0]}://***@{rest}" if separator else url
        try:
            parts = urlsplit(url)
            usable = (
                parts.scheme in {"http", "https"}
                and parts.hostname
                and parts.port != 0
                and " " not in url
                and url.isprintable()
            )
            self._url = httpx2.URL(url)
        except (ValueError, httpx2.InvalidURL) as exc:
            raise BadSettings(f"{self.name!r} is not a URL: {exc}") from exc
        if not usable:
            raise BadSettings(f"{self.name!r}: expected http://HOST:PORT/… or https://…")
        self._within_s = within_s
        # workers are near: no proxies; they cut idle connections, so none is kept
        once = httpx2.Limits(max_keepalive_connections=0)
        self._client = httpx2.Client(timeout=within_s, trust_env=False, limits=once)

    def body(self, path: str = "", form: Mapping[str, str] | None = None) -> bytes:
        """What is there; a form is posted. path: below the address. Raises Unreadable."""
        deadline, late = time.monotonic() + self._within_s, f"it is not done after {self._within_s:g} s"
        url = self._url.copy_with(path=self._url.path.rstrip("/") + path) if path else self._url
        body = bytearray()
        try:
            with self._client.stream("GET" if form is None else "POST", url, data=form) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise Unreadable(f"it sends more than {MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise Unreadable(late)
                if not answer.is_success:
                    raise Unreadable(f"it answers {answer.status_code}: {_words(body)}")
        except httpx2.TimeoutException as exc:
            raise Unreadable(f"{late} ({type(exc).__name__})") from exc
        except (httpx2.HTTPError, OSError, ValueError) as exc:
            raise Unreadable(f"{type(exc).__name__}: {exc}") from exc
        return bytes(body)

    def lines(self, path: str) -> Iterator[str]:
        """What comes, line by line, until the other side ends it.

        Raises Unreadable, also if nothing comes for `within_s`.
        """
        url = self._url.copy_with(path=self._url.path.rstrip("/") + path)
        unread = b""
        try:
            with self._client.stream("GET", url) as answer:
                if not answer.is_success:
                    raise Unreadable(f"it answers {answer.status_code}: {_words(answer.read()[:MAX_BYTES])}")
                for chunk in answer.iter_bytes():
                    *lines, unread = (unread + chunk).split(b"\n")
                    if len(unread) > MAX_LINE_BYTES:
                        raise Unreadable(f"it sends a line of more than {MAX_LINE_BYTES} bytes")
                    for line in lines:
                        yield line.decode("utf-8", "replace")
        except (httpx2.HTTPError, OSError, ValueError) as exc:
            raise Unreadable(f"{type(exc).__name__}: {exc}") from exc


@contextmanager
def figures_expected() -> Iterator[None]:
    """Whatever parsing an answer fails with is Unreadable."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as exc:
        raise Unreadable(f"it does not answer with figures: {type(exc).__name__}: {_words(str(exc).encode())}") from exc


def figure(value: float) -> float:
    """The same; raises ValueError if nothing is counted like this."""
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value:g} is not a count")
    return float(value)


def _words(body: bytes | bytearray) -> str:
    text = " ".join(bytes(body[:500]).decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "?" for char in text)[:120]
