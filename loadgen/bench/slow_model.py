"""The sections with a model of fixed cost, as plain data: what it costs, and what is swept.

Broker, load and worker share a machine, so a model that computes would be measured against all of them. One that
waits takes the time of a large model and leaves the cores alone: what is seen is what the worker does around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loadgen.errors import BadOption

SLOW_SECTIONS: Mapping[str, str] = {
    "objective": "batch.slo_s beside fixed waits, by load, with a model of fixed cost",
    "scale": "1, 2 and 4 workers, and processes, with a model of fixed cost",
}
SCALE_PARTITIONS = 8
MODES = ("exactly_once", "at_least_once")


@dataclass(frozen=True, slots=True)
class SlowWorker:
    """A worker whose model takes batch_s + row_s · rows for a batch, waiting.

    command: what is followed by `run --config FILE`; it is told by BENCH_BATCH_COST_S and BENCH_ROW_COST_S.
    """

    command: tuple[str, ...]
    batch_s: float = 0.002
    row_s: float = 0.00018

    def __post_init__(self) -> None:
        if not self.command:
            raise BadOption("--slow-worker: a command is needed")
        if not (0 <= self.batch_s <= 10 and 0 <= self.row_s <= 10 and self.batch_s + self.row_s > 0):
            raise BadOption("--slow-cost: seconds per batch and per row, 0 to 10 and not both 0, e.g. 0.002,0.00018")

    def capacity(self, rows: int) -> float:
        """Rows per second of the model alone in batches of `rows`: computed, and never reached quite."""
        return rows / (self.batch_s + self.row_s * rows)

    def environment(self) -> dict[str, str]:
        """What it is told."""
        return {"BENCH_BATCH_COST_S": repr(self.batch_s), "BENCH_ROW_COST_S": repr(self.row_s)}


@dataclass(frozen=True, slots=True)
class ObjectivePlan:
    """slo_s: the objective. waits_s: of the fixed policies beside it. loads: per cent of the model's capacity."""

    slo_s: float = 0.1
    waits_s: tuple[float, ...] = (0.002, 0.05)
    loads: tuple[int, ...] = (1, 5, 10, 20, 40, 60, 80, 90)
    modes: tuple[str, ...] = MODES[:1]
    seconds: float = 15.0
    warmup_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0.001 <= self.slo_s <= 60 or not all(0 <= wait_s <= 10 for wait_s in self.waits_s):
            raise BadOption("--slo: 0.001 to 60 seconds; --fixed-waits: 0 to 10 seconds each")
        if not self.loads or not all(1 <= load <= 200 for load in self.loads):
            raise BadOption("--loads: per cent of the capacity, 1 to 200 each, e.g. 10,50,90")
        if not self.modes or not set(self.modes) <= set(MODES):
            raise BadOption(f"--objective-modes: of {', '.join(MODES)}")
        if not 1 <= self.seconds <= 3600 or not 0 <= self.warmup_s < 600:
            raise BadOption("--step-seconds: 1 to 3600; --step-warmup: 0 to 600")

    def policies(self) -> dict[str, dict[str, float]]:
        """Settings of `pipelines.batch`, by the name of the policy; the objective first."""
        told = [{"slo_s": self.slo_s}, *({"max_wait_s": wait_s} for wait_s in self.waits_s)]
        return {", ".join(f"{name}: {value:g}" for name, value in one.items()): one for one in told}

    def rate(self, load: int, capacity: float) -> int:
        """Events per second of one step."""
        return max(1, round(capacity * load / 100))

    def quick(self) -> "ObjectivePlan":
        """Three loads, a few seconds each."""
        few = tuple(load for load in self.loads if load in QUICK_LOADS) or self.loads[:1]
        return replace(
            self,
            loads=few,
            waits_s=self.waits_s[:1],
            seconds=min(self.seconds, 5.0),
            warmup_s=min(self.warmup_s, 2.0),
        )


QUICK_LOADS = (1, 20, 80)


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """workers: how many in one group. window_s: of a drain that goes on before and after. rounds: of all of them."""

    workers: tuple[int, ...] = (1, 2, 4)
    window_s: float = 15.0
    rounds: int = 3

    def __post_init__(self) -> None:
        if not self.workers or not all(SCALE_PARTITIONS % number == 0 for number in self.workers if number):
            raise BadOption(f"--workers: each must divide the {SCALE_PARTITIONS} partitions, e.g. 1,2,4")
        if min(self.workers) < 1:
            raise BadOption("--workers: 1 or more each")
        if not 1 <= self.window_s <= 600 or not 1 <= self.rounds <= 100:
            raise BadOption("--scale-seconds: 1 to 600")

    def shapes(self) -> list[tuple[str, int]]:
        """(how, workers): one worker alone, then several as separate workers and as processes of one."""
        several = [number for number in self.workers if number > 1]
        alone = [("workers", 1)] if 1 in self.workers else []
        return [*alone, *((how, number) for number in several for how in ("workers", "processes"))]

    def events(self, workers: int, capacity: float) -> int:
        """Enough that no partition runs out: a third more than the window takes, and what goes before it."""
        return int(workers * capacity * (self.window_s * 1.35 + BEFORE_WINDOW_S))

    def quick(self) -> "ScalePlan":
        """One round of short windows."""
        return replace(self, rounds=1, window_s=min(self.window_s, 4.0))


BEFORE_WINDOW_S = 8.0  # sending the backlog, and the first commits
