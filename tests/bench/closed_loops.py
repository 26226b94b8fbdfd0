"""So many callers, each of which asks again once it is answered: over REST and over gRPC, with requests that are bytes.

Nothing is made or parsed in between, so the load costs the same whoever answers; each answer must be a success.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import grpc

CHANNELS = 4  # calls of one connection take turns


@dataclass(frozen=True, slots=True)
class Load:
    """What a loop measured. took_s: latencies, without those of the warm-up. asked: with them."""

    took_s: list[float]
    asked: int


async def rest_loop(port, path, body, callers, warm_up_s, seconds):
    """A POST of JSON on a kept connection for each caller."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    async with contextlib.AsyncExitStack() as connections:
        pairs = []
        for _ in range(callers):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            connections.callback(writer.close)
            pairs.append((reader, writer))

        async def ask(number):
            reader, writer = pairs[number]
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            at = answer.lower().index(b"content-length:") + 15
            await reader.readexactly(int(answer[at : answer.index(b"\r", at)]))

        return await _loop(ask, callers, warm_up_s, seconds)


async def grpc_loop(port, method, message, callers, warm_up_s, seconds):
    """A unary call over one of a few channels."""
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as channels:
        calls = []
        for _ in range(min(CHANNELS, callers)):
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", apart))
            calls.append(channel.unary_unary(method))

        async def ask(number):
            assert await calls[number % len(calls)](message)

        return await _loop(ask, callers, warm_up_s, seconds)


async def _loop(ask, callers, warm_up_s, seconds):
    begin = time.perf_counter() + warm_up_s
    end = begin + seconds
    took, asked = [], 0

    async def caller(number):
        nonlocal asked
        while (started := time.perf_counter()) < end:
            await ask(number)
            asked += 1
            if started >= begin:
                took.append(time.perf_counter() - started)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return Load(took, asked)
