"""One drain by several members of a group, timed over a window in which all of them are at work.

The backlog is sent when every member owns its share of the partitions, the clock starts with a commit after the
sending, and no partition runs out before it stops: neither joining nor a lonely last partition is measured.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadgen.bench.broker import GroupOffsets, shares
from loadgen.bench.contenders import Started
from loadgen.bench.peer_process import ContenderFailed, PeerProcess
from loadgen.bench.slow_model import SCALE_PARTITIONS
from loadgen.bench.worker_settings import Lane
from loadgen.kafka_client import KafkaOptions, Topics

SETTLE_TIMEOUT_S = 120.0
STALL_TIMEOUT_S = 60.0
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Crew:
    """processes: what is started, with the log of each. members: of the group they make."""

    processes: Sequence[tuple[Started, Path]]
    members: int


@dataclass(frozen=True, slots=True)
class Scaled:
    """events: committed while the clock ran, over `seconds`. cpu_share: CPUs in use, all processes together."""

    events: int
    seconds: float
    events_per_s: float
    cpu_s_per_million: float
    cpu_share: float


def scale_run(lane: Lane, crew: Crew, window_s: float, send: Callable[[], None]) -> Scaled:
    """Measure. send: puts the backlog into the lane's input and returns when all of it is there.

    Raises ContenderFailed if a process ends, the group does not settle, or the backlog was too small.
    """
    kafka = KafkaOptions(lane.bootstrap)
    with ExitStack() as running:
        peers = [
            running.enter_context(PeerProcess(started.command, started.environment, log))
            for started, log in crew.processes
        ]
        _wait_until_settled(kafka, lane.group, crew.members, peers)
        send()
        offsets = GroupOffsets(kafka, lane.group, lane.input)
        running.callback(offsets.close)
        first = _next_commit(offsets, offsets.committed(), peers)
        start, cpu = time.perf_counter(), _cpu_s(peers)
        while time.perf_counter() - start < window_s:
            time.sleep(LOOK_S)
            for peer in peers:
                peer.check()
        last = _next_commit(offsets, offsets.committed(), peers)
        seconds, cpu = time.perf_counter() - start, _cpu_s(peers) - cpu
        _check_that_all_have_work(Topics(kafka).end_offsets(lane.input), offsets.by_partition())
        for peer, (started, _) in zip(peers, crew.processes, strict=True):
            peer.stop(must_end_well=started.ends_well)
    events = last - first
    return Scaled(
        events=events,
        seconds=round(seconds, 4),
        events_per_s=round(events / seconds, 1),
        cpu_s_per_million=round(cpu / events * 1e6, 4),
        cpu_share=round(cpu / seconds, 4),
    )


def settled(owned: Sequence[int], members: int) -> bool:
    """Whether these are equal shares of all partitions, one for each member."""
    return len(owned) == members and set(owned) == {SCALE_PARTITIONS // members}


def _wait_until_settled(kafka: KafkaOptions, group: str, members: int, peers: Sequence[PeerProcess]) -> None:
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while not settled(owned := shares(kafka, group), members):
        for peer in peers:
            peer.check()
        if time.monotonic() > deadline:
            raise ContenderFailed(f"after {SETTLE_TIMEOUT_S:g} s its members own {owned}:\n{peers[0].tail()}")
        time.sleep(0.2)


def _next_commit(offsets: GroupOffsets, known: int, peers: Sequence[PeerProcess]) -> int:
    """The first sum of committed offsets beyond this one."""
    deadline = time.monotonic() + STALL_TIMEOUT_S
    while (now := offsets.committed()) <= known:
        for peer in peers:
            peer.check()
        if time.monotonic() > deadline:
            raise ContenderFailed(f"{now:,} committed, and nothing for {STALL_TIMEOUT_S:g} s:\n{peers[0].tail()}")
        time.sleep(LOOK_S)
    return now


def _check_that_all_have_work(ends: dict[int, int], committed: dict[int, int]) -> None:
    done = sorted(number for number, end in ends.items() if committed.get(number, 0) >= end)
    if done:
        raise ContenderFailed(f"the backlog was too small: partitions {done} were drained before the clock stopped")


def _cpu_s(peers: Sequence[PeerProcess]) -> float:
    return sum(peer.cpu_s() for peer in peers)
