"""Summaries and judged parts of one topic → windows."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson

from app.errors import DecodeFailed, Reason
from app.monitor.judged import Part, part_of
from app.monitor.stage import Fact, Keep, Read, Rejected, Send, SummariesTaken, Taken
from app.monitor.summaries import Summary, summary_of
from app.monitor.windows import Changes, VersionView, WindowPolicy, Windows


class WindowStage:
    """Reads summary_topic, and parts_topic, which is the monitor's own."""

    def __init__(
        self,
        summary_topic: str,
        parts_topic: str,
        partitions: int,
        policy: WindowPolicy,
        read: Callable[[bytes], Mapping[str, object]],
    ) -> None:
        """read: a framed datum → its record, as the schema ModelSummary has it. Raises DecodeFailed."""
        self._summary_topic, self._parts_topic, self._read = summary_topic, parts_topic, read
        self.name = f"windows-{summary_topic}"
        self.topics: Sequence[str] = (summary_topic, parts_topic)
        self.tables: Sequence[str] = (self.name,)
        self.partitions = partitions
        self._windows = Windows(policy)

    def restore(self, kept: Mapping[str, Iterable[tuple[int, bytes, bytes]]]) -> Sequence[Send]:
        """Begin anew with the windows that were kept."""
        self._windows.restore(kept[self.name])
        return ()

    def take(self, partition: int, records: Sequence[Read], now_ms: int) -> Taken:
        """Add summaries, and put parts in their places. A summary that cannot be used is told, and changes nothing."""
        changes: Changes = {}
        facts: list[Fact] = []
        late, summaries = self._windows.late, 0
        # all are decoded before any is added: if a schema is not known now, all of them come again
        for record, content in [(record, self._decoded(record)) for record in records]:
            try:
                if isinstance(content, DecodeFailed):
                    raise content
                if isinstance(content, Part):
                    changes |= self._windows.put_part(partition, content)
                elif content is not None:
                    changes |= self._windows.add(partition, record.offset, content, now_ms)
                    summaries += 1
            except DecodeFailed as exc:
                facts.append(Rejected(record.topic, exc.reason.value, str(exc)))
        if summaries:
            facts.append(SummariesTaken(self._summary_topic, summaries, self._windows.late - late))
        return Taken([Keep(self.name, changes)] if changes else [], facts)

    def _decoded(self, record: Read) -> Summary | Part | DecodeFailed | None:
        """None of a tombstone. Raises SchemaRegistryUnavailable."""
        if record.value is None:
            return None
        try:
            if record.topic == self._parts_topic:
                return part_of(orjson.loads(record.value))
            return summary_of(self._read(record.value))
        except DecodeFailed as exc:
            return exc
        except (ValueError, TypeError, LookupError) as exc:  # of a part: the topic is ours, but anybody may write
            return DecodeFailed(Reason.OUT_OF_RANGE, f"no part: {type(exc).__name__}: {exc}")

    def view(self, now_ms: int) -> list[VersionView]:
        """Every version of our partitions."""
        return self._windows.view(now_ms)
