"""Rejected row → dead-letter record, and the limit above which something else is wrong."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.clock import Clock
from app.errors import DeadLetterFlood
from app.records import DeadLetter, Record, Rejection, headers_of

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
    own = list(headers_of(record))
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


_VALUE = re.compile(r"( is ).*(, (?:allowed|expected|more than) )", re.DOTALL)


def without_the_value(message: str) -> str:
    """A rejection's message for those who may not see what records hold: "age is …, allowed 18 to 120"."""
    return _VALUE.sub(r"\1…\2", message)[:MAX_MESSAGE_CHARS]


SLOTS = 16  # of a window: dead letters of one slot are forgotten together, with the last of them
_ENTRY = re.compile(r"(\d{1,9})@(\d{1,15})")
_Entries = deque[tuple[float, int]]  # (when, how many)


class FloodGate:
    """Counts the dead letters that are delivered within a sliding window.

    Those of an aborted transaction do not count: their records come again. The counts travel with the committed
    offsets as a note, so that a worker that is started again and again gets no new quota each time.
    """

    def __init__(self, limit: DeadLetterLimit, clock: Clock) -> None:
        self._limit, self._clock = limit, clock
        self._recent: _Entries = deque()  # settled
        self._open: _Entries = deque()  # not settled yet

    def admit(self, letters: Sequence[DeadLetter]) -> None:
        """Count these, about to be delivered. Raises DeadLetterFlood if that exceeds the limit; then they are not."""
        if not letters:
            return
        self._forget_the_old()
        count = len(letters) + sum(many for _, many in (*self._recent, *self._open))
        if count > self._limit.records:
            last = letters[-1]
            why = dict(last.headers).get(MESSAGE_HEADER) or b""
            msg = (
                f"{count} records rejected within {self._limit.window_s:g} s, dead_letter_limit.records is "
                f"{self._limit.records}; the last one: {last.stage} {last.reason}: {why.decode()}"
            )
            raise DeadLetterFlood(msg)
        self._append(self._open, self._clock.monotonic(), len(letters))

    def settled(self) -> None:
        """What was admitted is durable."""
        for when, many in self._open:
            self._append(self._recent, when, many)
        self._open.clear()

    def undone(self) -> None:
        """What was admitted since the last settlement was taken back."""
        self._open.clear()

    def note(self) -> str:
        """What whoever goes on from here has to know; empty if nothing."""
        if not self._recent and not self._open:
            return ""
        self._forget_the_old()
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        return " ".join(f"{many}@{now_ms - round((now - when) * 1000)}" for when, many in (*self._recent, *self._open))

    def remember(self, note: str) -> None:
        """Go on from the counts in a note if they are higher than ours; anything else in it is nobody's fault."""
        self._forget_the_old()
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        entries = ((now - max(0, now_ms - int(at_ms)) / 1000, int(many)) for many, at_ms in _ENTRY.findall(note))
        # a partition that was not committed for long has an old note: its counts are nobody's any more
        told = deque((when, many) for when, many in entries if when > now - self._limit.window_s)
        if sum(many for _, many in told) > sum(many for _, many in self._recent):
            self._recent = told

    def _append(self, entries: _Entries, when: float, many: int) -> None:
        slot_s = self._limit.window_s / SLOTS
        if entries and entries[-1][0] // slot_s == when // slot_s:
            many += entries.pop()[1]
        entries.append((when, many))

    def _forget_the_old(self) -> None:
        until = self._clock.monotonic() - self._limit.window_s
        for entries in (self._recent, self._open):
            while entries and entries[0][0] <= until:
                entries.popleft()
