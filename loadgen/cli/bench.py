"""`loadgen bench`."""

import json
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from loadgen.bench.broker import broker
from loadgen.bench.commands import beside_python
from loadgen.bench.contenders import Contenders
from loadgen.bench.figures import write_figures
from loadgen.bench.page import write_page
from loadgen.bench.plan import EVENTS, PEERS, SECTIONS, WITHOUT_SLOW, BenchPlan, External
from loadgen.bench.results import Results
from loadgen.bench.sitting import Sitting
from loadgen.bench.words import FOLDER
from loadgen.cli import slow_options as so
from loadgen.cli.options import SchemasOption
from loadgen.cli.output import EXIT_FAILED, named_errors
from loadgen.errors import BadOption

FULL = BenchPlan()
OUT, QUICK_OUT, WORK = Path("docs"), Path("var/bench"), Path("var/bench")


def bench(
    *,
    bootstrap: Annotated[
        str | None,
        typer.Option(
            "--bootstrap",
            metavar="HOST:PORT,…",
            help="Kafka to measure on; topics are made and deleted there. Without it one is started for the sitting.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="A,B", help=f"Sections: {', '.join(SECTIONS)}. All it can if not given."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option("--peers", metavar="A,B", help=f"Contenders: {', '.join(PEERS)}. All if not given."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few minutes: small counts, two rounds. To look at, not to quote.")
    ] = False,
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs",
            help="Rounds: each measures every contender once, ratios are within it. Latency, batch sizes: 3 at most.",
        ),
    ] = FULL.rounds,
    count: Annotated[
        list[str] | None,
        typer.Option("--count", metavar="NAME=EVENTS", help="To drain by a contender, e.g. faust=50000. Repeat."),
    ] = None,
    forest_events: Annotated[
        int, typer.Option("--forest-events", help="To drain with the forest, e.g. 200000.")
    ] = FULL.forest_events,
    rates: Annotated[
        str, typer.Option("--rates", metavar="A,B", help="Events per second of the latency runs.")
    ] = ",".join(map(str, FULL.rates)),
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each latency run is measured, e.g. 20.")
    ] = FULL.seconds,
    warmup: Annotated[
        float, typer.Option("--warmup", metavar="SECONDS", help="Sent before that and left out, e.g. 5.")
    ] = FULL.warmup_s,
    latency_wait: Annotated[
        float,
        typer.Option("--latency-wait", metavar="SECONDS", help="Batches may wait so long in latency runs, e.g. 0.002."),
    ] = FULL.latency_wait_s,
    worker_set: Annotated[
        list[str] | None,
        typer.Option(
            "--worker-set", metavar="PATH=VALUE", help="A setting of the worker in all runs, e.g. worker.processes=2."
        ),
    ] = None,
    latency_set: Annotated[
        list[str] | None,
        typer.Option(
            "--latency-set", metavar="PATH=VALUE", help="In latency runs only, e.g. pipelines.batch.slo_s=0.01. Repeat."
        ),
    ] = None,
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", metavar="A,B", help="Of the worker's curve.")] = ",".join(
        map(str, FULL.batch_sizes)
    ),
    batch_events: Annotated[
        int, typer.Option("--batch-events", help="To drain with each batch size; small ones take fewer.")
    ] = FULL.batch_events,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify every event of the worker's first drain in each mode.")
    ] = True,
    external: Annotated[
        str | None,
        typer.Option(
            "--external",
            metavar="NAME=COMMAND",
            help="A further contender for drains, told by BENCH_BOOTSTRAP, _INPUT, _OUTPUT, _GROUP, _MODEL (a folder "
            "with model.onnx), _SCHEMAS, _BATCH, _WAIT_S, _LINGER_MS, _COMMIT_S, e.g. mine='python my_loop.py'.",
        ),
    ] = None,
    external_topic: Annotated[
        str | None,
        typer.Option("--external-topic", metavar="TOPIC", help="It reads this one, which holds its own events."),
    ] = None,
    slow: so.SlowWorkerOption = None,
    slow_cost: so.SlowCostOption = so.SLOW_COST,
    slo: so.SloOption = so.OBJECTIVE.slo_s,
    fixed_waits: so.FixedWaitsOption = so.FIXED_WAITS,
    loads: so.LoadsOption = so.LOADS,
    objective_modes: so.ObjectiveModesOption = so.OBJECTIVE_MODES,
    step_seconds: so.StepSecondsOption = so.OBJECTIVE.seconds,
    step_warmup: so.StepWarmupOption = so.OBJECTIVE.warmup_s,
    workers: so.WorkersOption = so.WORKERS,
    scale_seconds: so.ScaleSecondsOption = so.SCALE.window_s,
    worker: Annotated[
        Path | None,
        typer.Option("--worker", metavar="PROGRAM", help="inference-worker; the one of this environment if not given."),
    ] = None,
    schemas: SchemasOption = Path("schemas"),
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Models, logs, the broker's data, quixstreams' environment.")
    ] = WORK,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help=f"BENCHMARKS.md and {FOLDER}/ go there; {OUT}, or {QUICK_OUT} with --quick, if not given.",
        ),
    ] = None,
) -> None:
    """Measure the worker beside what users would pick instead, in one sitting on one broker.

    Runs are written down as they come; a sitting that is cut short keeps what it has, and one with --only replaces
    those sections and keeps the others. Exit 1 if a contender failed.

    Example: loadgen bench --only drain,latency --peers exactly_once,naive,forward --pairs 3
    """
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    with named_errors():
        plan = BenchPlan(
            sections=_names(only, WITHOUT_SLOW if slow is None else SECTIONS),
            peers=_names(peers, PEERS),
            rounds=pairs,
            events={**EVENTS, **_counts(count or [])},
            forest_events=forest_events,
            rates=_numbers("--rates", rates),
            seconds=seconds,
            warmup_s=warmup,
            latency_wait_s=latency_wait,
            batch_sizes=_numbers("--batch-sizes", batch_sizes),
            batch_events=batch_events,
            verify=verify,
            worker_set=_settings("--worker-set", worker_set or []),
            latency_set=_settings("--latency-set", latency_set or []),
            external=_external(external, external_topic, bootstrap),
            slow=so.slow_worker(slow, slow_cost),
            objective=so.objective_plan(
                slo_s=slo,
                fixed_waits=fixed_waits,
                loads=loads,
                modes=objective_modes,
                seconds=step_seconds,
                warmup_s=step_warmup,
            ),
            scale=so.scale_plan(workers=workers, window_s=scale_seconds, rounds=pairs),
        )
        plan = plan.quick() if quick else plan
        program = str(worker) if worker else beside_python("inference-worker")
        contenders = Contenders(program, schemas, work.absolute(), plan.external)
        folder = out or (QUICK_OUT if quick else OUT)
        results = Results(folder / FOLDER / "results.json")
        signal.signal(signal.SIGTERM, _interrupted)
        try:
            with broker(bootstrap, work / "stack") as servers:
                sitting = Sitting(plan, servers, contenders, results, say)
                sitting.run()
        finally:
            if results.sections:
                write_figures(folder / FOLDER, results.sections)
                write_page(folder / "BENCHMARKS.md", results.sections)
                say(f"written: {folder / 'BENCHMARKS.md'} and {folder / FOLDER}/")
    if sitting.failures:
        raise typer.Exit(EXIT_FAILED)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that the broker and the contender end with us


