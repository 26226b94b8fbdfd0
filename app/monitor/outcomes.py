"""Predictions and what became of them, joined by key and identity; each pair is judged exactly once. Pure.

An outcome names its event by key and event_time; a prediction and a shadow's comparison also say from which record they
are. So an outcome belongs to every event of its key with that event_time, and to every version that answered it.

What is kept of a key is one value: predictions and outcomes that wait for one another, and the offsets below which
everything was taken in. A pair also remembers the record that completed it. After a crash records are read again: those
below the offsets change nothing, but those that completed a pair tell of it once more, and the totals, which have
offsets of their own, either had it or had it not.

Of two outcomes for one event the first one counts. What waits longer than the outcome window is forgotten: a prediction
without outcome, or an outcome whose prediction is not in the sample, which is the rule where the share is below 1.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import orjson

MOST_PER_KEY = 200  # answers, and outcomes: a value is written anew with each, at about 80 bytes an answer
_ANSWER = ("event_time", "source", "version", "predicted", "numbers", "completed_by", "arrived")

Source = str  # which event: topic, partition and offset of its record, as text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version predicted for one event. read_from: a short name of the topic it was read from.

    predicted: index of the class. numbers: probabilities by class; empty if they are not known.
    """

    key: bytes
    read_from: str
    offset: int
    arrived_ms: int
    event_time_ms: int | None
    source: Source
    version: str
    predicted: int
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was to be predicted. truth: index of the class."""

    key: bytes
    read_from: str
    offset: int
    arrived_ms: int
    event_time_ms: int
    truth: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction with its outcome, completed by the record at this offset."""

    read_from: str
    offset: int
    version: str
    event_time_ms: int
    truth: int
    predicted: int
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OutcomePolicy:
    """window_s: how long one side waits for the other. most_keys: that wait; beyond it the oldest are forgotten."""

    window_s: float = 3600.0
    most_keys: int = 200_000


@dataclass(slots=True)
class _Key:
    """next: by topic, what has been taken in. The others as in the JSON of a value, short because there are many.

    answers: [event time or None, source, version, predicted, numbers, completed by (topic, offset) or None, arrived].
    outcomes: [event time, truth, arrived]. Both in the order they arrived in.
    """

    next: dict[str, int] = field(default_factory=dict)
    answers: list[list[Any]] = field(default_factory=list)
    outcomes: list[list[int]] = field(default_factory=list)
    touched_ms: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """changes: what to keep by key; None: nothing any more. pairs: in the order of records.

    counted: how many were pending, paired, duplicate, contradicting, late or unmatched.
    """

    changes: Mapping[bytes, bytes | None]
    pairs: Sequence[Pair]
    counted: Mapping[str, int]


