"""`loadgen`, also `python -m loadgen`."""

import typer

from loadgen.cli.bench import bench
from loadgen.cli.grpc import grpc
from loadgen.cli.produce import produce
from loadgen.cli.report import report
from loadgen.cli.rest import rest
from loadgen.cli.run import run
from loadgen.cli.verify import verify


def main() -> None:
    """Run the command line."""
    app = typer.Typer(
        help="Load generator and verifier for the inference worker.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (produce, verify, run, report, bench, rest, grpc):
        app.command()(command)
    app()


if __name__ == "__main__":
    main()
