"""The monitor with a consumer that takes its time: `python -m tests.integration.slow_monitor monitor …`.

A second to wake up, and one to seek: on a busy machine it does. Nothing that is to be read may be lost meanwhile.
"""

import asyncio

from faust.transport.consumer import Fetcher, ThreadDelegateConsumer

from app.__main__ import main as app_main

TAKES_S = 1.0


def main():
    """The app's, with such a consumer."""
    wake_up, seek = Fetcher.maybe_start, ThreadDelegateConsumer.seek_to_committed

    async def wake_up_slowly(fetcher):
        await wake_up(fetcher)
        await asyncio.sleep(TAKES_S)

    async def seek_slowly(consumer):
        await asyncio.sleep(TAKES_S)
        return await seek(consumer)

    Fetcher.maybe_start, ThreadDelegateConsumer.seek_to_committed = wake_up_slowly, seek_slowly
    app_main()


if __name__ == "__main__":
    main()
