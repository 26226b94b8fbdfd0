"""One drain: a contender alone with a backlog, timed from outside, the same way for everybody.

The clock runs from the first output that is seen to the moment the group's committed offsets cover the backlog, so
that neither starting up nor joining the group counts, and delivering and committing do. What was already out at the
first look is taken off the count.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from loadgen.bench.broker import GroupOffsets, records_in
from loadgen.bench.contenders import Started
from loadgen.bench.peer_process import ContenderFailed, PeerProcess
from loadgen.bench.worker_settings import Lane
from loadgen.errors import BrokerFailed
from loadgen.kafka_client import KafkaOptions, Topics

START_TIMEOUT_S = 90.0
STALL_TIMEOUT_S = 60.0  # no commit for so long: it will not come
FIRST_LOOK_S = 0.005  # until something is out: what is out by then does not count
LOOK_S = 0.02

Watching = Callable[[PeerProcess], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Drained:
    """events: finished while the clock ran, over `seconds`."""

    events: int
    seconds: float
    events_per_s: float
    cpu_s_per_million: float
    peak_mb: float


def drain(lane: Lane, started: Started, backlog: int, log: Path, watching: Watching = nullcontext) -> Drained:
    """Measure one drain of the lane's input, which holds `backlog` events.

    watching: a block around the contender's work, from its start until it has committed everything.
    Raises ContenderFailed if the contender ends, stalls or leaves events without output.
    """
    kafka = KafkaOptions(lane.bootstrap)
    topics = Topics(kafka)
    offsets = GroupOffsets(kafka, lane.group, lane.input)
    try:
        with PeerProcess(started.command, started.environment, log) as peer:
            with watching(peer):
                before = _first_outputs(topics, lane.output, peer)
                start, cpu = time.perf_counter(), peer.cpu_s()
                _wait_until_committed(offsets, backlog, peer)
                seconds, cpu = time.perf_counter() - start, peer.cpu_s() - cpu
            peak_mb = peer.peak_mb()
            peer.stop(must_end_well=started.ends_well)
    finally:
        offsets.close()
    out = records_in(topics, lane.output)
    if out < backlog:
        raise ContenderFailed(f"it committed {backlog:,} events and left {out:,} predictions")
    events = backlog - before
    if events <= 0 or seconds <= 0:
        raise ContenderFailed(f"{backlog:,} events are too few: they were done before the first look")
    return Drained(
        events=events,
        seconds=round(seconds, 4),
        events_per_s=round(events / seconds, 1),
        cpu_s_per_million=round(cpu / events * 1e6, 4),
        peak_mb=round(peak_mb, 1),
    )


def _first_outputs(topics: Topics, topic: str, peer: PeerProcess) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (seen := _seen(topics, topic)) == 0:
        peer.check()
        if time.monotonic() > deadline:
            raise ContenderFailed(f"no output within {START_TIMEOUT_S:g} s:\n{peer.tail()}")
        time.sleep(FIRST_LOOK_S)
    return seen


def _seen(topics: Topics, topic: str) -> int:
    try:
        return records_in(topics, topic)
    except BrokerFailed:  # a busy broker may not tell a new topic's leaders at once; the deadline bounds this
        return 0


def _wait_until_committed(offsets: GroupOffsets, backlog: int, peer: PeerProcess) -> None:
    committed, moved_at = -1, time.monotonic()
    while (now := offsets.committed()) < backlog:
        peer.check()
        if now != committed:
            committed, moved_at = now, time.monotonic()
        elif time.monotonic() - moved_at > STALL_TIMEOUT_S:
            raise ContenderFailed(f"{now:,} of {backlog:,} committed, and nothing for {STALL_TIMEOUT_S:g} s")
        time.sleep(LOOK_S)
