"""`inference-worker` and `python -m app`: the command line, and what each error means for the exit status."""

import sys

import typer
from rich.console import Console

from app.cli import audit, check_config, demo, lag, models, monitor, run, score, serve, top
from app.errors import AppError, StartupError
from app.exit_status import EXIT_BAD_START, EXIT_FATAL

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold secrets
    help="Kafka streaming inference: Avro events in, micro-batched ONNX predictions out.",
)
cli.command()(demo.demo)
cli.command()(run.run)
cli.command(hidden=True)(run.run_slot)
cli.command(hidden=True)(run.run_shadow)
cli.command()(check_config.check_config)
cli.command()(score.score)
cli.command()(serve.serve)
cli.add_typer(models.app, name="models")
cli.command()(monitor.monitor)
cli.command()(lag.lag)
cli.add_typer(audit.app, name="audit")
cli.command()(top.top)


def main() -> None:
    """Entry point; never shows a traceback for an error we raise on purpose."""
    try:
        cli()
    except AppError as exc:
        Console(stderr=True, soft_wrap=True).print(f"{type(exc).__name__}: {exc}", markup=False, style="red")
        sys.exit(EXIT_BAD_START if isinstance(exc, StartupError) else EXIT_FATAL)


if __name__ == "__main__":
    main()
