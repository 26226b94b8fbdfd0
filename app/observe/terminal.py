"""A snapshot as text, for `inference-worker top`: the same figures as on the live page.

What a snapshot says comes from elsewhere: it is shown as text, without markup and without control characters.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.observe.live_stream import Snapshot
from app.observe.snapshot import shown

MOST_PARTITIONS = 8
MOST_LETTERS = 8
_NOT_KNOWN = "-"


def seconds(value: float | None) -> str:
    """A duration for people."""
    if not value:
        return _NOT_KNOWN if value is None else "0 s"
    for below, factor, unit in ((0.001, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if value < below:
            return f"{value * factor:.3g} {unit}"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


def count(value: float | None) -> str:
    """A number for people."""
    if value is None:
        return _NOT_KNOWN
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _percentile(spread: Mapping[str, Any] | None, name: str) -> str:
    if not spread:
        return _NOT_KNOWN
    return f"> {seconds(spread['at_most'])}" if spread[name] is None else seconds(spread[name])


def _share(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{value * 100:.3g} %"


def line(snapshot: Snapshot) -> str:
    """What matters most, on one line: for what is not a terminal."""
    flow, lag, latency = snapshot["throughput"], snapshot["lag"], snapshot["end_to_end"]
    return (
        f"{time.strftime('%H:%M:%S', time.localtime(snapshot['at_ms'] / 1000))}"
        f"  {count(flow['records_per_s'])} records/s"
        f"  lag {count(lag['records'])} records, {seconds(lag['seconds'])}"
        f"  p50 {_percentile(latency, 'p50')}  p99 {_percentile(latency, 'p99')}"
        f"  dead letters {count(snapshot['dead_letters']['in_window'])}"
        f"  busy {_share(flow['busy_ratio'])}"
    )


def whole(snapshot: Snapshot, *, lost: str | None = None, age_s: float = 0.0) -> RenderableType:
    """All of it. lost: why the figures are `age_s` old."""
    return Group(*_parts(snapshot, lost, age_s))


def _parts(snapshot: Snapshot, lost: str | None, age_s: float) -> Iterator[RenderableType]:
    worker = snapshot["worker"]
    name = shown(f"{worker['instance']}  {worker['version']}  {worker['delivery'].replace('_', ' ')}")
    if lost is not None:
        yield Panel(
            Text(f"{name}\nfigures are {seconds(float(round(age_s)))} old, trying again: {shown(lost)}"), style="red"
        )
    else:
        yield Panel(Text(name))
    for probe, words in (("alive", "not alive"), ("ready", "not ready")):
        if snapshot[probe]:
            yield Text(f"{words}: {shown(snapshot[probe])}", style="yellow")
    yield Text(line(snapshot), style="dim" if lost is not None else "bold")
    yield from _pipelines(snapshot)
    yield from _processes(snapshot)
    yield from _lag(snapshot)
    yield _delivery(snapshot)
    yield from _troubles(snapshot)
    yield from _dead_letters(snapshot)
    yield Text(
        f"rates of the last {seconds(snapshot['rate_s'])}; percentiles from histogram buckets, "
        f"of the last {seconds(snapshot['window_s'])}",
        style="dim",
    )


def _table(title: str, *columns: str, numbers: int = 0) -> Table:
    """numbers: how many of the last columns are."""
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        right = index >= len(columns) - numbers
        table.add_column(Text(column), justify="right" if right else "left", no_wrap=right)
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(shown(cell)) for cell in cells))


def _pipelines(snapshot: Snapshot) -> Iterator[RenderableType]:
    for pipeline in snapshot["pipelines"]:
        name = shown(pipeline["name"])
        times = _table(f"\n{name}: latency", "stage", "per", "p50", "p95", "p99", "mean", numbers=4)
        stages = [("end to end", "record", pipeline["end_to_end"]), ("in the batcher", "batch", pipeline["batch_wait"])]
        stages += [(f"model {one['version']}", "batch", one["model_time"]) for one in pipeline["versions"]]
        for stage, unit, spread in stages:
            percentiles = [_percentile(spread, share) for share in ("p50", "p95", "p99")]
            _add(times, stage, unit, *percentiles, seconds(spread["mean"] if spread else None))
        yield times
        rows = pipeline["batch_records"]
        shape = f"mean {count(rows['mean'])}, p99 {count(rows['p99'])} records" if rows else _NOT_KNOWN
        yield Text(f"batches: {shape}, {count(pipeline['batches_per_s'])}/s")
        versions = _table(
            f"{name}: rollout {shown(pipeline['rollout'])}, revision {count(pipeline['revision'])}",
            "version", "part", "answers", "records/s", "failures", numbers=3,
        )  # fmt: skip
        for one in pipeline["versions"]:
            _add(versions, one["version"], one["part"], _share(one["share"]), count(one["per_s"]),
                 count(one["failures"]))  # fmt: skip
        yield versions


def _processes(snapshot: Snapshot) -> Iterator[RenderableType]:
    if not snapshot["processes"]:
        return
    table = _table("\nprocesses", "process", "records/s", "lag", "age", "partitions", "busy", "restarts", numbers=6)
    for one in snapshot["processes"]:
        if one["reports"]:
            _add(table, str(one["slot"]), count(one["records_per_s"]), count(one["lag_records"]),
                 seconds(one["lag_seconds"]), count(one["assigned"]), _share(one["busy_ratio"]),
                 count(one["restarts"]))  # fmt: skip
        else:
            _add(table, f"{one['slot']} (no report)", *[_NOT_KNOWN] * 5, count(one["restarts"]))
    yield table


def _lag(snapshot: Snapshot) -> Iterator[RenderableType]:
    lag = snapshot["lag"]
    if not lag["partitions"]:
        return
    table = _table(f"\nlag, furthest behind of {lag['assigned']}", "topic", "partition", "records", "age", numbers=3)
    for one in lag["partitions"][:MOST_PARTITIONS]:
        _add(table, one["topic"], str(one["partition"]), count(one["records"]), seconds(one["seconds"]))
    yield table


def _delivery(snapshot: Snapshot) -> RenderableType:
    delivery = snapshot["delivery"]
    rebalances, transactions = delivery["rebalances"], delivery["transactions"]
    told = ", ".join(f"{count(number)} {kind}" for kind, number in rebalances.items())
    words = f"\nrebalances: {told}"
    if snapshot["worker"]["delivery"] == "exactly_once":
        words += "; transactions: " + ", ".join(f"{count(number)} {result}" for result, number in transactions.items())
    return Text(words)


def _troubles(snapshot: Snapshot) -> Iterator[RenderableType]:
    for one in snapshot["troubles"]:
        fresh = f", {count(one['in_window'])} of late" if one["in_window"] else ""
        yield Text(f"{count(one['count'])} {shown(one['what'])}{fresh}", style="red" if fresh else "")


def _dead_letters(snapshot: Snapshot) -> Iterator[RenderableType]:
    last = snapshot["dead_letters"]["last"][:MOST_LETTERS]
    if not last:
        return
    table = _table("\nlast dead letters", "at", "where", "stage", "reason", "message")
    for one in last:
        at = time.strftime("%H:%M:%S", time.localtime(one["at_ms"] / 1000))
        _add(table, at, f"{one['topic']} [{one['partition']}] @ {one['offset']}", one["stage"], one["reason"],
             one["message"])  # fmt: skip
    yield table
