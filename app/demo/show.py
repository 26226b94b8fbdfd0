"""Runs the worker against mock brokers, feeds it, reads everything back, and judges."""

import time
from dataclasses import asdict
from pathlib import Path
from threading import Thread

import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.avro.schemas import SchemaDirectory
from app.clock import SystemClock
from app.demo.events import PATIENCE, DemoPipeline, EventMaker
from app.demo.tally import Tally, Verdict
from app.errors import AppError, FatalError
from app.exit_status import EXIT_DRAINED
from app.kafka.mock_cluster import MOCK_FETCH_WAIT_MS, PARTITIONS, MockCluster, TopicReader
from app.observe.log import configure_logs
from app.settings.reading import settings_of
from app.settings.root import Settings
from app.wiring.training import SHIPPED_SCHEMAS, promised_accuracy, train
from app.wiring.worker import Worker, build_worker

STORE = "file://var/models"
PACED_RATE = 5_000  # events per second of the first part, which measures latency; the rest measures throughput
PACED_SHARE = 0.2
CHUNK = 4_000
MOST_BEHIND = 8_000 * PARTITIONS  # the mock brokers forget what exceeds a few MB a partition
SILENCE_S = 30.0  # no outcome for so long: give up


def run_demo(pipeline: DemoPipeline, events: int, *, as_json: bool) -> bool:
    """Show the worker at work and print the verdict; whether it is a good one."""
    console = Console(stderr=as_json)
    configure_logs("warning", "console")
    promised = _model(pipeline, console)
    with MockCluster() as cluster:
        cluster.make_topics(*_topics(pipeline))
        worker = build_worker(_settings(pipeline, cluster.bootstrap_servers), check_broker=False)
        statuses: list[int | AppError] = []

        def run() -> None:
            try:
                statuses.append(worker.process.run())
            except AppError as exc:
                statuses.append(exc)

        thread = Thread(target=run, name="worker", daemon=True)
        thread.start()
        try:
            _until_ready(worker, statuses)
            verdict = _Show(pipeline, events, cluster, console, statuses).play()
        finally:
            worker.process.stop()
            thread.join(SILENCE_S)
    verdict.promised_accuracy = promised
    complaints = verdict.complaints(PATIENCE)
    if statuses != [EXIT_DRAINED]:
        complaints.append(f"the worker ended with {statuses}")
    _report(verdict, pipeline, complaints, console, as_json=as_json)
    return not complaints


