"""Rejected row → dead-letter record, and the limit above which something else is wrong."""

from collections import deque
from dataclasses import dataclass

from app.clock import Clock
from app.errors import DeadLetterFlood
from app.records import DeadLetter, Record, Rejection

MAX_MESSAGE_CHARS = 500  # a header is no place for a payload


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """At most `records` dead letters within any `window_s` seconds."""

    records: int = 1000
    window_s: float = 60.0


def dead_letter_of(record: Record, rejection: Rejection, model: str, version: str) -> DeadLetter:
    """The record as it was, and why it was rejected.

    Headers are Kafka Connect's (KIP-298) and `inference.*`, all UTF-8 strings, after the record's own.
    """
    facts = {
        "__connect.errors.topic": record.topic(),
        "__connect.errors.partition": str(record.partition()),
        "__connect.errors.offset": str(record.offset()),
        "__connect.errors.stage": rejection.stage.value,
        "__connect.errors.exception.class.name": rejection.error,
        "__connect.errors.exception.message": rejection.message[:MAX_MESSAGE_CHARS],
        "inference.reason": rejection.reason.value,
        "inference.model": model,
        "inference.model_version": version,
    }
    headers = [
        *(record.headers() or ()),
        *((name, text.encode(errors="backslashreplace")) for name, text in facts.items()),
    ]
    kind, timestamp_ms = record.timestamp()
    return DeadLetter(
        key=record.key(),
        value=record.value(),
        headers=headers,
        timestamp_ms=timestamp_ms if kind else None,
        partition=record.partition(),
        stage=rejection.stage,
        reason=rejection.reason,
    )


class FloodGate:
    """Counts dead letters in a sliding window."""

    def __init__(self, limit: DeadLetterLimit, clock: Clock) -> None:
        self._limit, self._clock = limit, clock
        self._recent: deque[tuple[float, int]] = deque()
        self._count = 0

    def admit(self, rejections: list[Rejection]) -> None:
        """Count these. Raises DeadLetterFlood if the window now holds more than the limit."""
        now = self._clock.monotonic()
        while self._recent and self._recent[0][0] <= now - self._limit.window_s:
            self._count -= self._recent.popleft()[1]
        if not rejections:
            return
        self._recent.append((now, len(rejections)))
        self._count += len(rejections)
        if self._count > self._limit.records:
            last = rejections[-1]
            msg = (
                f"{self._count} records rejected within {self._limit.window_s:g} s, dead_letter_limit.records is "
                f"{self._limit.records}; the last one: {last.stage} {last.reason}: {last.message}"
            )
            raise DeadLetterFlood(msg)
