"""What travels through the worker: records as Kafka's client hands them over, and batches as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import Reason, Stage

Headers = Sequence[tuple[str, bytes | None]]
IntArray = npt.NDArray[np.int64]


class TopicPartition(NamedTuple):
    """Where an offset counts."""

    topic: str
    partition: int


class Record(Protocol):
    """One Kafka record. The client's own message object fits, so the hot path wraps nothing."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds); type 0 means the record has none."""
        ...

    def __len__(self) -> int:
        """Size of the value in bytes."""
        ...


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
class Batch:
    """Records scored together, in the order they came; all columns have the length of `records`.

    cause: why the batch was due: "records", "bytes", "age" or "drain".
    waited_s: how long its oldest record was in the batcher.
    """

    records: Sequence[Record]
    cause: str
    waited_s: float

    def __len__(self) -> int:
        return len(self.records)


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
        """First and next offset and oldest timestamp of each partition. Offsets rise within a partition."""
        if len(self.sources) == 1:
            return {self.sources[0]: _span(self.offsets, self.timestamps_ms)}
        spans = {}
        for index, source in enumerate(self.sources):
            rows = self.source == index
            spans[source] = _span(self.offsets[rows], self.timestamps_ms[rows])
        return spans


def _span(offsets: IntArray, timestamps_ms: IntArray) -> Span:
    return Span(int(offsets[0]), int(offsets[-1]) + 1, int(timestamps_ms.min()), int(timestamps_ms[-1]))


def origin_of(records: Sequence[Record], now_ms: int) -> Origin:
    """The origin columns of a run of records; `now_ms` stands in for a missing timestamp."""
    offsets = np.array([record.offset() for record in records], np.int64)
    partitions = np.array([record.partition() for record in records], np.int64)
    stamps = [record.timestamp()[1] for record in records]
    timestamps = np.array(stamps, np.int64)
    if (timestamps <= 0).any():
        timestamps = np.where(timestamps <= 0, now_ms, timestamps)
    topics = [record.topic() for record in records]
    first = topics[0]
    if topics.count(first) == len(topics):
        distinct, source = np.unique(partitions, return_inverse=True)
        sources = tuple(TopicPartition(first, int(partition)) for partition in distinct)
        return Origin(sources, source.astype(np.int64), offsets, timestamps)
    pairs = [TopicPartition(*pair) for pair in zip(topics, partitions.tolist(), strict=True)]
    order = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    index_of = np.array([order[pair] for pair in pairs], np.int64)
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
    """

    values: list[bytes]
    keys: list[bytes | None]
    partitions: IntArray


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What goes to the dead-letter topic; `timestamp_ms` is None where the record had none."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    partition: int
    stage: Stage
    reason: Reason
