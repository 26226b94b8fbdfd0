"""What is safe to commit, per partition.

The committed offset never passes a record that is not finished, whatever order work finishes in.
"""

from collections.abc import Iterable, Mapping

from app.records import Span, TopicPartition


class OffsetTracker:
    """Follows every record from the batch it is taken into until its offset is committed."""

    def __init__(self) -> None:
        self._open: dict[TopicPartition, list[Span]] = {}  # taken, in offset order, finished or not
        self._finished: dict[TopicPartition, set[Span]] = {}  # those of them that are finished
        self._uncommitted: dict[TopicPartition, Span] = {}  # finished without a gap, not yet committed
        self._last_finished_ms: dict[TopicPartition, int] = {}

    def taken(self, spans: Mapping[TopicPartition, Span]) -> None:
        """A batch with these records is being worked on."""
        for source, span in spans.items():
            self._open.setdefault(source, []).append(span)

    def finished(self, spans: Mapping[TopicPartition, Span]) -> None:
        """That batch's predictions and dead letters are handed to the sink."""
        for source, span in spans.items():
            waiting = self._open.get(source, [])
            if span not in waiting:
                continue  # revoked meanwhile, or read again in other batches
            done = self._finished.setdefault(source, set())
            done.add(span)
            while waiting and waiting[0] in done:
                done.discard(waiting[0])
                self._extend(source, waiting.pop(0))

    def returned(self, spans: Mapping[TopicPartition, Span]) -> None:
        """The batch that was taken last is no longer worked on; its records are taken again, in other batches."""
        for source, span in spans.items():
            self._open[source].remove(span)

    def committable(self) -> dict[TopicPartition, int]:
        """Next offsets to commit, once the sink says that what it was handed is safe."""
        return {source: span.next_offset for source, span in self._uncommitted.items()}

    def committed(self) -> None:
        """What `committable` said is committed."""
        self._uncommitted.clear()

    def restart_points(self) -> dict[TopicPartition, int]:
        """Lowest offset of each partition that is taken and not committed: where to read again from."""
        points = {source: spans[0].first_offset for source, spans in self._open.items() if spans}
        points |= {source: span.first_offset for source, span in self._uncommitted.items()}
        return points

    def oldest_ms(self) -> dict[TopicPartition, int]:
        """Timestamp of the oldest record of each partition that is taken and not committed."""
        oldest: dict[TopicPartition, int] = {}
        for source, span in [*self._uncommitted.items(), *self._open_spans()]:
            oldest[source] = min(span.oldest_ms, oldest.get(source, span.oldest_ms))
        return oldest

    def last_finished_ms(self, source: TopicPartition) -> int | None:
        """Timestamp of the last record finished of this partition, while it is ours."""
        return self._last_finished_ms.get(source)

    def forget(self, sources: Iterable[TopicPartition]) -> None:
        """These partitions are no longer ours, or will be read again from their restart points."""
        for source in sources:
            self._open.pop(source, None)
            self._finished.pop(source, None)
            self._uncommitted.pop(source, None)
            self._last_finished_ms.pop(source, None)

    def in_flight(self) -> bool:
        """Whether anything is taken and not committed."""
        return bool(self._uncommitted) or any(self._open.values())

    def _open_spans(self) -> Iterable[tuple[TopicPartition, Span]]:
        return ((source, span) for source, spans in self._open.items() for span in spans)

    def _extend(self, source: TopicPartition, span: Span) -> None:
        before = self._uncommitted.get(source)
        self._last_finished_ms[source] = span.last_ms
        if before is not None:
            oldest_ms = min(before.oldest_ms, span.oldest_ms)
            span = Span(before.first_offset, span.next_offset, oldest_ms, span.last_ms)
        self._uncommitted[source] = span