def _names(given: str | None, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",")) if given is not None else tuple(known)


def _numbers(option: str, given: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(number.replace("_", "")) for number in given.split(",")}))
    except ValueError as error:
        raise BadOption(f"{option} {given!r}: whole numbers with commas between, e.g. 100,1000") from error


def _counts(given: list[str]) -> dict[str, int]:
    counts = {}
    for entry in given:
        name, equals, number = entry.partition("=")
        if not equals or not number.isdigit():
            raise BadOption(f"--count {entry!r}: NAME=EVENTS is needed, e.g. faust=50000")
        counts[name.strip()] = int(number)
    return counts


def _settings(option: str, given: list[str]) -> dict[str, Any]:
    """Values are YAML's plain ones as far as JSON has them, else text."""
    found: dict[str, Any] = {}
    for entry in given:
        path, equals, text = entry.partition("=")
        if not equals or not all(path.split(".")):
            raise BadOption(f"{option} {entry!r}: PATH=VALUE is needed, e.g. worker.processes=2")
        try:
            found[path] = json.loads(text)
        except ValueError:
            found[path] = text
    return found


def _external(given: str | None, topic: str | None, bootstrap: str | None) -> External | None:
    if given is None:
        if topic is not None:
            raise BadOption("--external-topic is only for --external")
        return None
    if topic is not None and bootstrap is None:
        raise BadOption("--external-topic needs --bootstrap: the broker that has it")
    name, equals, command = given.partition("=")
    words = tuple(shlex.split(command))
    if not name or not equals or not words:
        raise BadOption(f"--external {given!r}: NAME=COMMAND is needed, e.g. mine='python my_loop.py'")
    return External(name, words, topic)
