"""One pipeline's sampled predictions, shadow comparisons and outcomes → what was right.

The columns of a micro-batch become records here: they are a sample whose rate the settings bound, and each of them
ends as a value of its own in a table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
import pyarrow as pa

from app.monitor.outcomes import Answer, Outcome, OutcomeJoin, OutcomePolicy
from app.monitor.stage import Fact, JudgedRows, Keep, OutcomesTaken, Read, Rejected, Send, Taken, grouped
from app.monitor.totals import JudgedTotals
from app.records import Columns, IntArray, Rejection

AHEAD_MS = 3_600_000  # clocks differ; an event that is further ahead is none
_PER_MS = {"ms": 1, "us": 1000}
SAMPLE, SHADOW, OUTCOME = "s", "c", "o"  # short: they are in every kept value


class DecodedRows(Protocol):
    """Columns of the rows that decoded, and why the others did not."""

    @property
    def columns(self) -> Columns:
        """In the order of rows."""
        ...

    @property
    def rejected(self) -> list[Rejection]:
        """The others."""
        ...


class RowDecoder(Protocol):
    """`app.pipeline.decode.Decoder`."""

    def decode(self, values: Sequence[bytes], rows: IntArray) -> DecodedRows:
        """Decode values[i], which is row rows[i]; `values` is not empty."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerFields:
    """Where a prediction has what. probability: of the second of two classes. None: the schema does not have it."""

    predicted: str
    probability: str | None
    probabilities: str | None
    event_time: str = "event_time"


@dataclass(frozen=True, slots=True)
class OutcomeFields:
    """Where an outcome has what."""

    label: str
    event_time: str


@dataclass(frozen=True, slots=True)
class OutcomeReading:
    """How one pipeline's topics are read.

    classes: as the manifest has them, as text. sampled: of keys, the rows that are in the sample; the others' outcomes
    and comparisons wait for nothing. shadow: None if not read.
    """

    pipeline: str
    model: str
    classes: Sequence[str]
    sample_topic: str
    sample: RowDecoder
    sample_fields: AnswerFields
    outcome_topic: str
    outcome: RowDecoder
    outcome_fields: OutcomeFields
    parts_topic: str
    partitions: int
    sampled: Callable[[Sequence[bytes | None]], IntArray]
    shadow_topic: str | None = None
    shadow: RowDecoder | None = None


