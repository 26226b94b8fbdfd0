"""The monitor with a consumer that takes its time: `python -m tests.integration.slow_monitor monitor …`.

A second to wake up, and a second before and after it is told where to read from: on a busy machine it does, and may be
in the middle of it when the next rebalance begins. Nothing that is to be read may be lost meanwhile.
"""

import asyncio

from faust.transport.consumer import Fetcher

from app.__main__ import main as app_main
from app.monitor.driver import CommittedConsumer

TAKES_S = 1.0


def slowed(done):
    """The same, with a wait before and after it."""

    async def slowly(self):
        await asyncio.sleep(TAKES_S)
        await done(self)
        await asyncio.sleep(TAKES_S)

    return slowly


def main():
    """The app's, with such a consumer."""
    Fetcher.maybe_start = slowed(Fetcher.maybe_start)
    CommittedConsumer.perform_seek = slowed(CommittedConsumer.perform_seek)
    app_main()


if __name__ == "__main__":
    main()
