"""`models rollout watch` decides on accuracy, from streamed outcomes: `python -m tests.bench.watched_accuracy`.

A real broker, a worker in exactly_once, a monitor, a watcher that reads both, and a stream of generated customers
whose outcomes follow a second later. The truth is made so that three versions of a model are known to be right in
89, 91 and 85 of 100 cases: outcomes are version 2's answers with 9 % of them turned round, and the others differ from
version 2 for as many customers as makes up for the rest. The rollout's guards have their defaults but for latency,
which on a busy machine is not what is asked here.

1. version 1 is stable, and nothing is tried out: nothing is to be decided.
2. version 2 is a canary of 50 % and then 100 % of the keys, and has to become stable.
3. version 3 is a shadow of version 2, and has to be stopped for its accuracy.

Prints each decision with its reason, how long it took, and the outcomes that had been judged by then. At the end it
reads the topics, and counts for itself what each version answered and was right in. The exit status is 1 if a decision
is another one, or the monitor's counts differ from these by a single outcome.

One scenario, from the models to the verdict, is told in one file.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from rich.console import Console

from app.avro.framing import SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.models.manifest import MODEL_FILE, Manifest
from app.models.model_store import StoredModel, open_store
from app.models.runtime import RuntimePolicy, load_model
from app.train.candidate import tensor_of
from app.train.churn import train_churn
from app.train.churn_data import ChurnFormula
from app.wiring.stores import model_desk
from deploy.local.stack import Stack
from loadgen.bench.broker import create
from loadgen.kafka_client import KafkaOptions
from tests.integration.rig import ROOT, SCHEMAS, Lane, answers, read_all
from tests.integration.worker_process import clean_environment, running_worker, wait_until
from tests.made_summaries import SCHEMAS as KNOWN
from tests.made_summaries import framed

RIGHT = {"1": 0.89, "2": 0.91, "3": 0.85}
BEST = "2"
SEED = 7  # loadgen's: customer i is the same one here and there
CUSTOMERS = 400_000  # more than a run gets through
TICK_S = 0.1
OUTCOME_AFTER_S = 1.0
STABLE_OUTCOMES = 3_000  # to be judged while nothing is tried out
STEPS = [(50, 30.0), (100, 20.0)]  # per cent of the keys, seconds
LATENCY_RATIO = 10.0
MAX_WAIT_S = 0.1  # of a batch: with nothing else to do a worker commits each batch, and its summary with it
LOOK_S = 1.0
WITHIN_S = 120.0  # each decision, and the start


@dataclass(frozen=True)
class World:
    """Customer i: answers[version][i] is what the version predicts, churned[i] what becomes of them."""

    answers: dict[str, np.ndarray]
    churned: np.ndarray


def made_world(folder):
    """Publish three versions of one graph, which differ by their threshold, with the truth that they are to meet."""
    made = train_churn(SCHEMAS, estimator="logistic", rows=20_000, seed=0, progress=lambda _: None)
    spec, output = made.card.inputs[0], made.card.outputs[0]
    now = datetime.now(UTC)
    files = {MODEL_FILE: made.graph}
    digest = {MODEL_FILE: f"sha256:{sha256(made.graph).hexdigest()}"}
    draft = Manifest(**dict(made.card), model="churn", version="1", digest=digest, created_at=now)
    customers = ChurnFormula.load(SCHEMAS).customers(SEED, 0, CUSTOMERS)
    tensors = {spec.name: tensor_of(customers.table, spec)}
    probability = load_model(StoredModel(draft, files), RuntimePolicy()).run(tensors)[output.name][:, 1]
    store = open_store(str(folder), ROOT, create=True)
    answers = {}
    for version, right in RIGHT.items():
        # for whom it differs from the best, it is right when that is wrong
        differs = (RIGHT[BEST] - right) / (2 * RIGHT[BEST] - 1)
        threshold = float(np.quantile(probability, (probability < 0.5).mean() + differs)) if differs else 0.5
        outputs = (output.model_copy(update={"threshold": threshold}),)
        card = made.card.model_copy(update={"outputs": outputs})
        assert store.publish("churn", card, files, at=now, who="watched_accuracy").version == version
        answers[version] = probability >= threshold
    turned = np.random.default_rng(SEED).random(CUSTOMERS) >= RIGHT[BEST]
    return World(answers, answers[BEST] ^ turned)


class Traffic(threading.Thread):
    """Events at a steady rate, each of a new customer, and the outcome of each a second later, until told to stop."""

    def __init__(self, lane, outcome_topic, churned, rate):
        super().__init__(name="traffic")
        self._lane, self._outcome_topic, self._churned = lane, outcome_topic, churned
        self._per_tick = round(rate * TICK_S)
        self._done = threading.Event()
        self.sent = 0

    def run(self):
        stream = self._lane.event_stream()
        producer = Producer({"bootstrap.servers": self._lane.kafka, "partitioner": "murmur2_random"})
        waiting = []
        tick, began = 0, time.monotonic()
        while not self._done.wait(max(0.0, began + tick * TICK_S - time.monotonic())):
            tick += 1
            now_ms = int(time.time() * 1000)
            chunk = stream.chunk(self.sent, np.full(self._per_tick, now_ms, np.int64))
            for key, value in zip(chunk.keys, chunk.values, strict=True):
                producer.produce(self._lane.inputs[0], value, key=key)
            waiting.append((now_ms, self.sent, chunk.keys))
            self.sent += self._per_tick
            while waiting and waiting[0][0] < now_ms - 1000 * OUTCOME_AFTER_S:
                self._tell(producer, now_ms, *waiting.pop(0))
            producer.poll(0)
        for one in waiting:
            self._tell(producer, int(time.time() * 1000), *one)
        producer.flush(30)

    def _tell(self, producer, now_ms, event_time, first, keys):
        for row, key in enumerate(keys, first):
            record = {
                "customer_id": key.decode(), "event_time": event_time, "churned": bool(self._churned[row]),
                "observed_at": now_ms,
            }  # fmt: skip
            producer.produce(self._outcome_topic, framed(record, "ChurnOutcome"), key=key)

    @contextmanager
    def flowing(self):
        """For the length of a block."""
        self.start()
        try:
            yield
        finally:
            self._done.set()
            self.join()


@contextmanager
def watching(lane, folder, urls):
    """`models rollout watch`; gives what it said so far, as dicts. It must end well when told to."""
    log = folder / "watch.jsonl"
    command = [sys.executable, "-m", "app", "models", "rollout", "watch", "churn", "--store", str(lane.store), "--json"]
    command += ["--interval", str(LOOK_S), *(part for url in urls for part in ("--metrics-url", url))]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=clean_environment())
    try:
        yield lambda: [json.loads(line) for line in log.read_text().splitlines(True) if line.endswith("}\n")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def made_lane(kafka, store):
    """(a lane with fresh topics, settings of its worker and its monitor, the topic of outcomes)."""
    kinds = ("events", "predictions", "dead-letters", "outcomes", "summaries", "predictions.sampled", "comparisons")
    names = {kind: f"churn.{kind}" for kind in kinds}
    create(KafkaOptions(kafka), list(names.values()))
    lane = Lane(kafka, "churn", (names["events"],), names["predictions"], names["dead-letters"], store)
    outcome = {"topic": names["outcomes"], "record": "ChurnOutcome", "label": "churned"}
    settings = lane.settings(
        pipeline={
            "batch": {"max_wait_s": MAX_WAIT_S},
            "shadow_topic": names["comparisons"],
            "monitoring": {"summary_topic": names["summaries"], "sample_topic": names["predictions.sampled"]},
        },
        models={"rollout_poll_s": 0.2},
        monitor={"outcomes": {"churn": outcome}, "publish_s": 1.0},
    )
    return lane, settings, names["outcomes"]


def monitored(monitor):
    """version → (outcomes, right), of all so far."""
    shown = monitor.metrics()
    share = shown.of("inference_accuracy", "version", "bound")
    return {
        version: (int(rows), round(rows * share[version, "value"]))
        for (version,), rows in shown.of("inference_outcomes", "version").items()
    }


def counted(lane, comparison_topic, world):
    """The same, by the topics: every prediction and every comparison is of a customer whose outcome is known."""
    reader = WholeRecordReader(SingleObjectFraming(), KNOWN, KNOWN.named("ShadowComparison"))
    compared = {}
    for message in read_all(lane.kafka, comparison_topic):
        record = reader.read(message.value())
        if record["candidate_class"] is not None:
            compared[message.key()] = record["candidate_version"], record["candidate_class"] == "1"
    found = [(message.key(), answer["model_version"], answer["will_churn"]) for message, answer in answers(lane)]
    found += [(key, version, churns) for key, (version, churns) in compared.items()]
    customers = np.array([int(key.decode().removeprefix("cust-")) for key, _, _ in found])
    versions, said = np.array([version for _, version, _ in found]), np.array([churns for _, _, churns in found])
    totals = {}
    for version in RIGHT:
        rows = versions == version
        assert (said[rows] == world.answers[version][customers[rows]]).all(), f"version {version} is not the one made"
        totals[version] = int(rows.sum()), int((said[rows] == world.churned[customers[rows]]).sum())
    return totals


class Decisions:
    """What the watcher decided, by what and when."""

    def __init__(self, said):
        self._said, self._seen, self.noted = said, 0, []

    def until(self, what, met):
        """Note what changes the page until a look meets this, and that one."""
        began = time.monotonic()
        while True:
            line = wait_until(self._unseen, lambda: f"{what}; last: {self._said()[-1:]}", WITHIN_S)
            self._seen += 1
            if line["changed"] or met(line):
                self._note(what, line, time.monotonic() - began)
            if met(line):
                return
            assert time.monotonic() < began + WITHIN_S, f"not decided: {what}; last: {line}"

    def _unseen(self):
        return next(iter(self._said()[self._seen :]), None)

    def _note(self, what, line, took_s):
        page, versions = line["page"], line["versions"].items()
        self.noted.append(
            {
                "tried": what,
                "verdict": line["verdict"],
                "page": f"{page['strategy']}, stable {page['stable']}",
                "after_s": round(took_s, 1),
                "outcomes": {version: did["judged"] for version, did in versions if did["judged"]},
                "right": {version: did["right"] for version, did in versions if did["judged"]},
                "reason": line["reason"],
            }
        )


def ended(line):
    """Whether this look ended a rollout."""
    return line["changed"] and line["page"]["strategy"] == "stable"


def measure(folder, rate):
    """One run; the page of figures."""
    world = made_world(folder / "store")
    stack = Stack(folder / "stack")
    kafka = stack.up(quick_start=True).environment["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        lane, settings, outcome_topic = made_lane(kafka, folder / "store")
        desk = model_desk(str(lane.store), None)
        desk.guard("churn", {"latency_ratio": LATENCY_RATIO}, "other things run on this machine")
        with ExitStack() as running:
            worker = running.enter_context(running_worker(settings, folder / "worker"))
            monitor = running.enter_context(running_worker(settings, folder / "monitor", command="monitor"))
            worker.wait_until_assigned()
            monitor.wait_until_ready()
            traffic = Traffic(lane, outcome_topic, world.churned, rate)
            urls = [f"http://127.0.0.1:{process.port}/metrics" for process in (worker, monitor)]
            with watching(lane, folder, urls) as said, traffic.flowing():
                decisions = decided(said, desk)
            worker.wait_for_records(traffic.sent)
            assert worker.stop() == 0
            totals = counted(lane, settings["pipelines"][0]["shadow_topic"], world)
            deadline = time.monotonic() + WITHIN_S
            while (found := monitored(monitor)) != totals and time.monotonic() < deadline:
                time.sleep(LOOK_S)
            assert monitor.stop() == 0
    finally:
        stack.down(wipe=True)
    accuracy = {
        version: {"meant": RIGHT[version], "counted": [rows, right], "monitored": list(found.get(version, (0, 0)))}
        for version, (rows, right) in totals.items()
    }
    return {"decisions": decisions, "accuracy": accuracy, "events": traffic.sent}


def decided(said, desk):
    """Try one version after the other; what came of it."""
    decisions = Decisions(said)
    decisions.until("version 1 alone", lambda line: line["versions"].get("1", {}).get("judged", 0) >= STABLE_OUTCOMES)
    desk.start_canary("churn", "2", STEPS, "to be watched")
    decisions.until("version 2 as canary", ended)
    desk.start_shadow("churn", "3", "to be watched", budget_s=1.0)
    decisions.until("version 3 as shadow", ended)
    return decisions.noted


def wrong(decisions, accuracy):
    """What is not as it has to be, in words; empty if nothing."""
    found = [(one["verdict"], one["page"]) for one in decisions]
    right = [("nothing", "stable, stable 1"), ("promote", "canary, stable 1"), ("promote", "stable, stable 2")]
    right.append(("roll_back", "stable, stable 2"))
    if found != right:
        return f"decided {found}, not {right}"
    by = decisions[-1]["reason"].partition(":")[0]
    if by != "accuracy":
        return f"version 3 was stopped for its {by}"
    differs = [version for version, line in accuracy.items() if line["counted"] != line["monitored"]]
    return f"the monitor counts otherwise: versions {', '.join(differs)}" if differs else ""


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=200, help="events per second")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inference-accuracy-") as folder:
        page = measure(Path(folder), options.rate)
    Console().print_json(json.dumps(page | {"took_s": round(time.monotonic() - began)}))
    sys.exit(wrong(page["decisions"], page["accuracy"]) or 0)


if __name__ == "__main__":
    main()
