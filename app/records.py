"""What travels through the worker: records as Kafka's client hands them over, and batches as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import TypeVar

from app.errors import Reason, Stage

Headers = Sequence[tuple[str, bytes | None]]
IntArray = npt.NDArray[np.int64]


class TopicPartition(NamedTuple):
    """Where an offset counts."""

    topic: str
    partition: int


class Timed(Protocol):
    """What a batch may be of."""

    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds); type 0 means there is none."""
        ...

    def __len__(self) -> int:
        """Size of the value in bytes."""
        ...


class Record(Timed, Protocol):
    """One Kafka record. The client's own message object fits, so the hot path wraps nothing."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None:
        """Not to be asked by itself: see `headers_of`."""
        ...

    def set_headers(self, value: list[tuple[str, bytes]], /) -> None: ...


Item = TypeVar("Item", bound=Timed, default=Record)


# In the place of headers that the client cannot read, because the name of one is not UTF-8; for people.
UNREADABLE_HEADERS = [("inference.headers", b"omitted: the name of one is not UTF-8")]


def headers_of(record: Record) -> Headers:
    """Its headers, () if it has none, or UNREADABLE_HEADERS. Nobody asks the record itself.

    Where a name is not UTF-8 the client raises, keeps a list with a hole in it, and gives that to whoever asks again,
    which ends the process (confluent-kafka 2.16.0): so the list is replaced here.
    """
    try:
        return record.headers() or ()
    except (SystemError, ValueError):
        record.set_headers(UNREADABLE_HEADERS)
        return UNREADABLE_HEADERS


def source_of(record: Record) -> TopicPartition:
    """Where the record's offset counts."""
    return TopicPartition(record.topic(), record.partition())


class Span(NamedTuple):
    """The records of one partition within a batch: offsets first <= offset < next_offset.

    oldest_ms: lowest timestamp. last_ms: timestamp of the last record.
    """

    first_offset: int
    next_offset: int
    oldest_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """Row `row` of a batch cannot be predicted; `error` and `message` are for people."""

    row: int
    stage: Stage
    reason: Reason
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """Records scored together, in the order they came; all columns have the length of `records`.

    cause: why the batch was due: "records", "bytes", "age" or "drain".
    waited_s: how long its oldest record was in the batcher. taken_at: when it left it, on the monotonic clock.
    model_rows: how many of them the model is given at a time.
    """

    records: Sequence[Item]
    cause: str
    waited_s: float
    taken_at: float
    model_rows: int

    def __len__(self) -> int:
        return len(self.records)

    @property
    def runs(self) -> list[int]:
        """Its records as batches of model_rows at most, which is what metrics count."""
        whole, rest = divmod(len(self.records), self.model_rows)
        return [self.model_rows] * whole + ([rest] if rest or not whole else [])


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows of a batch came from, in columns.

    sources: the distinct topic-partitions of the batch.
    source: (n,) int64, index into `sources`.
    offsets: (n,) int64. timestamps_ms: (n,) int64; where a record has none, the time it was read.
    """

    sources: tuple[TopicPartition, ...]
    source: IntArray
    offsets: IntArray
    timestamps_ms: IntArray

    def partitions(self) -> IntArray:
        """(n,) int64, the partition number of each row."""
        return np.array([source.partition for source in self.sources], np.int64)[self.source]

    def spans(self) -> dict[TopicPartition, Span]:
        """First and next offset and timestamps of each partition. Offsets rise within a partition."""
        if len(self.sources) == 1:  # as most small batches
            offsets, times = self.offsets, self.timestamps_ms
            span = Span(int(offsets[0]), int(offsets[-1]) + 1, int(times.min()), int(times[-1]))
            return {self.sources[0]: span}
        order = np.argsort(self.source, kind="stable")
        offsets, timestamps = self.offsets[order], self.timestamps_ms[order]
        starts = np.searchsorted(self.source[order], np.arange(len(self.sources)))
        ends = np.append(starts[1:], len(order)) - 1
        columns = (offsets[starts], offsets[ends] + 1, np.minimum.reduceat(timestamps, starts), timestamps[ends])
        return dict(zip(self.sources, map(Span, *(column.tolist() for column in columns)), strict=True))


def origin_of(records: Sequence[Record], now_ms: int, topic: str | None = None) -> Origin:
    """The origin columns of a run of records; `now_ms` stands in for a missing timestamp.

    topic: of all of them, if it is known: they are not asked for theirs then.
    """
    count = len(records)
    offsets = np.fromiter([record.offset() for record in records], np.int64, count)
    numbers = [record.partition() for record in records]
    timestamps = np.fromiter([record.timestamp()[1] for record in records], np.int64, count)
    if (timestamps <= 0).any():
        timestamps = np.where(timestamps <= 0, now_ms, timestamps)
    topics = [] if topic is not None else [record.topic() for record in records]
    if topic is None and topics.count(topics[0]) == count:
        topic = topics[0]
    if topic is not None and numbers.count(numbers[0]) == count:  # as in most small batches
        return Origin((TopicPartition(topic, numbers[0]),), np.zeros(count, np.int64), offsets, timestamps)
    partitions = np.fromiter(numbers, np.int64, count)
    if topic is not None:
        # numbered by presence: partition numbers are small, so a table is quicker than sorting
        present = np.bincount(partitions) > 0
        sources = tuple(TopicPartition(topic, number) for number in np.flatnonzero(present).tolist())
        return Origin(sources, (np.cumsum(present) - 1)[partitions], offsets, timestamps)
    pairs = [TopicPartition(*pair) for pair in zip(topics, numbers, strict=True)]
    order = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    index_of = np.fromiter([order[pair] for pair in pairs], np.int64, count)
    return Origin(tuple(order), index_of, offsets, timestamps)


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded events: row i of `table` is row `rows[i]` of the batch."""

    table: pa.RecordBatch
    rows: IntArray


@dataclass(frozen=True, slots=True)
class Predictions:
    """What goes to the output topic: column i of each answers one row, in batch order.

    values: framed datums. keys: the events' own. partitions: (m,) source partitions.
    sizes: (m,) bytes of value and key. headers: of the few that carry any, by column index.
    """

    values: list[bytes]
    keys: list[bytes | None]
    partitions: IntArray
    sizes: IntArray
    headers: Mapping[int, Headers] | None = None

    def between(self, start: int, end: int) -> "Predictions":
        """The same of these alone, without headers."""
        return Predictions(
            self.values[start:end], self.keys[start:end], self.partitions[start:end], self.sizes[start:end]
        )


def predictions_of(values: list[bytes], keys: list[bytes | None], partitions: IntArray) -> Predictions:
    """The same, measured."""
    count = len(values)
    try:
        key_sizes = np.fromiter(map(len, keys), np.int64, count)  # type: ignore[arg-type] # None: see below
    except TypeError:
        key_sizes = np.fromiter([len(key or b"") for key in keys], np.int64, count)
    return Predictions(values, keys, partitions, np.fromiter(map(len, values), np.int64, count) + key_sizes)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What goes to the dead-letter topic.

    headers: the event's own, `event_headers` of them, then ours. timestamp_ms: None where the record had none.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    partition: int
    stage: Stage
    reason: Reason
    event_headers: int = 0