class OutcomeStage:
    """The join of every partition that is ours."""

    def __init__(self, reading: OutcomeReading, policy: OutcomePolicy, window_s: int) -> None:
        self._reading, self._policy, self._window_s = reading, policy, window_s
        self.name = f"outcomes-{reading.pipeline}"
        shadow = [reading.shadow_topic] if reading.shadow_topic else []
        self.topics: Sequence[str] = (reading.sample_topic, reading.outcome_topic, *shadow)
        self._waiting, self._judged = f"waiting-{reading.pipeline}", f"judged-{reading.pipeline}"
        self.tables: Sequence[str] = (self._waiting, self._judged)
        self.partitions = reading.partitions
        self._class_of = {label: index for index, label in enumerate(reading.classes)}
        self._joins: dict[int, OutcomeJoin] = {}
        self._totals: dict[int, JudgedTotals] = {}

    def restore(self, kept: Mapping[str, Iterable[tuple[int, bytes, bytes]]]) -> Sequence[Send]:
        """Begin anew; what was judged is sent again, it may not have been."""
        self._joins, self._totals = {}, {}
        for partition, items in grouped(kept[self._waiting], _partition_of).items():
            self._join(partition).restore((key, value) for _, key, value in items)
        for partition, items in grouped(kept[self._judged], _partition_of).items():
            self._sums(partition).restore((key, value) for _, key, value in items)
        parts = [part for sums in self._totals.values() for part in sums.parts()]
        return [Send(self._reading.parts_topic, [(part.key.encode(), part.encoded()) for part in parts])]

    def take(self, partition: int, records: Sequence[Read], now_ms: int) -> Taken:
        """Join, then add up what was completed: kept in this order, as the totals count on it."""
        facts: list[Fact] = []
        items = self._items(records, now_ms, facts)
        joined = self._join(partition).take(items, now_ms)
        added = self._sums(partition).add(joined.pairs)
        steps: list[Keep | Send] = []
        if joined.changes:
            steps.append(Keep(self._waiting, joined.changes))
        if added.changes:
            steps.append(Keep(self._judged, added.changes))
        if added.parts:
            parts = [(part.key.encode(), part.encoded()) for part in added.parts]
            steps.append(Send(self._reading.parts_topic, parts))
        pipeline, model = self._reading.pipeline, self._reading.model
        counted = {**joined.counted, "too_old": added.too_old}
        facts += [OutcomesTaken(pipeline, result, count) for result, count in counted.items() if count]
        facts += [JudgedRows(pipeline, model, fresh.version, fresh.right, fresh.wrong) for fresh in added.fresh]
        return Taken(steps, facts)

    @property
    def waiting(self) -> int:
        """Keys that are kept."""
        return sum(join.waiting for join in self._joins.values())

    def _join(self, partition: int) -> OutcomeJoin:
        return self._joins.setdefault(partition, OutcomeJoin(self._policy, SAMPLE, OUTCOME))

    def _sums(self, partition: int) -> JudgedTotals:
        reading = self._reading
        keep_s = 2 * round(self._policy.window_s)
        return self._totals.setdefault(
            partition, JudgedTotals(reading.pipeline, reading.model, partition, self._window_s, keep_s)
        )

    def _items(self, records: Sequence[Read], now_ms: int, facts: list[Fact]) -> list[Answer | Outcome]:
        """In the order the records were read in, which is that of offsets in each topic."""
        reading = self._reading
        found: dict[int, Answer | Outcome] = {}
        makers: dict[str, Callable[[Read, Mapping[str, object], int], Answer | Outcome | None]] = {
            reading.sample_topic: self._answer,
            reading.outcome_topic: self._outcome,
        }
        for topic, decoder in (
            (reading.sample_topic, reading.sample),
            (reading.outcome_topic, reading.outcome),
            (reading.shadow_topic, reading.shadow),
        ):
            rows = [row for row, record in enumerate(records) if record.topic == topic and record.value is not None]
            if topic != reading.sample_topic and rows:
                chosen = reading.sampled([records[row].key for row in rows]).tolist()
                rows = [rows[index] for index in chosen]
            if not rows or decoder is None:
                continue
            decoded = decoder.decode([records[row].value or b"" for row in rows], np.array(rows, np.int64))
            facts += [Rejected(str(topic), why.reason.value, why.message) for why in decoded.rejected]
            make = makers.get(str(topic), self._comparison)
            events = _plain(decoded.columns.table)
            for row, event in zip(decoded.columns.rows.tolist(), events, strict=True):
                try:
                    item = make(records[row], event, now_ms)
                except (ValueError, TypeError, KeyError) as exc:
                    facts.append(Rejected(str(topic), "out_of_range", f"{type(exc).__name__}: {exc}"))
                    continue
                if item is not None:
                    found[row] = item
        return [found[row] for row in sorted(found)]

    def _answer(self, record: Read, event: Mapping[str, object], now_ms: int) -> Answer:
        fields = self._reading.sample_fields
        numbers: tuple[float, ...] = ()
        if fields.probabilities is not None:
            numbers = _numbers(event[fields.probabilities], len(self._class_of))
        elif fields.probability is not None:
            (second,) = _numbers([event[fields.probability]], 1)
            numbers = (1.0 - second, second)
        return Answer(
            key=_key(record),
            read_from=SAMPLE,
            offset=record.offset,
            arrived_ms=record.timestamp_ms,
            event_time_ms=_time(event[fields.event_time], now_ms),
            source=_source(event),
            version=_version(event["model_version"]),
            predicted=self._class_index(event[fields.predicted]),
            numbers=numbers,
        )

    def _comparison(self, record: Read, event: Mapping[str, object], now_ms: int) -> Answer | None:  # noqa: ARG002
        if event["candidate_class"] is None:
            return None  # it failed, which the worker counts
        return Answer(
            key=_key(record),
            read_from=SHADOW,
            offset=record.offset,
            arrived_ms=record.timestamp_ms,
            event_time_ms=None,
            source=_source(event),
            version=_version(event["candidate_version"]),
            predicted=self._class_index(event["candidate_class"]),
            numbers=_numbers(event["candidate_numbers"], len(self._class_of)),
        )

    def _outcome(self, record: Read, event: Mapping[str, object], now_ms: int) -> Outcome:
        fields = self._reading.outcome_fields
        return Outcome(
            key=_key(record),
            read_from=OUTCOME,
            offset=record.offset,
            arrived_ms=record.timestamp_ms,
            event_time_ms=_time(event[fields.event_time], now_ms),
            truth=self._class_index(event[fields.label]),
        )

    def _class_index(self, value: object) -> int:
        label = str(int(value)) if isinstance(value, bool) else str(value)
        index = self._class_of.get(label, self._class_of.get(str(value)))
        if index is None:
            raise ValueError(f"{label[:40]!r} is none of the model's classes {', '.join(self._class_of)}")
        return index


def _partition_of(item: tuple[int, bytes, bytes]) -> int:
    return item[0]


def _key(record: Read) -> bytes:
    if record.key is None:
        raise ValueError("a record without key belongs to no event")
    return record.key


def _source(event: Mapping[str, object]) -> str:
    return f"{event['source_topic']}:{event['source_partition']}:{event['source_offset']}"


def _version(value: object) -> str:
    text = str(value)
    if not text or len(text) > 20:
        raise ValueError(f"{text[:40]!r} is no version")
    return text


def _plain(table: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows; times as milliseconds since the epoch, whatever their year."""
    columns = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            numbers = column.view(pa.int64()).to_pylist()
            per_ms = _PER_MS[column.type.unit]
            columns[name] = [None if number is None else number // per_ms for number in numbers]
        elif not pa.types.is_date(column.type):
            columns[name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _time(value: object, now_ms: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= now_ms + AHEAD_MS:
        raise ValueError(f"the event_time {value!r} is not in the past")
    return value


def _numbers(values: object, width: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != width:
        raise ValueError(f"not {width} probabilities")
    numbers = tuple(float(value) for value in values)
    if not all(isfinite(number) and -1e-6 <= number <= 1 + 1e-6 for number in numbers):
        raise ValueError("probabilities are between 0 and 1")
    return numbers
