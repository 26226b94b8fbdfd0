"""Records on their way from the library's streams to a stage, in the order they came.

An epoch is the time between two changes of the assignment. What was read in one is nothing in the next: the same
records come again, from what was committed. That holds for a record too whose stream waits for room while it ends.
"""

import asyncio
from collections.abc import Sequence

from app.monitor.stage import Read


class Inbox:
    """Filled by streams, emptied in micro-batches. One event loop only.

    most_records, most_bytes: beyond either there is no room. A record larger than all of it finds room when nothing
    else is here.
    """

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records, self._most_bytes = most_records, most_bytes
        self._records: list[Read] = []
        self._bytes = 0
        self._filled, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._records)

    async def put(self, record: Read) -> bool:
        """Waits for room. False if the epoch ended meanwhile: then the record is dropped, and is read again."""
        epoch = self.epoch
        while not self._room.is_set():  # of several that wait, the first one may take it all
            await self._room.wait()
        if epoch != self.epoch:
            return False
        self._records.append(record)
        self._bytes += record.size
        self._filled.set()
        self._look_for_room()
        return True

    async def take(self, most: int) -> tuple[int, Sequence[Read]]:
        """Waits for at least one; then what is there, up to `most`, and the epoch that it is of."""
        while not self._filled.is_set():
            await self._filled.wait()
        taken, self._records = self._records[:most], self._records[most:]
        self._bytes -= sum(record.size for record in taken)
        if not self._records:
            self._filled.clear()
        self._look_for_room()
        return self.epoch, taken

    def clear(self) -> None:
        """The epoch ends: what is here, and what waits to be, will be read again."""
        self.epoch += 1
        self._records, self._bytes = [], 0
        self._filled.clear()
        self._room.set()

    def _look_for_room(self) -> None:
        if len(self._records) < self._most_records and self._bytes < self._most_bytes:
            self._room.set()
        else:
            self._room.clear()
