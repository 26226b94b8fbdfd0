"""`inference-worker models export` and `models quantize`: how other frameworks' models, and smaller ones, get there."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.store_options import AsJson, Config, Store, print_json

RowsFile = Annotated[
    Path,
    typer.Option(
        "--holdout", metavar="ROWS", help=".parquet or .csv of event columns, or model inputs as .npy or .npz."
    ),
]
Label = Annotated[str | None, typer.Option(help="Column of ROWS with the true class, for accuracy.")]


class Framework(StrEnum):
    """What a model can come from."""

    SKLEARN = "sklearn"
    LIGHTGBM = "lightgbm"
    XGBOOST = "xgboost"
    PYTORCH = "pytorch"


class Mode(StrEnum):
    """Where the scales of activations come from."""

    DYNAMIC = "dynamic"
    STATIC = "static"


def register(app: typer.Typer) -> None:
    """Add both commands to `models`."""
    app.command(
        epilog="Example: inference-worker models export fraud.txt --framework lightgbm --spec fraud.yaml "
        "--holdout test.parquet --label is_fraud --model fraud"
    )(export)
    app.command(epilog="Example: inference-worker models quantize digits --mode static")(quantize)


def export(
    source: Annotated[
        Path, typer.Argument(help=".joblib or .pkl, LightGBM's .txt, XGBoost's .json or .ubj, PyTorch's .pt2.")
    ],
    *,
    framework: Annotated[Framework, typer.Option(help="Each is an extra; scikit-learn's is `train`.")],
    spec: Annotated[
        Path, typer.Option(metavar="FILE", help="YAML or JSON: schemas, inputs, outputs; see docs/MODELS.md.")
    ],
    holdout: RowsFile,
    model: Annotated[str, typer.Option(help="Name in the store; a new version of it if there is one.")],
    label: Label = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference allowed between the answers of both, in any number.")
    ] = 1e-5,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Needed for scikit-learn and PyTorch: loading such a file can RUN CODE that its author put there. It "
            "is loaded in a confined process; give this only for files whose author you trust. Kept in the manifest.",
        ),
    ] = False,
    max_memory_gib: Annotated[float, typer.Option(min=0.25, help="Address space of the converting process.")] = 16.0,
    max_time_s: Annotated[float, typer.Option(min=1, help="The converting process is ended after this.")] = 600.0,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Convert a trained model to ONNX, compare both on rows it never saw, and publish it as a new version.

    Published only if no answer differs by more than the tolerance. The first version of a model becomes stable.
    """
    from app.wiring import conversion  # noqa: PLC0415 - a worker's start need not load what converts

    order = conversion.ExportOrder(
        source=source,
        framework=framework.value,
        spec=spec,
        holdout=holdout,
        label=label,
        model=model,
        tolerance=tolerance,
        trusted=trust_pickle,
        max_memory_gib=max_memory_gib,
        max_time_s=max_time_s,
    )
    console = Console(stderr=True)
    with console.status("reading") as status:
        done = conversion.export_model(order, store, config, status.update)
    missing = [what for what in ("network", "processes", "files") if what not in done.held]
    if trust_pickle and missing:
        console.print(f"this machine's kernel could not keep the source from: {', '.join(missing)}", style="yellow")
    manifest, found = done.manifest, done.agreement
    if as_json:
        facts = manifest.model_dump(mode="json", include={"model", "version", "digest", "training", "metrics"})
        print_json({**facts, "agreement": asdict(found), "confined_by": done.held})
        return
    table = Table(title=f"{manifest.model} version {manifest.version}", show_header=False)
    table.add_row("rows compared", f"{found.rows:,}")
    table.add_row("largest difference", f"{found.max_difference:.3g} (allowed {tolerance:g})")
    table.add_row("same class", f"{found.same_class:.2%}")
    if "accuracy" in manifest.metrics:
        table.add_row("accuracy", f"{manifest.metrics['accuracy']:.4f}")
    table.add_row("conversion confined by", ", ".join(done.held))
    table.add_row("digest", manifest.model_digest)
    Console().print(table)


def quantize(
    model: Annotated[str, typer.Argument(help="MODEL, its stable version, or MODEL/VERSION.", metavar="MODEL")],
    *,
    mode: Annotated[
        Mode, typer.Option(help="dynamic scales each batch as it comes; static by the rows of --calibration.")
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="ROWS", help="For static. Files as --holdout; the shipped digits bring theirs."),
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="What both are judged by; the shipped digits bring theirs.")
    ] = None,
    label: Label = None,
    max_accuracy_loss: Annotated[
        float, typer.Option(help="Refused above; without labels, the share of rows whose class changes.")
    ] = 0.01,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a version with eight-bit matrix products, measure it beside the original, and publish it if it is as right.

    Size, speed and accuracy of both go into the new version's manifest.
    """
    name, _, version = model.partition("/")
    from app.wiring import conversion  # noqa: PLC0415 - a worker's start need not load what converts

    order = conversion.QuantizeOrder(
        model=name,
        version=version or None,
        mode=mode.value,
        calibration=calibration,
        holdout=holdout,
        label=label,
        max_accuracy_loss=max_accuracy_loss,
    )
    with Console(stderr=True).status("reading") as status:
        done = conversion.quantize(order, store, config, status.update)
    manifest, before, after = done.manifest, done.before, done.after
    if as_json:
        facts = {name: value for name, value in asdict(done).items() if name != "manifest"}
        print_json({"model": manifest.model, "version": manifest.version, **facts})
        return
    source = manifest.training["quantized_from"]
    table = Table(
        "", f"version {source}", f"version {manifest.version}", "", title=f"{manifest.model}, {mode.value} int8"
    )
    table.add_row(
        "bytes", f"{before.size_bytes:,}", f"{after.size_bytes:,}", f"{after.size_bytes / before.size_bytes:.0%}"
    )
    speed_up = after.rows_per_second / before.rows_per_second
    table.add_row("rows/s", f"{before.rows_per_second:,.0f}", f"{after.rows_per_second:,.0f}", f"{speed_up:.2f} x")
    if before.accuracy is not None and after.accuracy is not None:
        table.add_row("accuracy", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}", f"{0.0 - done.loss:+.4f}")
    table.add_row("same class", "", f"{done.agreement.same_class:.2%}", f"of {done.agreement.rows:,} rows")
    table.add_row("moved by neighbours", "", f"{done.neighbours:.2g}", "in any number")
    Console().print(table)
