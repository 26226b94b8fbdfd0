"""Sends events at their intended times, whatever the broker or the worker does meanwhile (open loop)."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loadgen.clock import Clock
from loadgen.errors import BadOption
from loadgen.event_stream import Chunk, EventStream
from loadgen.pacing import Pace, Schedule
from loadgen.sending import Sender

CHUNK = 4096  # the generator's block: no block is drawn twice
AHEAD_MS = 50  # events are encoded this long before they are due, so that encoding never delays them
LEAD_MS = 100  # from the call to the first event: covers building the first chunk
NAP_MS = 20.0  # between looks at the schedule when nothing is due

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much to send; whichever ends first. At least one of them is given."""

    events: int | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.events is None and self.duration_s is None:
            raise BadOption("--events or --duration: how much to send")
        if self.events is not None and self.events < 1:
            raise BadOption("--events: 1 or more")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise BadOption("--duration: seconds, more than 0")

    def paced_total(self, pace: Pace) -> int:
        """Return the number of events of a paced run. Raises BadOption if the pace never reaches it."""
        if self.duration_s is not None:
            within = pace.total(self.duration_s)
            return within if self.events is None else min(self.events, within)
        if self.events is None or pace.total(MAX_RUN_S) < self.events:
            raise BadOption("--rate: too low ever to send --events")
        return self.events


MAX_RUN_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Produced:
    """What was sent and acknowledged.

    start_ms: the intended time of the first event. seconds: from then to the last acknowledgement.
    behind_max_ms: how late the latest event left us, against its intended time (0 for unpaced runs).
    """

    topic: str
    events: int
    start_ms: float
    seconds: float
    behind_max_ms: float
    bytes: int
    poison: dict[str, int] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        """Acknowledged events per second."""
        return self.events / self.seconds if self.seconds > 0 else 0.0


class _Tally:
    """Counts as it goes what `Produced` reports."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.behind_max_ms = 0.0
        self.poison: Counter[str] = Counter()

    def add(self, chunk: Chunk) -> None:
        """Return a chunk that was sent whole."""
        self.events += len(chunk.values)
        self.bytes += sum(map(len, chunk.values)) + sum(map(len, chunk.keys))
        self.poison.update(chunk.poison.values())


def produce(
    *,
    topic: str,
    stream: EventStream,
    sender: Sender,
    pace: Pace,
    extent: Extent,
    clock: Clock,
    progress: Progress,
) -> Produced:
    """Send the events of the stream. Returns when all are acknowledged; raises BrokerFailed if one is not."""
    tally = _Tally()
    stream.chunk(0, np.zeros(1, dtype=np.int64))  # what libraries do on their first call must not delay an event
    start_ms = math.ceil(clock.now_ms()) + (0 if pace.unpaced else LEAD_MS)
    if pace.unpaced:
        _flat_out(stream=stream, sender=sender, extent=extent, clock=clock, progress=progress, tally=tally)
    else:
        schedule = Schedule(pace, extent.paced_total(pace))
        _paced(
            stream=stream,
            sender=sender,
            schedule=schedule,
            start_ms=start_ms,
            clock=clock,
            progress=progress,
            tally=tally,
        )
    sender.finish()
    return Produced(
        topic=topic,
        events=tally.events,
        start_ms=float(start_ms),
        seconds=max(clock.now_ms() - start_ms, 0.001) / 1000.0,
        behind_max_ms=round(tally.behind_max_ms, 3),
        bytes=tally.bytes,
        poison=dict(tally.poison),
    )


def _flat_out(
    *, stream: EventStream, sender: Sender, extent: Extent, clock: Clock, progress: Progress, tally: _Tally
) -> None:
    deadline_ms = clock.now_ms() + extent.duration_s * 1000.0 if extent.duration_s is not None else math.inf
    total = extent.events if extent.events is not None else math.inf
    while tally.events < total and (now_ms := clock.now_ms()) < deadline_ms:
        count = int(min(CHUNK, total - tally.events))
        chunk = stream.chunk(tally.events, np.full(count, int(now_ms), dtype=np.int64))
        sender.send(chunk, 0, count)
        tally.add(chunk)
        progress(tally.events)


def _paced(
    *,
    stream: EventStream,
    sender: Sender,
    schedule: Schedule,
    start_ms: int,
    clock: Clock,
    progress: Progress,
    tally: _Tally,
) -> None:
    while not schedule.finished:
        horizon_ms = int(clock.now_ms()) - start_ms + AHEAD_MS
        due_ms = schedule.take(horizon_ms, CHUNK) + start_ms
        if len(due_ms) == 0:
            sender.poll()
            clock.sleep_until(clock.now_ms() + NAP_MS)
            continue
        chunk = stream.chunk(tally.events, due_ms)
        tally.behind_max_ms = max(tally.behind_max_ms, _send_when_due(chunk, due_ms, sender, clock))
        tally.add(chunk)
        progress(tally.events)


def _send_when_due(chunk: Chunk, due_ms: NDArray[np.int64], sender: Sender, clock: Clock) -> float:
    """Send each row at its time; all that are overdue at once. Returns the greatest lateness, in ms."""
    sent = 0
    behind_ms = 0.0
    while sent < len(due_ms):
        clock.sleep_until(float(due_ms[sent]))
        now_ms = clock.now_ms()
        stop = int(np.searchsorted(due_ms, now_ms, side="right"))
        stop = max(stop, sent + 1)  # a clock that wakes us a hair early must not make us spin
        behind_ms = max(behind_ms, now_ms - float(due_ms[sent]))
        sender.send(chunk, sent, stop)
        sent = stop
    return behind_ms
