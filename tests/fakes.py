"""Stand-ins that behave: a clock told what time it is, records, schemas and models that live in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.errors import DecodeFailed, ModelFailed, Reason, SchemaRegistryUnavailable
from app.records import Headers
from app.specs import InputSpec, Output

NOW_MS = 1_760_000_000_000


# The least that settings say of a pipeline.
PIPELINE = {
    "name": "churn",
    "input_topics": ["in"],
    "output_topic": "out",
    "dead_letter_topic": "dead",
    "model": "churn",
}


class ManualClock:
    """Stands still until told otherwise."""

    def __init__(self, start: float = 1000.0, now_ms: int = NOW_MS) -> None:
        self._monotonic, self._start, self._now_ms = start, start, now_ms

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds

    def monotonic(self) -> float:
        return self._monotonic

    def now_ms(self) -> int:
        return self._now_ms + round((self._monotonic - self._start) * 1000)


class FakeRecord:
    """A Kafka record; answers like confluent_kafka.Message."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value")

    def __init__(
        self,
        value: bytes | None = b"",
        *,
        topic: str = "events",
        partition: int = 0,
        offset: int = 0,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: tuple[int, int] = (1, NOW_MS),
    ) -> None:
        self._value, self._topic, self._partition, self._offset = value, topic, partition, offset
        self._key, self._headers, self._timestamp = key, headers, timestamp

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def __len__(self) -> int:
        return 0 if self._value is None else len(self._value)

    def __repr__(self) -> str:
        return f"FakeRecord({self._topic}-{self._partition}@{self._offset}, {len(self)} bytes)"


class FakeSchemas:
    """A SchemaSource in memory; `asked` has every header it was asked for, `down` makes it unavailable."""

    def __init__(self, texts: Mapping[bytes, str] | None = None) -> None:
        self.texts = dict(texts or {})
        self.asked: list[bytes] = []
        self.down = False

    def by_header(self, header: bytes) -> str:
        self.asked.append(header)
        if self.down:
            raise SchemaRegistryUnavailable("http://registry: connection refused")
        if header not in self.texts:
            raise DecodeFailed(Reason.UNKNOWN_SCHEMA, f"nobody knows {header.hex()}")
        return self.texts[header]


Answers = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass
class FakeModel:
    """A model whose answers are a function; `seen` has every batch it was given; `at_fault`: golden rows fail."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[Output, ...]
    answer: Answers
    name: str = "fake"
    version: str = "7"
    digest: str = "0123456789abcdef"
    event_schema: str = "Event"
    prediction_schema: str = "Prediction"
    at_fault: bool = False
    seen: list[Mapping[str, np.ndarray]] = field(default_factory=list)

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen.append(tensors)
        return self.answer(tensors)

    def check(self) -> None:
        if self.at_fault:
            raise ModelFailed("the model is at fault")


def giving(**outputs: Any) -> Answers:
    """Answers of fixed arrays, whatever is asked."""
    return lambda _tensors: {name: np.asarray(value) for name, value in outputs.items()}


def records_of(values: Sequence[bytes | None], first_offset: int = 0, **rest: Any) -> list[FakeRecord]:
    """One record per value, at rising offsets of one partition."""
    return [FakeRecord(value, offset=first_offset + i, **rest) for i, value in enumerate(values)]
