"""One run at a steady rate: how long from the time an event was meant to be sent until a reader has its output.

Outputs are matched by their key, which every contender keeps and no two events share; what is in them does not
matter, so the same ruler fits all. Events are sent by `loadgen produce`, a process of its own, open loop: a stall
counts against every event that was due during it. The reader sees committed records only.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.bench.contenders import Started
from loadgen.bench.peer_process import ContenderFailed, PeerProcess, clean_environment
from loadgen.bench.worker_settings import MODEL, Lane
from loadgen.errors import LoadgenError
from loadgen.kafka_client import KafkaOptions, Topics
from loadgen.latency import summarize
from loadgen.pacing import Pace, Schedule
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Extent
from loadgen.reading import TopicReader
from loadgen.schema_source import SchemaOptions

PROBES = 50  # events whose outputs say that a contender is at work
READY_TIMEOUT_S = 90.0
QUIET_S = 10.0  # nothing new for so long after the last event was sent: the rest is lost
LOOK_S = 0.05
KEY_PREFIX = len(b"cust-")

Received = tuple[float, list[bytes | None]]  # wall clock in ms, keys
Look = Callable[[PeerProcess], None]


def _no_look(_peer: PeerProcess) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Load:
    """rate: events per second. seconds: that are measured, after warmup_s that are not."""

    rate: int
    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Timed:
    """latency_ms: of each event after the warm-up, in the order of sending; NaN where there was no output."""

    latency_ms: NDArray[np.float64]
    cpu_share: float
    sender_behind_max_ms: float


def latency_run(lane: Lane, started: Started, load: Load, schemas: Path, log: Path) -> dict[str, Any]:
    """Milliseconds (p50, p99, p99_9, max), events measured and missing, CPU share, the sender's greatest lateness.

    Raises ContenderFailed if the contender ends or never answers.
    """
    return latency_figures(timed_run(lane, started, load, schemas, log), load)


def timed_run(
    lane: Lane, started: Started, load: Load, schemas: Path, log: Path, *, warm: Look = _no_look, done: Look = _no_look
) -> Timed:
    """Run it. warm: called when the warm-up is over; done: when the last output was read, both once.

    Raises ContenderFailed if the contender ends or never answers.
    """
    kafka = KafkaOptions(lane.bootstrap)
    reader = TopicReader(kafka, lane.output, dict.fromkeys(Topics(kafka).partitions(lane.output), 0))
    try:
        with PeerProcess(started.command, started.environment, log) as peer:
            _wait_until_it_answers(lane, reader, schemas, peer)
            cpu, start = peer.cpu_s(), time.perf_counter()
            sent, received = _send_and_read(lane, load, schemas, reader, peer, warm)
            cpu_share = (peer.cpu_s() - cpu) / (time.perf_counter() - start)
            done(peer)
            peer.stop(must_end_well=started.ends_well)
    finally:
        reader.close()
    due_ms = due_times_ms(load, float(sent["start_ms"]))
    latency_ms = latencies(due_ms, received)[int(load.rate * load.warmup_s) :]
    return Timed(latency_ms, cpu_share, sent["behind_max_ms"])


def latency_figures(timed: Timed, load: Load) -> dict[str, Any]:
    """What is written down of a run. Raises ContenderFailed if there is nothing."""
    there = timed.latency_ms[~np.isnan(timed.latency_ms)]
    summary = summarize(there, "received")
    if summary is None:
        raise ContenderFailed("no event got an output")
    figures = asdict(summary)
    return {
        "rate": load.rate,
        **{name: figures[name] for name in ("p50", "p90", "p99", "p99_9", "max", "curve")},
        "measured": len(there),
        "missing": len(timed.latency_ms) - len(there),
        "cpu_share": round(timed.cpu_share, 4),
        "sender_behind_max_ms": timed.sender_behind_max_ms,
    }


def due_times_ms(load: Load, start_ms: float) -> NDArray[np.float64]:
    """When event i was meant to be sent: the sender's own schedule, walked again."""
    pace = Pace(rate=float(load.rate))
    total = pace.total(load.seconds + load.warmup_s)
    horizon_ms = int((load.seconds + load.warmup_s) * 1000) + 1
    return Schedule(pace, total).take(horizon_ms, total).astype(np.float64) + start_ms


def latencies(due_ms: NDArray[np.float64], received: Sequence[Received]) -> NDArray[np.float64]:
    """Of event i, from its due time to the first receipt of its key; NaN where there was none."""
    first = np.full(len(due_ms), np.nan)
    for received_ms, keys in reversed(received):  # the earliest is written last, and stays
        numbers = np.array([int(key[KEY_PREFIX:]) for key in keys if key is not None], dtype=np.int64)
        first[numbers[numbers < len(due_ms)]] = received_ms
    return first - due_ms


def _wait_until_it_answers(lane: Lane, reader: TopicReader, schemas: Path, peer: PeerProcess) -> None:
    kafka, extent = KafkaOptions(lane.bootstrap), Extent(PROBES)
    ProducePlan(MODEL, lane.input, kafka, SchemaOptions(schemas), Pace(), extent).run(lambda _: None)
    answered, deadline = 0, time.monotonic() + READY_TIMEOUT_S
    while answered < PROBES:
        peer.check()
        if time.monotonic() > deadline:
            raise ContenderFailed(f"{answered} of {PROBES} probes answered in {READY_TIMEOUT_S:g} s:\n{peer.tail()}")
        answered += len(reader.read(LOOK_S))
    end = time.monotonic() + 1.0  # an at-least-once contender may answer a probe twice; no later than this
    while time.monotonic() < end:
        reader.read(LOOK_S)


def _send_and_read(
    lane: Lane, load: Load, schemas: Path, reader: TopicReader, peer: PeerProcess, warm: Look
) -> tuple[dict[str, Any], list[Received]]:
    duration_s = load.seconds + load.warmup_s
    command = [
        sys.executable, "-m", "loadgen", "produce", *_where(lane, schemas),
        "--rate", str(load.rate), "--duration", str(duration_s), "--json",
    ]  # fmt: skip
    received: list[Received] = []
    wanted, seen = Pace(rate=float(load.rate)).total(duration_s), 0
    warm_at: float | None = None  # once the first output has come
    with subprocess.Popen(  # noqa: S603 - nothing goes through a shell
        command, stdout=subprocess.PIPE, text=True, env=clean_environment({})
    ) as sender:
        try:
            quiet_since = time.monotonic()
            while seen < wanted and (sender.poll() is None or time.monotonic() - quiet_since < QUIET_S):
                records = reader.read(LOOK_S)
                if len(records):
                    received.append((records.received_ms, records.keys))
                    seen += len(records)
                    quiet_since = time.monotonic()
                    warm_at = quiet_since + load.warmup_s if len(received) == 1 else warm_at
                elif sender.poll() is None:
                    quiet_since = time.monotonic()
                    peer.check()
                if warm_at is not None and time.monotonic() >= warm_at:
                    warm(peer)
                    warm_at = None
            printed = sender.communicate()[0]
        except BaseException:
            sender.kill()
            raise
    if sender.returncode:
        raise LoadgenError(f"sending failed with status {sender.returncode}")
    sent: dict[str, Any] = json.loads(printed)["produced"]
    return sent, received


def _where(lane: Lane, schemas: Path) -> list[str]:
    return ["--bootstrap", lane.bootstrap, "--topic", lane.input, "--schemas", str(schemas)]
