"""Rejected row → dead-letter record, and the limit above which something else is wrong."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.clock import Clock
from app.errors import DeadLetterFlood
from app.records import DeadLetter, Record, Rejection

MESSAGE_HEADER = "__connect.errors.exception.message"
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
        MESSAGE_HEADER: rejection.message[:MAX_MESSAGE_CHARS],
        "inference.reason": rejection.reason.value,
        "inference.model": model,
        "inference.model_version": version,
    }
    own = list(record.headers() or ())
    headers = [
        *own,
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
        event_headers=len(own),
    )


_NOTE = re.compile(r"dead_letters=(\d{1,9}) at_ms=(\d{1,15})")


class FloodGate:
    """Counts the dead letters that are delivered within a sliding window.

    Those of an aborted transaction do not count: their records come again. The count travels with the committed
    offsets as a note, so that a worker that is started again and again gets no new quota each time.
    """

    def __init__(self, limit: DeadLetterLimit, clock: Clock) -> None:
        self._limit, self._clock = limit, clock
        self._recent: deque[tuple[float, int]] = deque()  # (when, how many), settled
        self._open: list[tuple[float, int]] = []  # not settled yet
        self._count = 0  # of both

    def admit(self, letters: Sequence[DeadLetter]) -> None:
        """Count these, about to be delivered. Raises DeadLetterFlood if that exceeds the limit; then they are not."""
        if not letters:
            return
        now = self._clock.monotonic()
        while self._recent and self._recent[0][0] <= now - self._limit.window_s:
            self._count -= self._recent.popleft()[1]
        if self._count + len(letters) > self._limit.records:
            last = letters[-1]
            why = dict(last.headers).get(MESSAGE_HEADER) or b""
            msg = (
                f"{self._count + len(letters)} records rejected within {self._limit.window_s:g} s, "
                f"dead_letter_limit.records is {self._limit.records}; the last one: "
                f"{last.stage} {last.reason}: {why.decode()}"
            )
            raise DeadLetterFlood(msg)
        self._open.append((now, len(letters)))
        self._count += len(letters)

    def note(self) -> str:
        """What whoever goes on from here has to know; empty if nothing."""
        newest = self._open[-1] if self._open else self._recent[-1] if self._recent else None
        age_s = self._clock.monotonic() - newest[0] if newest else self._limit.window_s
        if age_s >= self._limit.window_s:
            return ""
        return f"dead_letters={self._count} at_ms={self._clock.now_ms() - round(age_s * 1000)}"

    def remember(self, note: str) -> None:
        """Go on from the count that a note holds, if that is higher; anything else in it is nobody's fault."""
        found = _NOTE.fullmatch(note)
        if found is None:
            return
        count, at_ms = int(found[1]), int(found[2])
        age_s = max(0.0, (self._clock.now_ms() - at_ms) / 1000)
        if age_s < self._limit.window_s and count > self._count:
            entry = (self._clock.monotonic() - age_s, count - self._count)
            self._recent = deque(sorted([*self._recent, entry]))
            self._count = count

    def settled(self) -> None:
        """What was admitted is durable."""
        self._recent.extend(self._open)
        self._open.clear()

    def undone(self) -> None:
        """What was admitted since the last settlement was taken back."""
        self._count -= sum(count for _, count in self._open)
        self._open.clear()
