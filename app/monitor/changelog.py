"""What stages keep: compacted topics of the monitor's own, in which the newest value of a key is in force.

faust has tables for that. It sends their changes through a buffer of a hundred and forgets about them, may restore less
than all of one, and may never finish (docs/decisions/0007). Here changes are waited for, and after each change of the
assignment the topic's partitions are read from their beginning to where reading ends, under nobody's membership.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from app.monitor.stage import changelog_topic

READ_MS = 500  # how long to wait for records before looking at the positions again


class Changelogs:
    """Tables by name, each with a topic. One event loop only."""

    def __init__(self, group_id: str, connection: Mapping[str, Any], producer: Callable[[], Any]) -> None:
        """connection: how aiokafka reaches the broker. producer: faust's, once there is one."""
        self._group_id, self._connection, self._producer = group_id, connection, producer

    async def keep(self, table: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Returns when the changes are in the topic, acknowledged; None forgets a key. Raises what refused them."""
        producer, topic = self._producer(), changelog_topic(self._group_id, table)
        waiting = [await producer.send(topic, key, value, partition, None, None) for key, value in changes.items()]
        await asyncio.gather(*waiting)

    async def kept(self, table: str, partitions: frozenset[int]) -> Sequence[tuple[int, bytes, bytes]]:
        """(partition, key, value) of what is in force in these partitions."""
        if not partitions:
            return []
        topic = changelog_topic(self._group_id, table)
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        found: dict[tuple[int, bytes], bytes] = {}
        reader = AIOKafkaConsumer(
            **self._connection, enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        await reader.start()
        try:
            reader.assign(places)
            ends = await reader.end_offsets(places)
            await reader.seek_to_beginning(*places)
            while behind := [place for place in places if await reader.position(place) < ends[place]]:
                for place, records in (await reader.getmany(*behind, timeout_ms=READ_MS)).items():
                    for record in records:
                        if record.value is None:
                            found.pop((place.partition, record.key), None)
                        else:
                            found[place.partition, record.key] = record.value
        finally:
            await reader.stop()
        return [(partition, key, value) for (partition, key), value in found.items()]
