"""What every surface asks of a request before it is looked at: a place, room for its bytes, and a name for it."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

from app.serving.refusals import Expired, Overloaded

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
RETRY_S = 1.0


class CallObserver(Protocol):
    """Told of every request as it ends, on the event loop. Must not raise and must be quick."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """method: the route's name, or the service's and the method's. code: the status, or the code's name."""
        ...


def request_id_of(given: str | None) -> str:
    """The client's own if it may be one, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class Places:
    """So many at a time. what: they are, for people."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what, self._taken = most, what, 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One place, within this block. Raises Overloaded if there is none."""
        if self._taken >= self._most:
            raise Overloaded(f"more than {self._most} {self._what} at the same time", RETRY_S)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class OpenBytes:
    """How much of requests is held, by all surfaces together; one request alone always has room."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    def take(self, size: int) -> None:
        """So much more. Raises Overloaded, and then it is not held."""
        if self._held and self._held + size > self._most:
            raise Overloaded(f"requests hold more than {self._most} bytes at the same time", RETRY_S)
        self._held += size

    def give(self, size: int) -> None:
        """So much is not held any more."""
        self._held -= size


class StreamWindow:
    """What of one stream is inside: so many messages and so many bytes; one message alone always may be."""

    def __init__(self, messages: int, size: int) -> None:
        self._most, self._most_bytes = messages, size
        self._messages = self._bytes = 0
        self._room = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Wait until there is room for a message of so many bytes; then it is inside."""
        while self._messages and (self._messages >= self._most or self._bytes + size > self._most_bytes):
            self._room.clear()
            await self._room.wait()
        self._messages += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """It has its answer."""
        self._messages -= 1
        self._bytes -= size
        self._room.set()


async def while_they_come(bodies: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    """The same. Raises Expired if the next one does not come in this time."""
    coming = aiter(bodies)
    while True:
        try:
            async with asyncio.timeout(idle_s):
                body = await anext(coming)
        except TimeoutError:
            raise Expired(f"nothing came for {idle_s:g} s") from None
        except StopAsyncIteration:
            return
        yield body
