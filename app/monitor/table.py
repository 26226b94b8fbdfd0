"""A faust table whose changes can be waited for, and that may be changed outside of a stream's loop.

faust sends changes to the changelog topic and forgets about them: whoever wants to build on one must wait for its
acknowledgement. Keys begin with the partition they belong to, because faust's store in memory holds keys of
partitions that have gone elsewhere, and does not know them from others (docs/decisions/0007).
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import faust


class DurableTable(faust.Table[bytes, bytes]):
    """Bytes by partition and key."""

    async def keep(self, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """True afterwards: the changes are in the changelog topic, acknowledged.

        Raises what the broker refused them with.
        """
        waiting: list[Any] = []
        store = self.data
        for key, value in changes.items():
            whole = _with_partition(partition, key)
            if value is None:
                store.pop(whole, None)
            else:
                store[whole] = value
            waiting.append(self.send_changelog(partition, whole, value, value_serializer="raw"))
        await asyncio.gather(*waiting)

    def kept(self, partitions: frozenset[int]) -> Iterator[tuple[int, bytes, bytes]]:
        """(partition, key, value) of these partitions."""
        for whole, value in list(self.data.items()):
            head, _, key = bytes(whole).partition(b"/")
            if value is not None and int(head) in partitions:
                yield int(head), key, bytes(value)


def _with_partition(partition: int, key: bytes) -> bytes:
    return b"%d/%s" % (partition, key)
