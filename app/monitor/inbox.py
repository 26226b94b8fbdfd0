"""Records on their way from faust's streams to a stage, in the order they came."""

import asyncio
from collections.abc import Sequence

from app.monitor.stage import Read


class Inbox:
    """Filled by streams, emptied in micro-batches. One event loop only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._records: list[Read] = []
        self._filled, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._records)

    async def put(self, record: Read) -> None:
        """Waits for room."""
        await self._room.wait()
        self._records.append(record)
        self._filled.set()
        if len(self._records) >= self._most:
            self._room.clear()

    async def take(self, most: int) -> Sequence[Read]:
        """Waits for at least one; then what is there, up to `most`."""
        await self._filled.wait()
        taken, self._records = self._records[:most], self._records[most:]
        if not self._records:
            self._filled.clear()
        self._room.set()
        return taken

    def clear(self) -> None:
        """Forget what is here: it will be read again."""
        self._records = []
        self._filled.clear()
        self._room.set()
