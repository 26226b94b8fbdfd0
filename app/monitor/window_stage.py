"""Summaries and judged parts of one topic → windows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import orjson

from app.errors import DecodeFailed, Reason
from app.monitor.judged import Part, part_of
from app.monitor.stage import Fact, Keep, Read, Rejected, Send, SummariesTaken, Taken
from app.monitor.summaries import refused, version_key
from app.monitor.summary_reading import counted_of, summary_of
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
        pipelines: Collection[str],
    ) -> None:
        """read: a framed datum → its record, as the schema ModelSummary has it. Raises DecodeFailed.

        pipelines: whose summaries belong in the topic; what tells of another one is refused.
        """
        self._pipelines = frozenset(pipelines)
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
        """Add summaries, and put parts in their places. What cannot be used is told.

        The predictions of a summary that is refused are in the total all the same, if it says how many they are.
        """
        changes: Changes = {}
        facts: list[Fact] = []
        late, summaries = self._windows.late, 0
        # all are decoded before any is added: if a schema is not known now, all of them come again
        for record, content in [(record, self._decoded(record)) for record in records]:
            if content is None:
                continue
            more, why = self._added(partition, record, content, now_ms)
            changes |= more
            if why is not None:
                facts.append(Rejected(record.topic, why.reason.value, str(why)))
            elif record.topic == self._summary_topic:
                summaries += 1
        if summaries:
            facts.append(SummariesTaken(self._summary_topic, summaries, self._windows.late - late))
        return Taken([Keep(self.name, changes)] if changes else [], facts)

    def _decoded(self, record: Read) -> Mapping[str, object] | Part | DecodeFailed | None:
        """None of a tombstone. Raises SchemaRegistryUnavailable."""
        if record.value is None:
            return None
        try:
            if record.topic == self._parts_topic:
                return part_of(orjson.loads(record.value))
            return self._read(record.value)
        except DecodeFailed as exc:
            return exc
        except (ValueError, TypeError, LookupError, ArithmeticError) as exc:  # of a part: anybody may write there
            return DecodeFailed(Reason.OUT_OF_RANGE, f"no part: {type(exc).__name__}: {exc}")

    def _added(
        self, partition: int, record: Read, content: Mapping[str, object] | Part | DecodeFailed, now_ms: int
    ) -> tuple[Changes, DecodeFailed | None]:
        """What changes, and what it was refused for."""
        if isinstance(content, DecodeFailed):
            return {}, content
        try:
            if isinstance(content, Part):
                self._check_pipeline(content.pipeline)
                return self._windows.put_part(partition, content, now_ms), None
            summary = summary_of(content)
            self._check_pipeline(summary.pipeline)
            return self._windows.add(partition, record.offset, summary, now_ms), None
        except DecodeFailed as exc:
            return self._counted(partition, record, content), exc

    def _counted(self, partition: int, record: Read, content: Mapping[str, object] | Part) -> Changes:
        """Of what is refused, the predictions, if it is a summary of ours that says how many."""
        counted = None if isinstance(content, Part) else counted_of(content)
        if counted is None or counted[0] not in self._pipelines:
            return {}
        pipeline, version, records = counted
        try:
            return self._windows.count(partition, record.offset, version_key(pipeline, version), records)
        except DecodeFailed:  # one version too many, which was told
            return {}

    def _check_pipeline(self, name: str) -> None:
        if name not in self._pipelines:
            raise refused(f"{name[:40]!r} is no pipeline of {self._summary_topic}")

    def view(self, now_ms: int) -> list[VersionView]:
        """Every version of our partitions."""
        return self._windows.view(now_ms)
