"""Mutated datums through the real decoders: `python -m tests.fuzz.decoders --datums 1000000 --seed 1`.

Processes of their own decode, with a bound on their memory; this one only watches. A finding is a broken law (see
judgement.py), an exception, the death of a process, or a batch that takes longer than it may. Then the batch is
written to a file, `--replay FILE` checks it again, and the exit status is 1. The same seed gives the same batches.
"""

import argparse
import math
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from app.errors import Reason
from tests.fuzz.batches import Batch, batch_of, batches_of, read, write
from tests.fuzz.judgement import Judge

MEMORY_BYTES = 1_500_000_000  # above what a process has once everything is imported
BATCH_TIMEOUT_S = 60.0  # the slowest take 1 s; a machine may be busy
FINDINGS = Path(__file__).parents[2] / "var" / "fuzz"


@dataclass(slots=True)
class Tally:
    """What a lane did: mutated and valid datums, outcomes of the mutated ones, and the memory it took."""

    mutated: int = 0
    valid: int = 0
    batches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    grown_bytes: int = 0
    slowest_s: float = 0.0

    def add(self, other: "Tally") -> None:
        self.mutated += other.mutated
        self.valid += other.valid
        self.batches += other.batches
        self.outcomes += other.outcomes
        self.grown_bytes = max(self.grown_bytes, other.grown_bytes)
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(slots=True)
class Lane:
    """A process that decodes, and the batch it has under way."""

    process: SpawnProcess
    connection: Connection
    turn: int = 0
    batch: int = 0
    since: float = field(default_factory=time.monotonic)


# ------------------------------------------------------------------------------------------ in the process


def _decode(connection: Connection, seed: int, lane: int, lanes: int, replay: Path | None) -> None:
    """Tell what is under way before it is, and the tally or the finding after it."""
    _rss_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES,) * 2)
    before = _rss_bytes()
    for turn, batches in _turns(seed, lane, lanes, replay):
        judge: Judge | None = None
        for number, batch in enumerate(batches):
            connection.send((turn, number))
            started = time.monotonic()
            try:
                judge = judge or Judge(batch.stream)
                verdicts = judge.check(batch.values, batch.mutated, all_alone=replay is not None)
            except BaseException:  # noqa: BLE001 - a panic in Rust is not even an Exception
                connection.send(traceback.format_exc())
                return
            outcomes = Counter(
                verdict.value if isinstance(verdict, Reason) else "decoded"
                for verdict, bad in zip(verdicts, batch.mutated, strict=True)
                if bad
            )
            spoilt, took = sum(batch.mutated), time.monotonic() - started
            connection.send(Tally(spoilt, len(batch.values) - spoilt, 1, outcomes, max(0, _rss_bytes() - before), took))
    connection.send(None)


def _turns(seed: int, lane: int, lanes: int, replay: Path | None) -> Iterator[tuple[int, Iterator[Batch]]]:
    if replay is not None:
        yield 0, iter([read(replay)])
        return
    turn = lane
    while True:
        yield turn, batches_of(seed, turn)
        turn += lanes


def _rss_bytes() -> int:
    """The most this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


# ------------------------------------------------------------------------------------------ watching


class Found(Exception):
    """A finding; the message says what it is."""

    def __init__(self, lane: Lane, why: str) -> None:
        super().__init__(why)
        self.lane = lane


def fuzz(datums: int, seconds: float, seed: int, lanes: int, replay: Path | None = None) -> Tally:
    """Until that many mutated datums were checked, or for that long. Raises Found."""
    context = multiprocessing.get_context("spawn")
    running: list[Lane] = []
    for number in range(lanes):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_decode, args=(theirs, seed, number, lanes, replay), daemon=True)
        process.start()
        theirs.close()
        running.append(Lane(process, ours))
    total = Tally()
    until = time.monotonic() + seconds
    try:
        while running and total.mutated < datums and time.monotonic() < until:
            ready = wait([lane.connection for lane in running], timeout=1.0)
            for lane in [lane for lane in running if lane.connection in ready]:
                if not _hear(lane, total):
                    running.remove(lane)
            for lane in running:
                if time.monotonic() - lane.since > BATCH_TIMEOUT_S:
                    raise Found(lane, f"no answer for {BATCH_TIMEOUT_S:.0f} s")
    finally:
        for lane in running:
            lane.process.kill()
            lane.process.join()
    return total


def _hear(lane: Lane, total: Tally) -> bool:
    """Take one message of a lane; False after its last. Raises Found."""
    try:
        message = lane.connection.recv()
    except EOFError:
        lane.process.join()
        raise Found(lane, f"the process died with status {lane.process.exitcode}") from None
    lane.since = time.monotonic()
    match message:
        case (int(turn), int(batch)):
            lane.turn, lane.batch = turn, batch
        case Tally():
            total.add(message)
        case str(why):
            raise Found(lane, why)
    return message is not None


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoders", description=__doc__)
    parser.add_argument("--datums", type=int, default=1_000_000, help="mutated ones; valid neighbours come on top")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop then, however few they were")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: random")
    parser.add_argument("--lanes", type=int, default=2, help="processes")
    parser.add_argument("--replay", type=Path, help="check the batch in this file again, nothing else")
    options = parser.parse_args()
    _tell(f"seed {options.seed}, {options.lanes} lanes" if options.replay is None else f"replay of {options.replay}")
    started = time.monotonic()
    try:
        lanes = 1 if options.replay else options.lanes
        total = fuzz(options.datums, options.seconds, options.seed, lanes, options.replay)
    except Found as found:
        _tell(f"FOUND: {found}")
        if options.replay is None:
            path = FINDINGS / f"{options.seed}-{found.lane.turn}-{found.lane.batch}.json"
            write(batch_of(options.seed, found.lane.turn, found.lane.batch), path)
            _tell(f"python -m tests.fuzz.decoders --replay {path}")
        return 1
    took = time.monotonic() - started
    _tell(f"mutated datums   {total.mutated:>10,}   {total.mutated / took:,.0f}/s")
    _tell(f"valid neighbours {total.valid:>10,}   in {total.batches:,} batches")
    for outcome, count in total.outcomes.most_common():
        _tell(f"  {outcome:<20} {count:>10,}")
    _tell(f"memory above the start, at its peak: {total.grown_bytes / 2**20:.0f} MiB a process")
    _tell(f"slowest batch: {total.slowest_s:.2f} s")
    _tell("no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
