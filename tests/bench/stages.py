"""`make bench-stages`: microseconds per event of each step between poll and produce, by batch size.

The steps are the worker's own, on churn events of the load generator; the model is the shipped logistic one, or a
forest. Each figure is the best of many short stretches, so that another process on the machine hardly shows.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.avro.columns import reader_columns
from app.avro.datum_writer import DatumWriter
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import SchemaDirectory
from app.clock import SystemClock
from app.models.model_store import open_store
from app.models.runtime import RuntimePolicy, load_model
from app.pipeline.decode import Decoder
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.features.plan import FeaturePlan
from app.pipeline.infer import OutputPolicy, infer
from app.records import Origin, TopicPartition
from app.wiring import training
from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import Pace
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Extent
from loadgen.schema_source import SchemaOptions

SCHEMAS = Path(__file__).parents[2] / "schemas"
BATCH_SIZES = (1, 8, 32, 128, 512, 2048)
STAGES = ("decode", "features", "infer", "encode")
STRETCH_S = 0.01  # long against the timer, short against a time slice
STRETCHES = 40


def churn_values(count):
    """Framed churn events, as the load generator sends them."""
    plan = ProducePlan(
        pipeline="churn",
        topic="events",
        kafka=KafkaOptions("nowhere:1"),
        schemas=SchemaOptions(SCHEMAS),
        pace=Pace(),
        extent=Extent(count),
    )
    return plan.event_stream().chunk(0, np.full(count, 1_760_000_000_000, np.int64)).values


class ChurnSteps:
    """The steps of the churn pipeline around a model, each ready to be called again and again on one batch."""

    def __init__(self, model, values):
        directory, framing, self._clock = SchemaDirectory(SCHEMAS), SingleObjectFraming(), SystemClock()
        event, prediction = directory.named("ChurnEvent"), directory.named("ChurnPrediction")
        columns = reader_columns(event)
        writer = DatumWriter(framing, framing.header(prediction.fingerprint), prediction)
        self._decoder = Decoder(framing, directory, event, self._clock)
        self._plan = FeaturePlan(model.inputs, columns)
        self._encoder = PredictionEncoder(writer, model, columns)
        self._answerer = Answerer(model)
        count = len(values)
        self._values, self._rows = values, np.arange(count)
        source, times = np.zeros(count, np.int64), np.full(count, self._clock.now_ms())
        self._origin = Origin((TopicPartition("events", 0),), source, np.arange(count), times)
        # each step works on what the one before gave
        self._columns = self.decode()
        self._features = self.features()
        self._answer = self.infer()

    def decode(self):
        result = self._decoder.decode(self._values, self._rows)
        assert not result.rejected
        return result.columns

    def features(self):
        return self._plan.apply(self._columns)

    def infer(self):
        return infer(self._answerer.model, self._features.tensors, self._features.rows, OutputPolicy())

    def encode(self):
        answer = self._answer
        return self._encoder.encode(
            self._columns, answer.fields, answer.rows, self._origin, self._answerer, self._clock.now_ms()
        )


def best_s(call, stretches=STRETCHES, stretch_s=STRETCH_S):
    """Seconds of one call: the best stretch's mean."""
    call()
    started = time.perf_counter()
    call()
    calls = max(1, int(stretch_s / max(time.perf_counter() - started, 1e-7)))
    best = float("inf")
    for _ in range(stretches):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def trained(estimator):
    """A churn model, trained here."""
    with tempfile.TemporaryDirectory(prefix="inference-stages-") as store:
        training.train("churn", store=store, estimator=estimator, rows=20_000, seed=0, progress=lambda _: None)
        found = open_store(store, Path.cwd())
        return load_model(found.fetch("churn", "1"), RuntimePolicy())


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimator", choices=("logistic", "forest"), default="logistic")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    model, values = trained(options.estimator), churn_values(max(BATCH_SIZES))
    figures = {}
    for size in BATCH_SIZES:
        steps = ChurnSteps(model, values[:size])
        figures[size] = {stage: best_s(getattr(steps, stage)) / size * 1e6 for stage in STAGES}
    if options.json:
        Console().print_json(json.dumps(figures))
        return
    table = Table(title=f"µs per event, by batch size; {options.estimator} model, one thread")
    table.add_column("stage")
    for size in BATCH_SIZES:
        table.add_column(f"{size:,}", justify="right")
    for stage in STAGES:
        table.add_row(stage, *(f"{figures[size][stage]:.3f}" for size in BATCH_SIZES))
    table.add_row("sum", *(f"{sum(figures[size].values()):.3f}" for size in BATCH_SIZES), style="bold")
    Console().print(table)


if __name__ == "__main__":
    main()
