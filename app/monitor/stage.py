"""What the stream and its stages say to one another.

A stage is pure: it gets records, and says what to keep, what to send and what to tell.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Read:
    """One record. timestamp_ms: the record's own."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def size(self) -> int:
        """Bytes of what it carries."""
        return len(self.key or b"") + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Keep:
    """Changes of one table: by key, None to forget it. Durable before the next one begins."""

    table: str
    changes: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Send:
    """Records of one topic: key and value."""

    topic: str
    records: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that could not be used."""

    topic: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """Predictions whose outcome became known."""

    pipeline: str
    model: str
    version: str
    right: int
    wrong: int


@dataclass(frozen=True, slots=True)
class OutcomesTaken:
    """What became of records of a sample or of outcomes. result: as `Joined.counted` has it."""

    pipeline: str
    result: str
    records: int


@dataclass(frozen=True, slots=True)
class SummariesTaken:
    """Summaries that came in; late: of a window that is no longer kept."""

    topic: str
    summaries: int
    late: int


Fact = Rejected | JudgedRows | OutcomesTaken | SummariesTaken


@dataclass(frozen=True, slots=True)
class Taken:
    """steps: one after the other, each durable before the next. facts: to tell when all of them are."""

    steps: Sequence[Keep | Send]
    facts: Sequence[Fact]


def changelog_topic(group_id: str, table: str) -> str:
    """Where a table of the monitor with this group is kept."""
    return f"{group_id}-{table}-changelog"


class Stage(Protocol):
    """Some topics with equally many partitions, and the state of the partitions that are ours."""

    @property
    def name(self) -> str:
        """No other stage has it."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """What it reads."""
        ...

    @property
    def tables(self) -> Sequence[str]:
        """What it keeps."""
        ...

    @property
    def partitions(self) -> int:
        """Of each of its topics, and of its tables."""
        ...

    def restore(self, kept: Mapping[str, Iterable[tuple[int, bytes, bytes]]]) -> Sequence[Send]:
        """Begin anew with what was kept, by table: partition, key, value. Returns what may not have been sent."""
        ...

    def take(self, partition: int, records: Sequence[Read], now_ms: int) -> Taken:
        """Take in records of one partition number, in the order they were read in.

        Raises SchemaRegistryUnavailable or SchemasPending if a schema is not known now; then nothing was taken in.
        """
        ...


def grouped(items: Iterable[T], group_of: Callable[[T], K]) -> dict[K, list[T]]:
    """The items of each group, in the order they came."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(group_of(item), []).append(item)
    return found
