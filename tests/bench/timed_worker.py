"""The worker with a stop watch at each step: `python -m tests.bench.timed_worker run --config …`.

When it ends, it prints microseconds per event of the stream thread by step, without what the steps inside took: of its
CPU time, and of time itself, which waits for other threads and for the processor too. The watches cost some 5 %.
Beside `make bench-stages`, which calls each step again and again on the same data,
this shows what a step costs where it stands: every record touched for the first time, every step's code seldom run.
"""

import sys
from collections import defaultdict
from time import perf_counter_ns, thread_time_ns

import numpy as np
from rich.console import Console
from rich.table import Table

from app.__main__ import main
from app.answering.lineup import Lane
from app.avro import datum_reader, datum_writer
from app.kafka.outbox import Outbox
from app.kafka.source import KafkaSource
from app.kafka.transactions import TransactionalSink
from app.observe.pipeline_observer import PipelineObserver
from app.pipeline.batcher import MicroBatcher
from app.pipeline.decode import Decoder
from app.pipeline.encode.predictions import PredictionEncoder
from app.pipeline.features.plan import FeaturePlan
from app.records import Origin
from app.worker import chain, stream

WATCHED = (
    (KafkaSource, "poll", "poll: consume"),
    (KafkaSource, "_usable", "poll: errors looked for"),
    (MicroBatcher, "add", "batch: add"),
    (MicroBatcher, "take", "batch: take"),
    (stream, "origin_of", "origin columns"),
    (Origin, "spans", "offsets: spans"),
    (chain.Chain, "prepare", "values"),
    (Decoder, "decode", "decode: sizes, headers"),
    (datum_reader.ColumnarReader, "_decode", "decode: codec"),
    (FeaturePlan, "apply", "features"),
    (Lane, "infer", "infer: model, checks"),
    (chain.Chain, "finish", "keys, facts"),
    (PredictionEncoder, "encode", "encode: columns"),
    (datum_writer.DatumWriter, "write", "encode: codec"),
    (chain, "predictions_of", "sizes"),
    (Outbox, "has_room", "produce: reports served"),
    (Outbox, "_grouped", "produce: messages"),
    (Outbox, "put", "produce: queue"),
    (TransactionalSink, "settle", "commit"),
    (PipelineObserver, "batch_scored", "metrics: batch"),
    (PipelineObserver, "committed", "metrics: outcomes"),
    (stream.StreamWorker, "turn", "the loop, records freed"),
)


class StopWatches:
    """Nested: what an inner step took is not the outer one's. For one thread. took: (CPU, time) of a step, in ns."""

    def __init__(self):
        self.took, self.events = defaultdict(lambda: np.zeros(2, np.int64)), 0
        self._inner = []

    def watch(self, owner, name, label):
        """Time every call of that function or method from now on."""
        function = getattr(owner, name)

        def timed(*args, **named):
            started = _now()
            self._inner.append(np.zeros(2, np.int64))
            try:
                result = function(*args, **named)
            finally:
                took = _now() - started
                self.took[label] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took
            if name == "origin_of":
                self.events += len(result.offsets)
            return result

        setattr(owner, name, timed)

    def table(self):
        """Microseconds per event, in the order of the steps."""
        table = Table(title=f"µs per event on the stream thread, {self.events:,} events")
        table.add_column("step")
        table.add_column("CPU", justify="right")
        table.add_column("time", justify="right")
        steps = {label: self.took[label] for _, _, label in WATCHED}
        for label, took in {**steps, "sum": sum(steps.values())}.items():
            table.add_row(label, *(f"{nanoseconds / max(self.events, 1) / 1000:.3f}" for nanoseconds in took))
        return table


def _now():
    return np.array((thread_time_ns(), perf_counter_ns()))


if __name__ == "__main__":
    watches = StopWatches()
    for watched in WATCHED:
        watches.watch(*watched)
    try:
        sys.exit(main())
    finally:
        Console(stderr=True).print(watches.table())
