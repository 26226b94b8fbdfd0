"""Predictions and what became of them, joined by key and identity; each pair is judged exactly once. Pure.

An outcome names its event by key and event_time; a prediction and a shadow's comparison also say from which record they
are. So an outcome belongs to every event of its key with that event_time, and to every version that answered it.

What is kept of a key is one value (`waiting.py`): predictions and outcomes that wait for one another, and the offsets
below which everything was taken in. After a crash records are read again: those below the offsets change nothing, but
those that completed a pair tell of it once more, and the totals, which have offsets of their own, either had it or had
it not. So what a micro-batch completed stays until the next one: by then the totals are durable.

Of two outcomes for one event the first one counts. What waits longer than the outcome window is forgotten: a prediction
without outcome, or an outcome whose prediction is not in the sample, which is the rule where the share is below 1. How
long something waited is told by the slower of the two topics: after a standstill one of them may be read hours ahead of
the other. A topic that brings nothing for a while has been read to its end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from app.monitor.kept import read_kept
from app.monitor.waiting import Pair, Waiting, WaitingAnswer, WaitingOutcome, waiting_of

IDLE_MS = 60_000  # a topic that brought nothing for so long, by our clock, is at its end

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
class OutcomePolicy:
    """window_s: how long one side waits for the other. most_keys: that wait; beyond it the oldest are forgotten."""

    window_s: float = 3600.0
    most_keys: int = 200_000


@dataclass(frozen=True, slots=True)
class Joined:
    """changes: what to keep by key; None: nothing any more. pairs: in the order of records.

    counted: how many were pending, paired, duplicate, contradicting, late or unmatched.
    """

    changes: Mapping[bytes, bytes | None]
    pairs: Sequence[Pair]
    counted: Mapping[str, int]


class OutcomeJoin:
    """The keys of one partition. The totals of a take are durable before the next one."""

    def __init__(self, policy: OutcomePolicy, answers_from: str = "s", outcomes_from: str = "o") -> None:
        """answers_from, outcomes_from: the short names of the topics whose time is looked at."""
        self._policy = policy
        self._keys: dict[bytes, Waiting] = {}
        self._oldest: list[tuple[int, bytes]] = []
        self._clocks = {name: _TopicTime() for name in (answers_from, outcomes_from)}

    def restore(self, kept: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin anew with what was kept: key, value."""
        self._keys, self._oldest = {}, []
        self._clocks = {name: _TopicTime() for name in self._clocks}
        for key, value in kept:
            waiting = read_kept("waiting", key, value, waiting_of)
            if waiting is not None:
                self._keys[key] = waiting
                heappush(self._oldest, (waiting.touched_ms, key))

    @property
    def waiting(self) -> int:
        """Keys that are kept."""
        return len(self._keys)

    def take(self, items: Iterable[Answer | Outcome], now_ms: int) -> Joined:
        """Take in what was read, in the order of offsets of each topic. now_ms: no record is newer than that."""
        counted: Counter[str] = Counter()
        pairs: list[Pair] = []
        touched: dict[bytes, None] = {}
        completed: set[bytes] = set()
        for clock in self._clocks.values():
            clock.asked(now_ms)
        for item in items:
            arrived_ms = min(item.arrived_ms, now_ms)
            if item.read_from in self._clocks:
                self._clocks[item.read_from].read(arrived_ms, now_ms)
            waiting = self._keys.get(item.key)
            if waiting is not None and item.offset < waiting.next_offsets.get(item.read_from, 0):
                told = waiting.completed_by(item.read_from, item.offset)
                pairs += told
                completed |= {item.key} if told else set()
                continue
            expired_ms = self._expired_ms(now_ms)
            if isinstance(item, Outcome) and item.event_time_ms < expired_ms and not _awaited(waiting, item):
                counted["late"] += 1
                continue
            if waiting is None:
                waiting = self._keys[item.key] = Waiting()
            if waiting.touched_ms < arrived_ms:
                waiting.touched_ms = arrived_ms
                heappush(self._oldest, (arrived_ms, item.key))
            waiting.next_offsets[item.read_from] = item.offset + 1
            result, found = _added(waiting, item, arrived_ms)
            counted[result] += 1
            pairs += found
            completed |= {item.key} if found else set()
            touched[item.key] = None
        needed = {(pair.read_from, pair.offset) for pair in pairs}
        expired_ms = self._expired_ms(now_ms)
        changes: dict[bytes, bytes | None] = {}
        for key in touched:
            counted["unmatched"] += self._keys[key].prune(expired_ms, needed)
            changes[key] = self._keys[key].encoded()
        for key in self._expire(expired_ms, completed, counted):
            changes[key] = None
        return Joined(changes, pairs, counted)

    def _expired_ms(self, now_ms: int) -> float:
        return min(clock.time_ms(now_ms) for clock in self._clocks.values()) - 1000 * self._policy.window_s

    def _expire(self, expired_ms: float, completed: Set[bytes], counted: Counter[str]) -> list[bytes]:
        """completed: these stay, as their pairs are not added up yet."""
        gone, stay = [], []
        while self._oldest and (self._oldest[0][0] < expired_ms or len(self._keys) > self._policy.most_keys):
            touched_ms, key = heappop(self._oldest)
            waiting = self._keys.get(key)
            if waiting is None or waiting.touched_ms != touched_ms:
                continue  # touched again since, or gone
            if key in completed:
                stay.append((touched_ms, key))
                continue
            del self._keys[key]
            gone.append(key)
            counted["unmatched"] += waiting.unmatched
        for item in stay:
            heappush(self._oldest, item)
        return gone


class _TopicTime:
    """Up to when a topic has been read."""

    def __init__(self) -> None:
        self._newest_ms = -inf
        self._read_at_ms: int | None = None

    def asked(self, now_ms: int) -> None:
        """The first time begins the wait for its first record."""
        if self._read_at_ms is None:
            self._read_at_ms = now_ms

    def read(self, arrived_ms: int, now_ms: int) -> None:
        self._newest_ms, self._read_at_ms = max(self._newest_ms, arrived_ms), now_ms

    def time_ms(self, now_ms: int) -> float:
        idle = self._read_at_ms is not None and now_ms - self._read_at_ms > IDLE_MS
        return now_ms if idle else self._newest_ms


def _added(waiting: Waiting, item: Answer | Outcome, arrived_ms: int) -> tuple[str, list[Pair]]:
    """What became of it, and the pairs that it completed."""
    if isinstance(item, Answer):
        answer = WaitingAnswer(item.event_time_ms, item.source, item.version, item.predicted, item.numbers, arrived_ms)
        again = None if waiting.add_answer(answer) else "duplicate"
    else:
        again = waiting.add_outcome(WaitingOutcome(item.event_time_ms, item.truth, arrived_ms))
    # an answer that came before may tell a comparison its time
    pairs = waiting.complete(item.read_from, item.offset)
    return again or ("paired" if pairs else "pending"), pairs


def _awaited(waiting: Waiting | None, item: Outcome) -> bool:
    return waiting is not None and waiting.awaits(item.event_time_ms)
