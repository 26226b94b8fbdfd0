"""What eight bits cost and save: `python -m tests.bench.quantized_digits [--runs 3]`, under a minute.

The shipped digits model is trained, and quantized anew in each run and mode, as `models quantize` does it: each run
measures both sides in turn. Printed is one table, from the lowest to the highest of the runs.
"""

import argparse
import tempfile

from rich.console import Console
from rich.table import Table

from app.models.quantize import Measured, Quantization
from app.wiring import training
from app.wiring.conversion import QuantizeOrder, quantize

MODES = ("dynamic", "static")


def runs_of(store: str, mode: str, runs: int) -> list[Quantization]:
    """The model of the store, quantized so often."""
    order = QuantizeOrder("digits", "1", mode, None, None, None, 0.01)
    return [quantize(order, store, None, lambda _: None) for _ in range(runs)]


def span(values: list[float], form: str = "{:.2f}") -> str:
    """From the lowest to the highest, once if they are printed alike."""
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def measure(runs: int) -> Table:
    """Train, quantize, measure."""
    with tempfile.TemporaryDirectory(prefix="inference-quantized-") as store:
        training.train("digits", store=store, estimator=None, rows=None, seed=0, progress=lambda _: None)
        found = {mode: runs_of(store, mode, runs) for mode in MODES}
    everything = [one for mode in MODES for one in found[mode]]
    before: list[Measured] = [one.before for one in everything]
    table = Table("", "float32", *MODES, title=f"digits, {runs} runs of each mode, {everything[0].agreement.rows} rows")

    def row(name: str, first: str, of_mode: list[str]) -> None:
        table.add_row(name, first, *of_mode)

    def each(value, form="{:.2f}"):
        return [span([value(one) for one in found[mode]], form) for mode in MODES]

    row("bytes", f"{before[0].size_bytes:,}", each(lambda one: one.after.size_bytes, "{:,}"))
    faster = each(lambda one: one.after.rows_per_second / one.before.rows_per_second)
    row("times the rows per second, one thread", "1", faster)
    row(
        "million rows per second",
        span([one.rows_per_second / 1e6 for one in before]),
        each(lambda one: one.after.rows_per_second / 1e6),
    )
    row("accuracy", span([one.accuracy for one in before], "{:.4f}"), each(lambda one: one.after.accuracy, "{:.4f}"))
    row("rows of the same class", "", each(lambda one: 100 * one.agreement.same_class, "{:.1f} %"))
    row("moved by neighbours", "0", each(lambda one: one.neighbours, "{:.2g}"))
    return table


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    Console(width=110).print(measure(parser.parse_args().runs))


if __name__ == "__main__":
    main()