class OutcomeJoin:
    """The keys of one partition."""

    def __init__(self, policy: OutcomePolicy) -> None:
        self._policy = policy
        self._keys: dict[bytes, _Key] = {}
        self._oldest: list[tuple[int, bytes]] = []
        self._now_ms = 0

    def restore(self, kept: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin anew with what was kept: key, value."""
        self._keys, self._oldest, self._now_ms = {}, [], 0
        for key, value in kept:
            entry = orjson.loads(value)
            self._keys[key] = _Key(entry["n"], entry["a"], entry["o"], entry["t"])
            heappush(self._oldest, (entry["t"], key))
            self._now_ms = max(self._now_ms, entry["t"])

    @property
    def waiting(self) -> int:
        """Keys that are kept."""
        return len(self._keys)

    def take(self, items: Iterable[Answer | Outcome], now_ms: int) -> Joined:
        """Take in what was read, in the order of offsets of each topic. now_ms: no record is newer than that."""
        counted: Counter[str] = Counter()
        pairs: list[Pair] = []
        touched: dict[bytes, None] = {}
        for item in items:
            arrived_ms = min(item.arrived_ms, now_ms)
            self._now_ms = max(self._now_ms, arrived_ms)
            entry = self._keys.get(item.key)
            if entry is not None and item.offset < entry.next.get(item.read_from, 0):
                pairs += _told_again(entry, item)
                continue
            if isinstance(item, Outcome) and item.event_time_ms < self._expired_ms and not _awaited(entry, item):
                counted["late"] += 1
                continue
            if entry is None:
                entry = self._keys[item.key] = _Key()
            if entry.touched_ms < arrived_ms:
                entry.touched_ms = arrived_ms
                heappush(self._oldest, (arrived_ms, item.key))
            entry.next[item.read_from] = item.offset + 1
            found = _answered(entry, item) if isinstance(item, Answer) else _known(entry, item)
            counted[found[0]] += 1
            pairs += found[1]
            _prune(entry, self._expired_ms, counted)
            touched[item.key] = None
        changes: dict[bytes, bytes | None] = {key: _value(self._keys[key]) for key in touched}
        for key in self._expire(counted):
            changes[key] = None
        return Joined(changes, pairs, counted)

    @property
    def _expired_ms(self) -> float:
        return self._now_ms - 1000 * self._policy.window_s

    def _expire(self, counted: Counter[str]) -> list[bytes]:
        gone = []
        while self._oldest and (self._oldest[0][0] < self._expired_ms or len(self._keys) > self._policy.most_keys):
            touched_ms, key = heappop(self._oldest)
            entry = self._keys.get(key)
            if entry is None or entry.touched_ms != touched_ms:
                continue  # touched again since, or gone
            del self._keys[key]
            gone.append(key)
            counted["unmatched"] += sum(answer[5] is None for answer in entry.answers)
        return gone


def _told_again(entry: _Key, item: Answer | Outcome) -> list[Pair]:
    """What this record completed when it was read for the first time."""
    at = [item.read_from, item.offset]
    truths = _truths(entry)
    return [_pair(answer, truths[answer[0]]) for answer in entry.answers if answer[5] == at]


def _answered(entry: _Key, item: Answer) -> tuple[str, list[Pair]]:
    time_ms = item.event_time_ms
    if time_ms is None:  # a comparison: its event_time is the record's, the prediction of the same record knows better
        time_ms = next((answer[0] for answer in entry.answers if answer[1] == item.source), None)
    else:
        for answer in entry.answers:
            if answer[1] == item.source and answer[0] is None:
                answer[0] = time_ms
    if any(answer[1] == item.source and answer[2] == item.version for answer in entry.answers):
        return "duplicate", []
    entry.answers.append([time_ms, item.source, item.version, item.predicted, list(item.numbers), None,
                          item.arrived_ms])  # fmt: skip
    pairs = _complete(entry, item)
    return ("paired" if pairs else "pending"), pairs


def _known(entry: _Key, item: Outcome) -> tuple[str, list[Pair]]:
    for time_ms, truth, _ in entry.outcomes:
        if time_ms == item.event_time_ms:
            return ("duplicate" if truth == item.truth else "contradicting"), []
    entry.outcomes.append([item.event_time_ms, item.truth, item.arrived_ms])
    pairs = _complete(entry, item)
    return ("paired" if pairs else "pending"), pairs


def _complete(entry: _Key, item: Answer | Outcome) -> list[Pair]:
    """Every answer that now has its outcome."""
    truths = _truths(entry)
    pairs = []
    for answer in entry.answers:
        if answer[5] is None and answer[0] in truths:
            answer[5] = [item.read_from, item.offset]
            pairs.append(_pair(answer, truths[answer[0]]))
    return pairs


def _pair(answer: list[Any], truth: int) -> Pair:
    time_ms, _, version, predicted, numbers, (read_from, offset), _ = answer
    return Pair(read_from, offset, version, time_ms, truth, predicted, tuple(numbers))


def _truths(entry: _Key) -> dict[int, int]:
    return {time_ms: truth for time_ms, truth, _ in entry.outcomes}


def _prune(entry: _Key, expired_ms: float, counted: Counter[str]) -> None:
    """Forget what waited too long, and the oldest of too many: a key may be touched again and again."""
    for items in (entry.answers, entry.outcomes):
        old = sum(item[-1] < expired_ms for item in items)
        gone = items[: max(old, len(items) - MOST_PER_KEY)]
        if gone:
            del items[: len(gone)]
            counted["unmatched"] += sum(len(item) == len(_ANSWER) and item[5] is None for item in gone)


def _awaited(entry: _Key | None, item: Outcome) -> bool:
    return entry is not None and any(answer[0] == item.event_time_ms for answer in entry.answers)


def _value(entry: _Key) -> bytes:
    return orjson.dumps({"n": entry.next, "a": entry.answers, "o": entry.outcomes, "t": entry.touched_ms})
