"""What summaries and a sample add to an event's cost: `PYTHONPATH=. python tests/bench/summary_costs.py`.

The steps between poll and produce, and then what comes on top: keeping and folding the rows of many batches, a record
of what they add up to for each transaction, and choosing a sample. Each figure is CPU time of one thread, the best of
several short stretches, so that another process on the machine hardly shows. docs/MONITORING.md has what was measured.
"""

import argparse
import json
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from stages import SCHEMAS, STAGES, ChurnSteps, churn_values, trained

from app.avro.framing import SingleObjectFraming
from app.avro.record_writer import RecordWriter
from app.avro.schemas import SchemaDirectory
from app.clock import SystemClock
from app.kafka.sample import sampled_rows
from app.pipeline.summary.looked_at import LookedAt
from app.pipeline.summary.plan import SummaryPlan, SummedRows
from app.worker.summing import Summing, SummingPolicy

BATCH_SIZES = (1, 32, 512, 2048)
A_TRANSACTION = 40_000  # events: what 400,000 a second make of a commit interval of 0.1 s
SHARE = 0.1
STRETCH_S, STRETCHES = 0.005, 20


class SummedSteps(ChurnSteps):
    """The steps, and what summaries add."""

    def __init__(self, model, values, references):
        super().__init__(model, values)
        schema = SchemaDirectory(SCHEMAS).named("ModelSummary")
        writer = RecordWriter(SingleObjectFraming.header(schema.fingerprint), schema)
        self._summing = Summing(writer.write, SummingPolicy(bucket_s=3600), SystemClock())
        self._summed_by = SummaryPlan("churn", model, references, 0.6)
        self._now_ms = self._clock.now_ms()  # stands still: one bucket
        self._keys = [str(number).encode() for number in range(len(values))]

    def summed(self):
        answer, now_ms = self._answer, self._now_ms
        looked_at = LookedAt(self._columns, self._features.tensors, self._features.rows)
        return SummedRows(
            self._summed_by, now_ms, answer.rows, self._origin.timestamps_ms[answer.rows], answer.fields,
            answer.classes, answer.winner, answer.confidence, looked_at,
        )  # fmt: skip

    def transaction(self, batches):
        """So many batches delivered, and the summary that is committed with them."""
        for _ in range(batches):
            self._summing.delivered([self.summed()])
        [(_, value)] = self._summing.to_commit(at_once=True)
        return value

    def sample(self):
        return sampled_rows(self._keys, SHARE)


def cpu_s(call):
    """CPU seconds of one call in this thread: the best stretch's mean."""
    call()
    started = time.thread_time()
    call()
    calls = max(1, int(STRETCH_S / max(time.thread_time() - started, 1e-7)))
    best = float("inf")
    for _ in range(STRETCHES):
        started = time.thread_time()
        for _ in range(calls):
            call()
        best = min(best, (time.thread_time() - started) / calls)
    return best


def costs(model, references, size):
    """Microseconds per event: of all steps, of summaries in large transactions and in one a batch, of a sample."""
    steps = SummedSteps(model, churn_values(size), references)
    batches = max(1, A_TRANSACTION // size)
    events = size * batches
    return {
        "all steps without": sum(cpu_s(getattr(steps, stage)) for stage in STAGES) / size * 1e6,
        "summaries": cpu_s(lambda: steps.transaction(batches)) / events * 1e6,
        "summaries, one a batch": cpu_s(lambda: steps.transaction(1)) / size * 1e6,
        f"choosing a sample of {SHARE:.0%}": cpu_s(steps.sample) / size * 1e6,
        "bytes of a summary": len(steps.transaction(batches)),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    model = trained("logistic")
    fields = [feature.field for spec in model.inputs for feature in spec.features]
    references = {field: tuple(np.unique(rng.normal(50, 30, 21)).tolist()) for field in fields}
    figures = {size: costs(model, references, size) for size in BATCH_SIZES}
    if options.json:
        Console().print_json(json.dumps(figures))
        return
    table = Table(title="µs per event, by batch size; logistic model, one thread")
    table.add_column("what")
    for size in BATCH_SIZES:
        table.add_column(f"{size:,}", justify="right")
    for what in figures[BATCH_SIZES[0]]:
        table.add_row(what, *(f"{figures[size][what]:.3f}" for size in BATCH_SIZES))
    Console().print(table)


if __name__ == "__main__":
    main()
