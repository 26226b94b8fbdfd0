"""Where consumer groups and partitions stand at a moment, as a broker tells it: what `lag` is worked out from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.records import IntArray, TopicPartition


@dataclass(frozen=True, slots=True)
class PartitionMarks:
    """Offsets of one partition and of a group in it.

    committed: the group's next offset; None if it has none. log_start: of the oldest record that is kept.
    last_stable: what a reader of committed records can read up to. end: the next to be written, at least last_stable.
    """

    committed: int | None
    log_start: int
    last_stable: int
    end: int


@dataclass(frozen=True, slots=True)
class GroupMarks:
    """One group at one look.

    members: consumers in the group; None if not known. unknown: what nothing is known of (a topic, a partition, the
    group's offsets) → why. Partitions are in one of the two, or their topic is.
    """

    members: int | None
    partitions: Mapping[TopicPartition, PartitionMarks] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Offsets first <= offset < end of a partition that are to be looked at, up to the `most`-th record in them."""

    first: int
    end: int
    most: int


@dataclass(frozen=True, slots=True)
class RecordsSeen:
    """What a look at a stretch found.

    offsets: of its committed records, rising; all of them below `reached`. first_ms: timestamp of the first of them,
    None if it has none.
    """

    offsets: IntArray
    first_ms: int | None
    reached: int
