"""What a look at a consumer group found: figures per partition, and of the whole group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.group_marks import PartitionMarks
from app.records import TopicPartition

StartFrom = Literal["earliest", "latest", "fail"]

# Where the group would begin to read, if not at its committed offset.
Note = Literal["", "no_committed_offset", "retention_overtook", "beyond_the_end"]


@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A consumer group and what it reads.

    reads: the topics of each kind of consumer in it; a process has one of each kind, so a group of two pipelines has
    two members for a process. start_from: what they do without a usable committed offset. scaled: whether the number
    of its processes is to be worked out.
    """

    group_id: str
    reads: tuple[tuple[str, ...], ...]
    start_from: StartFrom = "earliest"
    scaled: bool = True

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(topic for topics in self.reads for topic in topics))


class Begin:
    """Where what a group has not finished begins, and why there if that is not its committed offset."""

    __slots__ = ("note", "offset")

    def __init__(self, marks: PartitionMarks, start_from: StartFrom) -> None:
        committed = marks.committed
        self.note: Note = ""
        if committed is None or committed > marks.end:
            # the worker would begin there too; with `fail` it would not begin, and all of it waits for a person
            self.offset = marks.last_stable if start_from == "latest" else marks.log_start
            self.note = "no_committed_offset" if committed is None else "beyond_the_end"
        elif committed < marks.log_start:
            self.offset, self.note = marks.log_start, "retention_overtook"
        else:
            self.offset = committed


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition of a group.

    records: those a reader of committed records would get from the group's offset on; at least as many as there are,
    at most `uncounted` too many. seconds: age of the oldest of them by its own timestamp, 0 if there is none, None
    while it is not known. unstable: offsets of transactions that are open, and of what came after their first record.
    unstable_s: for how long the last stable offset has been where it is, while there are any. missed: what retention
    took before the group finished it, without offsets known to have held no record.
    """

    source: TopicPartition
    marks: PartitionMarks
    records: int
    uncounted: int
    seconds: float | None
    missed: int
    note: Note
    unstable_s: float

    @property
    def unstable(self) -> int:
        """What read_committed readers cannot read yet."""
        return max(0, self.marks.end - self.marks.last_stable)


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One group at one look. at_s: of the monotonic clock. unknown: as in GroupMarks; empty: these are all."""

    group: WatchedGroup
    at_s: float
    partitions: tuple[PartitionLag, ...]
    members: int | None
    unknown: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing in sums."""
        return not self.unknown and self.members is not None

    @property
    def processes(self) -> int:
        """Processes that have members in it."""
        return -(-(self.members or 0) // len(self.group.reads))

    @property
    def records(self) -> int:
        """Of all partitions."""
        return sum(partition.records for partition in self.partitions)

    @property
    def seconds(self) -> float:
        """Of the partition that is furthest behind, as far as it is known."""
        return max((partition.seconds or 0.0 for partition in self.partitions), default=0.0)

    @property
    def most_processes(self) -> int:
        """More of them would have no partition."""
        counts = [
            sum(1 for partition in self.partitions if partition.source.topic in topics) for topics in self.group.reads
        ]
        return max(counts, default=0)

    @property
    def arrived(self) -> int:
        """A counter that grows with what can be read."""
        return sum(partition.marks.last_stable for partition in self.partitions)

    @property
    def finished(self) -> int:
        """A counter that grows with what the group commits."""
        return sum(_finished(partition, self.group.start_from) for partition in self.partitions)


def _finished(partition: PartitionLag, start_from: StartFrom) -> int:
    committed = partition.marks.committed
    return committed if committed is not None else Begin(partition.marks, start_from).offset
