"""What waits under one key: predictions for outcomes, outcomes for predictions; and pairs that were completed.

A pair remembers which record completed it, when, and with what truth: if that record is read again after a crash, the
pair is told again as it was, whatever has been forgotten of the key since.
"""

from collections.abc import Container
from dataclasses import astuple, dataclass, field
from typing import Any

import orjson

MOST_PER_KEY = 200  # answers, and outcomes: a value is written anew with each, at about 100 bytes an answer


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction with its outcome, completed by the record at this offset. read_from: a short name of its topic.

    completed_ms: when both had arrived. again: told before; who adds up pairs knows by the offset whether it had it.
    """

    read_from: str
    offset: int
    version: str
    completed_ms: int
    truth: int
    predicted: int
    numbers: tuple[float, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """By which record, when, and what was true."""

    read_from: str
    offset: int
    at_ms: int
    truth: int


@dataclass(slots=True)
class WaitingAnswer:
    """What a version predicted. time_ms: of its event; None of a comparison whose prediction has not come yet."""

    time_ms: int | None
    source: str
    version: str
    predicted: int
    numbers: tuple[float, ...]
    arrived_ms: int
    completed: Completed | None = None

    def pair(self, completed: Completed, *, again: bool) -> Pair:
        """The pair that was completed so."""
        return Pair(
            completed.read_from, completed.offset, self.version, completed.at_ms, completed.truth, self.predicted,
            self.numbers, again,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WaitingOutcome:
    """What was true of the events of this time."""

    time_ms: int
    truth: int
    arrived_ms: int


@dataclass(slots=True)
class Waiting:
    """All of one key. next_offsets: by topic, what has been taken in. Both lists are in the order of arrival."""

    next_offsets: dict[str, int] = field(default_factory=dict)
    answers: list[WaitingAnswer] = field(default_factory=list)
    outcomes: list[WaitingOutcome] = field(default_factory=list)
    touched_ms: int = 0

    def add_answer(self, answer: WaitingAnswer) -> bool:
        """False if this version answered this event before."""
        same_event = [other for other in self.answers if other.source == answer.source]
        if answer.time_ms is None:  # the prediction of the same record knows it
            answer.time_ms = next((other.time_ms for other in same_event), None)
        for other in same_event:
            other.time_ms = answer.time_ms if other.time_ms is None else other.time_ms
        if any(other.version == answer.version for other in same_event):
            return False
        self.answers.append(answer)
        return True

    def add_outcome(self, outcome: WaitingOutcome) -> str | None:
        """None if it is the first for its time, else what it is: duplicate or contradicting."""
        for other in self.outcomes:
            if other.time_ms == outcome.time_ms:
                return "duplicate" if other.truth == outcome.truth else "contradicting"
        self.outcomes.append(outcome)
        return None

    def complete(self, read_from: str, offset: int) -> list[Pair]:
        """Every answer that now has its outcome, by this record."""
        by_time = {outcome.time_ms: outcome for outcome in self.outcomes}
        pairs = []
        for answer in self.answers:
            if answer.completed is None and answer.time_ms is not None and answer.time_ms in by_time:
                outcome = by_time[answer.time_ms]
                at_ms = max(answer.arrived_ms, outcome.arrived_ms)
                answer.completed = Completed(read_from, offset, at_ms, outcome.truth)
                pairs.append(answer.pair(answer.completed, again=False))
        return pairs

    def completed_by(self, read_from: str, offset: int) -> list[Pair]:
        """What this record completed when it was read for the first time."""
        return [
            answer.pair(done, again=True)
            for answer in self.answers
            if (done := answer.completed) and (done.read_from, done.offset) == (read_from, offset)
        ]

    def awaits(self, time_ms: int) -> bool:
        """Whether there is an answer for an event of this time."""
        return any(answer.time_ms == time_ms for answer in self.answers)

    @property
    def unmatched(self) -> int:
        """Answers without outcome."""
        return sum(answer.completed is None for answer in self.answers)

    def prune(self, expired_ms: float, needed: Container[tuple[str, int]]) -> int:
        """Forget what waited too long, and the oldest of too many: a key may be touched again and again.

        needed: records that completed a pair which is not added up yet; these pairs stay. Returns how many answers
        went without outcome.
        """
        before = self.unmatched
        self.outcomes = [one for one in self.outcomes[-MOST_PER_KEY:] if one.arrived_ms >= expired_ms]
        too_many = len(self.answers) - MOST_PER_KEY
        if too_many > 0 or any(answer.arrived_ms < expired_ms for answer in self.answers):
            self.answers = [
                answer
                for place, answer in enumerate(self.answers)
                if (place >= too_many and answer.arrived_ms >= expired_ms)
                or (answer.completed is not None and (answer.completed.read_from, answer.completed.offset) in needed)
            ]
        return before - self.unmatched

    def encoded(self) -> bytes:
        """As JSON, in lists because there are many; `waiting_of` is its opposite."""
        answers = [
            [one.time_ms, one.source, one.version, one.predicted, one.numbers, one.arrived_ms,
             astuple(one.completed) if one.completed else None]
            for one in self.answers
        ]  # fmt: skip
        outcomes = [[one.time_ms, one.truth, one.arrived_ms] for one in self.outcomes]
        return orjson.dumps({"n": self.next_offsets, "a": answers, "o": outcomes, "t": self.touched_ms})


def waiting_of(value: bytes) -> Waiting:
    """What `Waiting.encoded` made. Raises ValueError, TypeError or LookupError for anything else."""
    content: dict[str, Any] = orjson.loads(value)
    answers = [
        WaitingAnswer(time_ms, source, version, predicted, tuple(numbers), arrived_ms,
                      Completed(*completed) if completed else None)
        for time_ms, source, version, predicted, numbers, arrived_ms, completed in content["a"]
    ]  # fmt: skip
    return Waiting(dict(content["n"]), answers, [WaitingOutcome(*one) for one in content["o"]], int(content["t"]))
