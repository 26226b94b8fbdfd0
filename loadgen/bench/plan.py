"""What a sitting measures, as plain data. Every default is the full sitting's; `quick` cuts it to a few minutes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from loadgen.bench.slow_model import SLOW_SECTIONS, ObjectivePlan, ScalePlan, SlowWorker
from loadgen.errors import BadOption

SECTIONS: Mapping[str, str] = {
    "drain": "a backlog, the logistic model: events per second, CPU time, memory",
    "latency": "fixed rates: from the intended send to the receipt by a reader",
    "batch": "the worker's throughput by batch size",
    "forest": "a backlog, a forest of 100 trees, beside ONNX Runtime alone",
    **SLOW_SECTIONS,
}
WITHOUT_SLOW = tuple(name for name in SECTIONS if name not in SLOW_SECTIONS)
WORKERS = ("exactly_once", "at_least_once")  # the worker, by delivery mode
PEERS: Mapping[str, str] = {
    "exactly_once": "**the worker**, exactly once",
    "at_least_once": "**the worker**, at least once",
    "naive": "naive loop: poll, fastavro, one row at a time",
    "fastavro": "careful loop: fastavro, batches of 500",
    "faust": "faust-streaming, `take(256)`",
    "quix": "quixstreams, batching sink",
    "forward": "bare pass-through: no decoding, no model",
}
EXTERNAL = "external"
EVENTS: Mapping[str, int] = {
    "exactly_once": 3_000_000,
    "at_least_once": 3_000_000,
    "naive": 500_000,
    "fastavro": 3_000_000,
    "faust": 100_000,
    "quix": 500_000,
    "forward": 3_000_000,
    EXTERNAL: 3_000_000,
}
T = TypeVar("T")
FOREST_PEERS = ("exactly_once", "at_least_once", "fastavro")
MOST_EVENTS = 100_000_000


@dataclass(frozen=True, slots=True)
class External:
    """A further contender for drains: a command that is told by BENCH_… variables, as the peers are.

    topic: what it reads, if not the same events as all: a topic on the given broker that holds its events.
    """

    name: str
    command: tuple[str, ...]
    topic: str | None = None

    def __post_init__(self) -> None:
        if self.name in PEERS or not self.name.replace("_", "").replace("-", "").isalnum():
            raise BadOption(f"--external: {self.name!r} is taken or no plain name")


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """events: to drain, by contender. rounds: each measures every contender once, in a turning order.

    batch_sizes, batch_events: of the worker's curve. latency_wait_s: how long batches may wait in latency runs.
    worker_set: settings of the worker by dotted path, in all runs; latency_set: in latency runs, on top of those.
    slow: what the sections with a model of fixed cost need; objective, scale: what they measure.
    """

    sections: tuple[str, ...] = WITHOUT_SLOW
    peers: tuple[str, ...] = tuple(PEERS)
    rounds: int = 5
    events: Mapping[str, int] = field(default_factory=lambda: dict(EVENTS))
    forest_events: int = 500_000
    rates: tuple[int, ...] = (100, 1_000, 10_000)
    seconds: float = 30.0
    warmup_s: float = 5.0
    latency_wait_s: float = 0.002
    batch_sizes: tuple[int, ...] = (8, 32, 128, 512, 2048, 8192)
    batch_events: int = 500_000
    verify: bool = True
    worker_set: Mapping[str, Any] = field(default_factory=dict)
    latency_set: Mapping[str, Any] = field(default_factory=dict)
    external: External | None = None
    slow: SlowWorker | None = None
    objective: ObjectivePlan = field(default_factory=ObjectivePlan)
    scale: ScalePlan = field(default_factory=ScalePlan)

    def __post_init__(self) -> None:
        _known("--only", self.sections, SECTIONS)
        _known("--peers", self.peers, PEERS)
        if self.slow is None and (needy := [name for name in self.sections if name in SLOW_SECTIONS]):
            raise BadOption(f"--only {','.join(needy)} needs --slow-worker")
        if not 1 <= self.rounds <= 100:
            raise BadOption(f"--pairs {self.rounds}: 1 to 100")
        _known("--count", tuple(self.events), EVENTS)
        counts = {**self.events, "forest": self.forest_events, "batch": self.batch_events}
        for name, count in counts.items():
            if not 1_000 <= count <= MOST_EVENTS:
                raise BadOption(f"--count {name}={count}: 1,000 to {MOST_EVENTS:,} events")
        if not self.rates or not all(1 <= rate <= 1_000_000 for rate in self.rates):
            raise BadOption("--rates: events per second, 1 to 1,000,000 each, e.g. 100,1000")
        if not self.batch_sizes or not all(1 <= size <= 100_000 for size in self.batch_sizes):
            raise BadOption("--batch-sizes: records, 1 to 100,000 each, e.g. 32,512")
        if not 1 <= self.seconds <= 3600 or not 0 <= self.warmup_s < 600:
            raise BadOption("--seconds: 1 to 3600; --warmup: 0 to 600")
        if not 0 <= self.latency_wait_s <= 1:
            raise BadOption("--latency-wait: 0 to 1 second")

    def drained(self) -> dict[str, int]:
        """Contenders of the drain section and their events, in the order of the first round."""
        counts = {name: self.events[name] for name in self.peers}
        if self.external:
            counts[self.external.name] = self.events[EXTERNAL]
        return counts

    def forest_contenders(self) -> tuple[str, ...]:
        """The peers that drain with the forest."""
        return tuple(name for name in FOREST_PEERS if name in self.peers)

    def fewer_rounds(self) -> int:
        """Rounds of the sections that measure a contender several times in each: they would take hours otherwise."""
        return min(self.rounds, 3)

    def curve_mode(self) -> str:
        """The delivery mode of the batch-size curve: exactly once unless only the other is asked for."""
        return next((mode for mode in WORKERS if mode in self.peers), WORKERS[0])

    def curve_events(self, size: int) -> int:
        """Small batches are slow, and as exact with fewer events."""
        return min(self.batch_events, max(1_000, 5_000 * size))

    def backlogs(self) -> set[int]:
        """The distinct sizes of backlog the sections need."""
        needed = set()
        if "drain" in self.sections:
            needed |= {self.events[name] for name in self.peers}
            if self.external and self.external.topic is None:
                needed.add(self.events[EXTERNAL])
        if "forest" in self.sections:
            needed.add(self.forest_events)
        if "batch" in self.sections:
            needed |= {self.curve_events(size) for size in self.batch_sizes}
        return needed

    def quick(self) -> "BenchPlan":
        """The same sections and peers in a few minutes; figures to look at, not to quote."""
        return replace(
            self,
            rounds=min(self.rounds, 2),
            events={name: min(count, QUICK_EVENTS[name]) for name, count in self.events.items()},
            forest_events=min(self.forest_events, 50_000),
            rates=tuple(rate for rate in self.rates if rate <= 1_000) or self.rates[:1],
            seconds=min(self.seconds, 5.0),
            warmup_s=min(self.warmup_s, 1.0),
            batch_sizes=tuple(size for size in self.batch_sizes if size in QUICK_SIZES) or self.batch_sizes[:1],
            batch_events=min(self.batch_events, 100_000),
            objective=self.objective.quick(),
            scale=self.scale.quick(),
        )


QUICK_EVENTS: Mapping[str, int] = {
    "exactly_once": 200_000,
    "at_least_once": 200_000,
    "naive": 20_000,
    "fastavro": 100_000,
    "faust": 10_000,
    "quix": 50_000,
    "forward": 500_000,
    EXTERNAL: 200_000,
}
QUICK_SIZES = (32, 512)


def turns(names: Sequence[T], rounds: int) -> list[tuple[int, T]]:
    """(round, name): every one once a round, each round beginning one further along.

    A machine that slows down over the sitting slows all of them down alike.
    """
    return [(number, names[(place + number) % len(names)]) for number in range(rounds) for place in range(len(names))]


def _known(option: str, names: tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise BadOption(f"{option}: {name!r} is not one of {', '.join(known)}")
    if not names:
        raise BadOption(f"{option}: at least one of {', '.join(known)}")
    if len(set(names)) != len(names):
        raise BadOption(f"{option}: a name occurs twice in {','.join(names)}")
