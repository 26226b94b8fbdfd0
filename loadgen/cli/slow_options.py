"""Options of `loadgen bench` for the sections with a model of fixed cost, and the plans they become."""

import shlex
from typing import Annotated

import typer

from loadgen.bench.slow_model import ObjectivePlan, ScalePlan, SlowWorker
from loadgen.errors import BadOption

OBJECTIVE, SCALE = ObjectivePlan(), ScalePlan()
COST = SlowWorker(("unused",))


def _listed(values: tuple[float, ...] | tuple[int, ...] | tuple[str, ...]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


SlowWorkerOption = Annotated[
    str | None,
    typer.Option(
        "--slow-worker",
        metavar="COMMAND",
        help="For objective and scale: a worker, followed by `run --config FILE`, whose model takes what "
        "BENCH_BATCH_COST_S and BENCH_ROW_COST_S say, waiting, e.g. 'python -m tests.bench.fixed_cost_worker'.",
    ),
]
SlowCostOption = Annotated[
    str, typer.Option("--slow-cost", metavar="A,B", help="Seconds per batch and per row of that model.")
]
SLOW_COST = f"{COST.batch_s},{COST.row_s}"
SloOption = Annotated[float, typer.Option("--slo", metavar="SECONDS", help="The objective, batch.slo_s, e.g. 0.1.")]
FixedWaitsOption = Annotated[
    str, typer.Option("--fixed-waits", metavar="A,B", help="batch.max_wait_s of the policies beside the objective.")
]
FIXED_WAITS = _listed(OBJECTIVE.waits_s)
LoadsOption = Annotated[str, typer.Option("--loads", metavar="A,B", help="Per cent of the slow model's capacity.")]
LOADS = _listed(OBJECTIVE.loads)
ObjectiveModesOption = Annotated[
    str, typer.Option("--objective-modes", metavar="A,B", help="Delivery modes of the load sweep.")
]
OBJECTIVE_MODES = _listed(OBJECTIVE.modes)
StepSecondsOption = Annotated[
    float, typer.Option("--step-seconds", help="How long each step of the load sweep is measured, e.g. 15.")
]
StepWarmupOption = Annotated[
    float, typer.Option("--step-warmup", metavar="SECONDS", help="Sent before that and left out, e.g. 3.")
]
WorkersOption = Annotated[str, typer.Option("--workers", metavar="A,B", help="Workers of one group, in scale.")]
WORKERS = _listed(SCALE.workers)
ScaleSecondsOption = Annotated[
    float, typer.Option("--scale-seconds", help="How long each drain of scale is measured, e.g. 15.")
]


def slow_worker(command: str | None, cost: str) -> SlowWorker | None:
    """The worker with a model of fixed cost, if there is one. Raises BadOption."""
    numbers = _floats("--slow-cost", cost)
    if len(numbers) != 2:
        raise BadOption(f"--slow-cost {cost!r}: two numbers, seconds per batch and per row, e.g. {SLOW_COST}")
    if command is None:
        return None
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise BadOption(f"--slow-worker {command!r}: {error}") from error
    return SlowWorker(words, *numbers)


def objective_plan(
    *, slo_s: float, fixed_waits: str, loads: str, modes: str, seconds: float, warmup_s: float
) -> ObjectivePlan:
    """The load sweep. Raises BadOption."""
    return ObjectivePlan(
        slo_s=slo_s,
        waits_s=_floats("--fixed-waits", fixed_waits) if fixed_waits else (),
        loads=_whole("--loads", loads),
        modes=tuple(dict.fromkeys(name.strip() for name in modes.split(","))),
        seconds=seconds,
        warmup_s=warmup_s,
    )


def scale_plan(*, workers: str, window_s: float, rounds: int) -> ScalePlan:
    """How many workers, for how long. Raises BadOption."""
    return ScalePlan(_whole("--workers", workers), window_s, min(rounds, SCALE.rounds))


def _floats(option: str, given: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in given.split(","))
    except ValueError as error:
        raise BadOption(f"{option} {given!r}: numbers with commas between, e.g. 0.002,0.05") from error


def _whole(option: str, given: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(number) for number in given.split(",")}))
    except ValueError as error:
        raise BadOption(f"{option} {given!r}: whole numbers with commas between, e.g. 1,2,4") from error
