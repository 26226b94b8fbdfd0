"""The monitor with a consumer that takes a second to wake up: `python -m tests.integration.slow_monitor monitor …`.

On a busy machine it does. What faust does meanwhile, with the end of a recovery for one, must not be lost.
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
