"""Looks at consumer groups from outside, whether anybody is in them or not.

A look asks the broker for offsets, a few calls however many partitions there are, and then reads: one record where a
group stands, for its age, and the backlog, to count it. How much it reads is bounded; see `RecordCount`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.clock import Clock
from app.group_marks import GroupMarks, PartitionMarks, RecordsSeen, Stretch
from app.lag.readings import Begin, GroupLag, PartitionLag, WatchedGroup
from app.lag.record_count import RecordCount, shares
from app.records import TopicPartition

RECOUNT_S = 60.0  # compaction takes records away that were counted


class GroupReader(Protocol):
    """The broker: `app.kafka.lag.KafkaGroups`."""

    def marks(self, topics_of: Mapping[str, Sequence[str]]) -> Mapping[str, GroupMarks]:
        """Group → where it stands in all partitions of these topics. Raises nothing: what is unknown says why."""
        ...

    def records(self, stretches: Mapping[TopicPartition, Stretch]) -> Mapping[TopicPartition, RecordsSeen]:
        """What is in these stretches, as far as it could be read in a bounded time; those never read are absent."""
        ...


@dataclass(slots=True)
class _Partition:
    """What earlier looks know of a partition of a group. No record lies in oldest_from <= offset < oldest_at."""

    count: RecordCount = field(default_factory=RecordCount)
    oldest_from: int = 0
    oldest_at: int = -1
    oldest_ms: int | None = None
    last_stable: int = -1
    unmoved_since_s: float = 0.0
    missed: int = 0  # of missed_from <= offset < missed_to
    missed_from: int = -1
    missed_to: int = -1

    def missed_of(self, committed: int, log_start: int) -> int:
        """How many records retention took before the group finished them; offsets that nobody looked at count as some.

        What was counted as holding none is not missed: markers and aborted records behind a group that was done.
        """
        if committed != self.missed_from or log_start < self.missed_to:
            self.missed, self.missed_from, self.missed_to = 0, committed, committed
        if log_start > self.missed_to:
            self.count.begin_at(self.missed_to)
            self.missed += self.count.up_to(log_start).records
            self.missed_to = log_start
        return self.missed

    def knows_the_oldest(self, begin: int) -> bool:
        return self.oldest_from <= begin <= self.oldest_at

    def forget(self) -> None:
        """Look at everything again."""
        self.count.forget(self.count.next_offset - self.count.counted)
        self.oldest_at = -1

    def note_oldest(self, begin: int, seen: RecordsSeen) -> None:
        """What was read from `begin` on."""
        if len(seen.offsets):
            self.oldest_from, self.oldest_at, self.oldest_ms = begin, int(seen.offsets[0]), seen.first_ms


class LagWatch:
    """Several groups of one cluster. One thread only."""

    def __init__(
        self, reader: GroupReader, groups: Sequence[WatchedGroup], count_records: int | None, clock: Clock
    ) -> None:
        """count_records: so many records are read in one look to count them, of each group; None: all."""
        self._reader, self._groups, self._clock = reader, groups, clock
        self._count_records = count_records
        self._known: dict[tuple[str, TopicPartition], _Partition] = {}
        self._recount_at_s = clock.monotonic() + RECOUNT_S

    def look(self) -> list[GroupLag]:
        """All groups, as they are now. Never raises for the broker's sake."""
        recount = self._clock.monotonic() >= self._recount_at_s
        if recount:
            self._recount_at_s = self._clock.monotonic() + RECOUNT_S
        marks = self._reader.marks({group.group_id: group.topics for group in self._groups})
        return [self._group(group, marks[group.group_id], recount=recount) for group in self._groups]

    def _group(self, group: WatchedGroup, marks: GroupMarks, *, recount: bool) -> GroupLag:
        at_s = self._clock.monotonic()
        begins = {source: Begin(found, group.start_from) for source, found in marks.partitions.items()}
        behind = {
            source: (begins[source].offset, found.last_stable)
            for source, found in marks.partitions.items()
            if begins[source].offset < found.last_stable
        }
        known = {source: self._known.setdefault((group.group_id, source), _Partition()) for source in marks.partitions}
        for source, found in marks.partitions.items():
            if found.last_stable < known[source].last_stable:
                known[source].forget()  # another topic of this name, or a leader that had less: not the same log
        missed = {
            source: known[source].missed_of(found.committed, found.log_start)
            for source, found in marks.partitions.items()
            if begins[source].note == "retention_overtook" and found.committed is not None
        }
        if recount:
            self._begin_anew(known.values())
        for source, (begin, _) in behind.items():
            known[source].count.begin_at(begin)
        self._see_the_oldest(behind, known)
        self._count(behind, known)
        partitions = tuple(
            self._lag(source, found, begins[source], known[source], missed.get(source), at_s)
            for source, found in sorted(marks.partitions.items())
        )
        return GroupLag(group, at_s, partitions, marks.members, marks.unknown)

    def _see_the_oldest(
        self, behind: Mapping[TopicPartition, tuple[int, int]], known: Mapping[TopicPartition, _Partition]
    ) -> None:
        """One record of each partition whose group moved; those that are to be counted from there on come with that."""
        stretches = {
            source: Stretch(begin, end, 1)
            for source, (begin, end) in behind.items()
            if not known[source].knows_the_oldest(begin)
            and known[source].count.next_offset > begin
            and known[source].count.up_to(end).records
        }
        for source, seen in self._read(stretches).items():
            known[source].note_oldest(stretches[source].first, seen)

    def _count(
        self, behind: Mapping[TopicPartition, tuple[int, int]], known: Mapping[TopicPartition, _Partition]
    ) -> None:
        wanted = {
            source: end - known[source].count.next_offset
            for source, (_, end) in behind.items()
            if known[source].count.next_offset < end and known[source].count.has_room
        }
        most = wanted if self._count_records is None else shares(wanted, self._count_records)
        stretches = {
            source: Stretch(known[source].count.next_offset, behind[source][1], most[source]) for source in wanted
        }
        for source, seen in self._read(stretches).items():
            begin = stretches[source].first
            if begin == behind[source][0] and not known[source].knows_the_oldest(begin):
                known[source].note_oldest(begin, seen)
            known[source].count.seen(seen.offsets, seen.reached)

    def _read(self, stretches: Mapping[TopicPartition, Stretch]) -> Mapping[TopicPartition, RecordsSeen]:
        return self._reader.records(stretches) if stretches else {}

    def _lag(
        self,
        source: TopicPartition,
        marks: PartitionMarks,
        begin: Begin,
        known: _Partition,
        missed: int | None,
        at_s: float,
    ) -> PartitionLag:
        """missed: None if retention did not get beyond the group's offset."""
        if marks.last_stable != known.last_stable or marks.end <= marks.last_stable:
            known.last_stable, known.unmoved_since_s = marks.last_stable, at_s
        records, uncounted = 0, 0
        seconds: float | None = 0.0
        if begin.offset < marks.last_stable:
            records, uncounted = known.count.up_to(marks.last_stable)
            seconds = self._age_s(known, begin.offset) if records else 0.0
        return PartitionLag(
            source=source,
            marks=marks,
            records=records,
            uncounted=uncounted,
            seconds=seconds,
            missed=missed or 0,
            note="" if missed == 0 else begin.note,
            unstable_s=at_s - known.unmoved_since_s,
        )

    def _age_s(self, known: _Partition, begin: int) -> float | None:
        if not known.knows_the_oldest(begin) or known.oldest_ms is None:
            return None
        return max(0, self._clock.now_ms() - known.oldest_ms) / 1000  # a timestamp in the future is no age

    def _begin_anew(self, of_group: Collection[_Partition]) -> None:
        """Where all of them can be counted again in one look; a larger backlog would never be exact again."""
        if self._count_records is None or sum(one.count.counted for one in of_group) <= self._count_records:
            for known in of_group:
                known.forget()
