"""The page's sections with a model of fixed cost: on time by load, and throughput by workers."""

from collections.abc import Sequence

from loadgen.bench.ratios import paired_ratio
from loadgen.bench.words import FOLDER, Run, Section, cell, cpus, ms, multiple, speeds, spread, where

HOW = {"workers": "separate workers", "processes": "`worker.processes` of one"}


def objective_lines(section: Section) -> list[str]:
    """A table per delivery mode, a row per load and policy."""
    settings = section["settings"]
    slo_ms = settings["slo_s"] * 1000
    how = (
        f"{_model(section)} Load in per cent of the {settings['capacity']:,.0f} events per second of that model in "
        f"batches of {settings['worker']['batch']['max_records']} (computed, so the worker's own work is not in it). "
        f"{settings['seconds']:g} s each after {settings['warmup_s']:g} s of warm-up, a new worker each time. On time: "
        f"with a `read_committed` reader within {slo_ms:g} ms of the intended send; the reader's own time counts, "
        "and an event without an output is late. Batches are the worker's own count."
    )
    lines = ["## A latency objective, by load", "", f"{where(section)} {how}", ""]
    for mode in settings["modes"]:
        lines += [
            f"`{mode}`:",
            "",
            f"| load | events/s | policy | within {slo_ms:g} ms | p50 / p99 ms | records a batch | batches/s |",
            "|---:|---:|---|---:|---:|---:|---:|",
            *(_objective_row(run) for run in section["runs"] if run["contender"] == mode),
            "",
        ]
    return [*lines, f"![p99 and batch size by load]({FOLDER}/objective.svg)"]


def _objective_row(run: Run) -> str:
    begins = f"| {run['load']} % | {run['events_per_s_due']:,} | `{run['policy']}` |"
    if "error" in run:
        return f"{begins} failed: {cell(run['error'])} | | | |"
    batch = f"{run['mean_batch']:.1f}" if run["mean_batch"] is not None else ""
    missing = f", {run['missing']:,} missing" if run["missing"] else ""
    return (
        f"{begins} {run['share_on_time'] * 100:.2f} %{missing} | {ms(run['p50'])} / {ms(run['p99'])} "
        f"| {batch} | {run['batches_per_s']:.1f} |"
    )


def scale_lines(section: Section) -> list[str]:
    """A row for each number of workers and how they are started."""
    settings = section["settings"]
    how = (
        f"{_model(section)} `{settings['mode']}`, {settings['partitions']} partitions, {settings['rounds']} "
        f"round{'s' if settings['rounds'] > 1 else ''}, median and (range). The backlog is sent when every member of "
        f"the group owns its share; the clock runs for {settings['window_s']:g} s from one commit to another while "
        "no partition runs out. CPU time is that of all worker processes, a supervisor included."
    )
    rows = [_scale_row(section, runs) for runs in by_shape(section).values()]
    return [
        "## Several workers of one group",
        "",
        f"{where(section)} {how}",
        "",
        "| workers | started as | events per second | times one | CPU s per million | CPUs in use |",
        "|---:|---|---:|---:|---:|---:|",
        *rows,
        "",
        f"![throughput by workers]({FOLDER}/scale.svg)",
    ]


def _scale_row(section: Section, runs: Sequence[Run]) -> str:
    begins = f"| {runs[0]['workers']} | {HOW[runs[0]['how']]} |"
    good = [run for run in runs if "error" not in run]
    if not good:
        return f"{begins} failed: {cell(runs[0]['error'])} | | | |"
    failed = f", {len(runs) - len(good)} of {len(runs)} failed" if len(good) < len(runs) else ""
    return (
        f"{begins} {speeds(good)}{failed} | {_times_one(section, good)} | {cpus(good)} "
        f"| {spread(good, 'cpu_share', '{:.2f}'.format)} |"
    )


def _times_one(section: Section, runs: Sequence[Run]) -> str:
    """Against one worker in the same rounds."""
    one = {run["round"]: run["events_per_s"] for run in section["runs"] if run["workers"] == 1 and "error" not in run}
    pairs = [(run["events_per_s"], one[run["round"]]) for run in runs if run["round"] in one]
    return multiple(paired_ratio(pairs)) if pairs and runs[0]["workers"] > 1 else ""


def by_shape(section: Section) -> dict[tuple[int, str], list[Run]]:
    """Runs by (workers, how), fewest first, separate workers before processes."""
    found: dict[tuple[int, str], list[Run]] = {}
    for run in section["runs"]:
        found.setdefault((run["workers"], run["how"]), []).append(run)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], list(HOW).index(item[0][1]))))


def _model(section: Section) -> str:
    cost = section["settings"]["model"]
    return (
        f"A model that takes {cost['batch_s'] * 1000:g} ms a batch and {cost['row_s'] * 1000:g} ms a row, waiting and "
        "not computing, so that it takes nobody's core."
    )