class _Show:
    """One run: the events go in at the pace the mock brokers bear, the outcomes are read meanwhile."""

    def __init__(
        self,
        pipeline: DemoPipeline,
        events: int,
        cluster: MockCluster,
        console: Console,
        worker_ended: list[int | AppError],
    ) -> None:
        self._events, self._cluster, self._worker_ended = events, cluster, worker_ended
        self._input, predictions, dead_letters = _topics(pipeline)
        self._maker = EventMaker(pipeline, SHIPPED_SCHEMAS)
        schema = SchemaDirectory(SHIPPED_SCHEMAS).named(
            {"churn": "ChurnPrediction", "digits": "DigitPrediction"}[pipeline]
        )
        self._tally = Tally(schema, events)
        self._predictions: TopicReader = cluster.reader(predictions)
        self._dead_letters: TopicReader = cluster.reader(dead_letters)
        self._clock = SystemClock()
        self._truth = np.zeros(events, np.int64)
        self._verdict = Verdict(events, latency_rate=PACED_RATE)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def play(self) -> Verdict:
        verdict, tally = self._verdict, self._tally
        paced = int(self._events * PACED_SHARE)
        with self._progress:
            self._bar = self._progress.add_task(f"{PACED_RATE:,} events/s", total=self._events)
            self._feed(0, paced, PACED_RATE)
            verdict.p50_s, verdict.p95_s, verdict.p99_s = tally.latency_quantiles()
            self._progress.update(self._bar, description="as fast as it goes")
            started = time.perf_counter()
            self._feed(paced, self._events, None)
            verdict.events_per_second = (self._events - paced) / (time.perf_counter() - started)
        verdict.predictions, verdict.dead_letters = tally.predictions, tally.dead_letters
        verdict.lost, verdict.duplicated = tally.lost(), tally.duplicated()
        verdict.accuracy = tally.accuracy(self._truth)
        verdict.samples = tally.samples
        return verdict

    def _feed(self, first: int, last: int, rate: int | None) -> None:
        """Send events `first` to `last - 1` and read until each has an outcome."""
        started = time.perf_counter()
        sent = first
        chunk = CHUNK if rate is None else max(1, rate // 500)  # 2 ms worth of events
        heard_at, heard = time.monotonic(), self._tally.outcomes
        while self._tally.outcomes < last:
            if self._tally.outcomes > heard:
                heard_at, heard = time.monotonic(), self._tally.outcomes
            elif time.monotonic() - heard_at > SILENCE_S:
                return  # the tally knows what is lost
            due = last if rate is None else first + int((time.perf_counter() - started) * rate)
            while sent < min(due, last) and sent - self._tally.outcomes < MOST_BEHIND:
                count = min(chunk, last - sent)
                events = self._maker.make(sent, count, self._clock.now_ms())
                self._truth[sent : sent + count] = events.truth
                self._verdict.broken += events.broken
                self._cluster.put(self._input, events.values, events.keys, sent)
                sent += count
            self._read()

    def _read(self) -> None:
        if self._worker_ended:
            raise FatalError(f"the worker ended before the demo did: {self._worker_ended[0]}")
        predictions = self._predictions.take(0.002)
        if predictions:
            self._tally.add_predictions(predictions, self._clock.now_ms())
        self._tally.add_dead_letters(self._dead_letters.take(0))
        self._progress.update(self._bar, completed=self._tally.outcomes)


def _until_ready(worker: Worker, ended: list[int | AppError]) -> None:
    """Wait until the consumer group is joined, so that joining does not count as latency."""
    deadline = time.monotonic() + SILENCE_S
    while (waiting_for := worker.process.ready()) is not None:
        if ended or time.monotonic() > deadline:
            raise FatalError(f"the worker did not start: {ended[0] if ended else waiting_for}")
        time.sleep(0.01)


def _topics(pipeline: str) -> tuple[str, str, str]:
    return f"{pipeline}.events", f"{pipeline}.predictions", f"{pipeline}.dead-letters"


def _settings(pipeline: str, bootstrap_servers: str) -> Settings:
    events, predictions, dead_letters = _topics(pipeline)
    return settings_of(
        {
            # with `consumer` the mock brokers assign at once, with `classic` after 3 s
            # and a fetch that finds nothing is not woken by what arrives, so keep it short
            "kafka": {
                "bootstrap_servers": bootstrap_servers,
                "group_protocol": "consumer",
                "client": {"fetch.wait.max.ms": MOCK_FETCH_WAIT_MS},
            },
            "schemas": {"directory": str(SHIPPED_SCHEMAS)},
            "pipelines": [
                {
                    "name": pipeline,
                    "input_topics": [events],
                    "output_topic": predictions,
                    "dead_letter_topic": dead_letters,
                    "model": pipeline,
                    "batch": {"max_wait_s": 0.002},
                    "dead_letter_limit": {"records": 1_000_000},
                }
            ],
            "models": {"store": STORE},
            "log": {"level": "warning"},
        }
    )


def _model(pipeline: DemoPipeline, console: Console) -> float:
    """The accuracy that the stable model promises; trained first if there is none."""
    accuracy = promised_accuracy(pipeline, STORE)
    if accuracy is None:
        with console.status(f"no model in {Path('var/models')} yet: training {pipeline}") as status:
            train(pipeline, store=STORE, estimator=None, rows=None, seed=0, progress=status.update)
        accuracy = promised_accuracy(pipeline, STORE)
    return accuracy or 0.0


def _report(verdict: Verdict, pipeline: str, complaints: list[str], console: Console, *, as_json: bool) -> None:
    if as_json:
        facts = asdict(verdict) | {"pipeline": pipeline, "passed": not complaints, "complaints": complaints}
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2, default=str).decode())  # noqa: T201
        return
    data = "generated customers" if pipeline == "churn" else "scikit-learn's handwritten digits, held out"
    table = Table(title=f"{pipeline}: {data}", show_header=False)
    table.add_row("events", f"{verdict.events:,}")
    table.add_row("predictions", f"{verdict.predictions:,}")
    table.add_row("dead letters", f"{verdict.dead_letters:,} of {verdict.broken:,} events broken on purpose")
    table.add_row("lost", f"{verdict.lost:,}")
    table.add_row("duplicated", f"{verdict.duplicated:,}")
    table.add_row(
        "throughput",
        f"{verdict.events_per_second:,.0f} events/s (brokers, producer and reader in this process too)",
    )
    table.add_row(
        f"latency at {verdict.latency_rate:,} events/s",
        f"p50 {verdict.p50_s * 1e3:.0f} ms, p95 {verdict.p95_s * 1e3:.0f} ms, p99 {verdict.p99_s * 1e3:.0f} ms",
    )
    table.add_row(
        "accuracy",
        f"{verdict.accuracy:.3f} against the known truth; held out in training: {verdict.promised_accuracy:.3f}",
    )
    console.print(table)
    samples = Table("key", "class", "confidence", "model", "from", title="sample predictions")
    for sample in verdict.samples:
        samples.add_row(
            str(next(iter(sample.values()))),
            str(sample["prediction"]),
            f"{sample['confidence']:.3f}",
            f"{sample['model_name']} {sample['model_version']} ({sample['model_digest']})",
            f"{sample['source_topic']}[{sample['source_partition']}]@{sample['source_offset']}",
        )
    console.print(samples)
    for complaint in complaints:
        console.print(f"FAILED: {complaint}", style="red")
    if not complaints:
        console.print("nothing lost, nothing doubled", style="green")
