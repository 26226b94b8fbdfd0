"""Records on their way from the broker to a stage, in the order they came.

An epoch is the time between two changes of the assignment. What was read in one is nothing in the next: the same
records come again, from what was committed.
"""

import asyncio
from collections.abc import Sequence

from app.monitor.stage import Read


class Inbox:
    """Filled by the reading, emptied in micro-batches. One event loop only.

    most_records, most_bytes: from either on there is no room, and nothing more is to be read; what was read while there
    was some is taken in all the same.
    """

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records, self._most_bytes = most_records, most_bytes
        self._records: list[Read] = []
        self._bytes = 0
        self._filled = asyncio.Event()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def has_room(self) -> bool:
        """Whether more is to be read."""
        return len(self._records) < self._most_records and self._bytes < self._most_bytes

    def add(self, records: Sequence[Read]) -> None:
        """Behind those that are here."""
        self._records.extend(records)
        self._bytes += sum(record.size for record in records)
        if self._records:
            self._filled.set()

    async def take(self, most: int) -> tuple[int, Sequence[Read]]:
        """Waits for at least one; then what is there, up to `most`, and the epoch that it is of."""
        while not self._filled.is_set():
            await self._filled.wait()
        taken, self._records = self._records[:most], self._records[most:]
        self._bytes -= sum(record.size for record in taken)
        if not self._records:
            self._filled.clear()
        return self.epoch, taken

    def clear(self) -> None:
        """The epoch ends: what is here will be read again."""
        self.epoch += 1
        self._records, self._bytes = [], 0
        self._filled.clear()
