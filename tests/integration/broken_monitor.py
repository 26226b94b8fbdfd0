"""The monitor with a consumer that stops and says nothing: `python -m tests.integration.broken_monitor monitor …`.

BROKEN=reading: its loop has ended. BROKEN=rebalance: after the first one there is another, which never ends, since
nobody says from where to read.
"""

import asyncio
import os

from app.__main__ import main as app_main
from app.monitor.driver import CommittedConsumer

SETTLES_IN_S = 2.0


def once(perform_seek):
    """The first time as it is, and soon afterwards a rebalance; then neither an answer nor an error."""
    done = []

    async def seek(consumer):
        if done:
            await asyncio.Event().wait()
        await perform_seek(consumer)
        done.append(True)
        thread = consumer.committed_thread
        thread.thread_loop.call_soon_threadsafe(
            thread.thread_loop.call_later, SETTLES_IN_S, thread._consumer._coordinator.request_rejoin
        )

    return seek


async def ended(self, *arguments):
    """As if there were nothing to do."""


def main():
    """The app's, with such a consumer."""
    if os.environ["BROKEN"] == "reading":
        CommittedConsumer._drain_messages = ended
    else:
        CommittedConsumer.perform_seek = once(CommittedConsumer.perform_seek)
    app_main()


if __name__ == "__main__":
    main()
