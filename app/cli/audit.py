"""`inference-worker audit`: keep every prediction, and say what was predicted.

The composition is imported by the commands themselves: what writes Parquet takes long to import, and no worker
needs it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.cli.run import ConfigFile
from app.cli.store_options import AsJson, print_json

app = typer.Typer(no_args_is_help=True, help="The audit trail: every prediction in Parquet, each exactly once.")

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
PROVENANCE = ("source_topic", "source_partition", "source_offset")
# What the table shows in columns of its own, or not at all.
_SHOWN = {
    *PROVENANCE, "pipeline", "file", "topic", "model_name", "model_version", "model_digest", "answered_by",
    "rollout_revision", "predicted_at", "features",
}  # fmt: skip


@app.command(epilog="Example: inference-worker audit run --config deploy/pipelines/churn.yaml")
def run(config: ConfigFile) -> None:
    """Keep every prediction until SIGTERM. Several may run: they share the partitions.

    It has the probes and metrics of the section http.

    Exit status: 0 drained, 1 fatal error, 2 bad start, 3 not everything got its file in time and is read again, 4 a
    call of the Kafka client did not return.
    """
    from app.wiring import audit  # noqa: PLC0415

    raise typer.Exit(audit.run_audit(config))


@app.command(epilog="Example: inference-worker audit query --config worker.yaml --key c-000042 --since 2026-11-01")
def query(
    config: ConfigFile,
    key: Annotated[str, typer.Option(help="Key of the event, and so of its predictions.", metavar="K")],
    *,
    since: Annotated[datetime | None, typer.Option(formats=TIMES, help="From this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=TIMES, help="Before this time, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    pipeline: Annotated[str | None, typer.Option(help="Of this pipeline only.", metavar="NAME")] = None,
    as_json: AsJson = False,
) -> None:
    """What was predicted for this key, with which model, from which record; the newest first.

    With audit.features set, also what that record had: null if its file is not there yet, or was deleted.

    Exit status: 0 also if nothing was. What `audit run` has read in the last minutes may have no file yet.
    """
    from app.wiring import audit  # noqa: PLC0415

    with _progress() as progress:
        found = audit.query_audit(
            config, key, pipeline=pipeline, since=_utc(since), until=_utc(until), limit=limit, progress=progress
        )
    if as_json:
        print_json([{name: _plain(value) for name, value in answer.items()} for answer in found])
        return
    table = Table("time (UTC)", "pipeline", "model", "by", "from record", "answer", box=None, pad_edge=False)
    for answer in found:
        table.add_row(*_cells(answer))
    Console().print(table if found else f"nothing was predicted for {key}, as far as the trail goes", markup=False)


@app.command(epilog="Example: inference-worker audit expire --config worker.yaml --dry-run")
def expire(
    config: ConfigFile,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the days that are older than audit.retention_days. Once a day is enough; `audit run` may go on."""
    from app.wiring import audit  # noqa: PLC0415

    done = audit.expire_audit(config, dry_run=dry_run)
    if as_json:
        print_json(done)
        return
    for expired in done:
        days = f"{expired.days[0]} to {expired.days[-1]}" if expired.days else "no day"
        what = "would be deleted" if dry_run else "deleted"
        of = expired.pipeline if expired.kind == "pipeline" else f"{expired.pipeline} ({expired.kind})"
        typer.echo(f"{of}: {days}, {expired.files} files, {expired.bytes} bytes {what}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(tzinfo=UTC)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _cells(answer: Mapping[str, object]) -> list[str]:
    at = answer["audit_time"]
    record = [answer.get(name) for name in PROVENANCE]
    rest = {
        name: value
        for name, value in answer.items()
        if name not in _SHOWN and not name.startswith("audit_") and value is not None
    }
    reject = answer.get("audit_reject")
    features = answer.get("features")
    if isinstance(features, Mapping):
        rest |= {f"features.{name}": value for name, value in features.items()}
    model = [answer.get(name) for name in ("model_name", "model_version", "model_digest")]
    return [
        at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if isinstance(at, datetime) else str(at),
        str(answer["pipeline"]),
        "" if model[0] is None else f"{model[0]} {model[1]} {model[2]}",
        str(answer.get("answered_by") or ""),
        "" if record[2] is None else f"{record[0]}[{record[1]}]@{record[2]}",
        f"no prediction: {reject}" if reject else " ".join(f"{name}={value}" for name, value in rest.items()),
    ]
