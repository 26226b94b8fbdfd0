"""The monitor with a consumer that takes its time: `python -m tests.integration.slow_monitor monitor …`.

A second to wake up: on a busy machine it does. Nothing that is to be read may be lost meanwhile.
"""

import asyncio

from faust.transport.consumer import Fetcher

from app.__main__ import main as app_main

WAKES_UP_IN_S = 1.0


def main():
    """The app's, with such a consumer."""
    wake_up = Fetcher.maybe_start

    async def wake_up_slowly(fetcher):
        await wake_up(fetcher)
        await asyncio.sleep(WAKES_UP_IN_S)

    Fetcher.maybe_start = wake_up_slowly
    app_main()


if __name__ == "__main__":
    main()
