"""`make soak`: the worker's memory over large backlogs and a long run: defaults, exactly once, a real broker.

Drains: a backlog of churn events as they are, and one of the same events written by a later schema version that has a
long text the worker does not read, about 1 kB each. The soak: events at a rate that goes up and down, with spikes
between, so that batches have all shapes, while a second worker joins the group and leaves it again and again; at the
end every event must have exactly one outcome. Of the first worker, resident memory once a second.

Writes the section "memory" of docs/benchmarks/results.json and the page and plots made of it; ends with 1 if a
target was missed, 2 if it could not be measured.

    python -m tests.bench.soak --minutes 30 --events 5000000
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from loadgen.bench.broker import GroupOffsets, broker, create, delete
from loadgen.bench.commands import beside_python, loadgen
from loadgen.bench.contenders import Contenders
from loadgen.bench.drain import drain
from loadgen.bench.figures import write_figures
from loadgen.bench.memory_watch import MemoryWatch, slope_mb_per_10_min, thinned
from loadgen.bench.page import write_page
from loadgen.bench.peer_process import PeerProcess, clean_environment
from loadgen.bench.results import Results
from loadgen.bench.words import FOLDER
from loadgen.bench.worker_metrics import batches_between, scrape
from loadgen.bench.worker_settings import Lane, Tuning
from loadgen.errors import LoadgenError
from loadgen.kafka_client import KafkaOptions

ROOT = Path(__file__).parents[2]
MODE = "exactly_once"
SMALL_BYTES, LARGE_BYTES = 56, 1_000  # of a framed record; the datum of a plain event has 44 to 46
MOST_MB = {SMALL_BYTES: 220.0, LARGE_BYTES: 350.0}
MOST_SLOPE_MB = 1.0
TEXT_BYTES = LARGE_BYTES - SMALL_BYTES - 2  # its length takes two bytes
WARM_S = 300.0  # of a soak: caches fill, the allocator settles
REBALANCE_EVERY_S = 60.0  # the second worker is there for half of it
SINE_PERIOD_S, SPIKE_EVERY_S, SPIKE_S = 47.0, 31.0, 1.0  # no two of them in step
SINE_SHARE = 0.8  # of the mean rate; the rest comes in spikes
JOIN_S = 60.0
CATCH_UP_S = 120.0  # after the last event was sent
VERIFY_S = 1_500.0


def main():
    """Measure, write down, judge."""
    options = parsed()
    folder = options.out or ROOT / ("var/bench" if options.quick else "docs")
    results = Results(folder / FOLDER / "results.json")
    work = options.work.absolute()
    (work / "logs").mkdir(parents=True, exist_ok=True)
    settings = {"events": options.events, "minutes": options.minutes, "rate": options.rate}
    section = results.begin("memory", datetime.now(UTC).isoformat(timespec="seconds"), settings)
    try:
        with broker(options.bootstrap, work / "stack") as servers:
            for facts, measure in runs(options, servers, work):
                try:
                    figures = measure()
                except LoadgenError as error:
                    figures = {"error": str(error)}
                section["runs"].append({"rss": [], **facts, **figures})
                results.save()
                say(section["runs"][-1])
    except LoadgenError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        write_figures(folder / FOLDER, results.sections)
        write_page(folder / "BENCHMARKS.md", results.sections)
    failed = [run for run in section["runs"] if "error" in run]
    sys.exit(2 if failed else int(any(map(missed, section["runs"]))))


def parsed():
    """The command line; --quick is for looking whether it works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000, help="of each drained backlog (5000000)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the soak (30)")
    parser.add_argument("--rate", type=float, default=5_000.0, help="events per second of the soak, on average (5000)")
    parser.add_argument("--only", choices=("drain", "soak"), help="one of the parts; both if not given")
    parser.add_argument("--quick", action="store_true", help="small backlogs and two minutes, into var/bench")
    parser.add_argument("--bootstrap", help="Kafka; one is started if not given")
    parser.add_argument("--work", type=Path, default=ROOT / "var/bench", help="models, logs, the broker's data")
    parser.add_argument("--out", type=Path, help="for BENCHMARKS.md and its folder; docs if not given")
    options = parser.parse_args()
    if options.events < 1_000 or options.minutes <= 0 or options.rate < 1:
        parser.error("--events: 1000 or more; --minutes: more than 0; --rate: 1 or more")
    if options.quick:
        options.events, options.minutes = min(options.events, 300_000), min(options.minutes, 2.0)
        options.rate = min(options.rate, 2_000.0)
    return options


def runs(options, servers, work):
    """(what it is, how to measure it) of each part."""
    bench = Bench(servers, work)
    if options.only != "soak":
        for record_bytes in (SMALL_BYTES, LARGE_BYTES):
            facts = {"run": "drain", "record_bytes": record_bytes, "events": options.events}
            yield (
                facts | {"most_mb": MOST_MB[record_bytes]},
                lambda size=record_bytes: bench.drained(size, options.events),
            )
    if options.only != "drain":
        facts = {"run": "soak", "minutes": options.minutes, "most_slope_mb": MOST_SLOPE_MB}
        yield facts, lambda: bench.soaked(options.minutes * 60.0, options.rate)


def missed(run):
    """Whether a target was; a soak too short to settle has no slope to judge."""
    if run["run"] == "drain":
        return run["peak_mb"] > run["most_mb"]
    too_steep = run["from_s"] >= WARM_S and run["slope_mb_per_10_min"] > run["most_slope_mb"]
    return too_steep or not run["verified"]


def say(run):
    """One line of JSON, without the curve."""
    print(json.dumps({name: value for name, value in run.items() if name != "rss"}), flush=True)  # noqa: T201


def padded_schemas(folder):
    """A copy of the shipped schemas with a further writer version of the event; returns (folder, its number)."""
    shutil.copytree(ROOT / "schemas", folder, dirs_exist_ok=True)
    event = json.loads((folder / "churn_event.avsc").read_text())
    event["fields"].append({"name": "notes", "type": "string", "default": "x" * TEXT_BYTES})
    numbers = [int(path.stem.rpartition("_v")[2]) for path in (ROOT / "schemas/history").glob("churn_event_v*.avsc")]
    number = max(numbers) + 1
    (folder / f"history/churn_event_v{number}.avsc").write_text(json.dumps(event))
    return folder, str(number)


class Bench:
    """One broker, one model, the schemas of both sizes of event."""

    def __init__(self, servers, work):
        self._servers, self._work, self._kafka = servers, work, KafkaOptions(servers)
        schemas, self._padded_version = padded_schemas(work / "schemas")
        self._contenders = Contenders(beside_python("inference-worker"), schemas, work)
        self._contenders.store("logistic")

    def drained(self, record_bytes, events):
        """Peak and course of memory while one worker drains a backlog."""
        large = ["--writer-versions", self._padded_version] if record_bytes == LARGE_BYTES else []
        watches = []

        def watching(peer):
            watches.append(MemoryWatch(peer))
            return watches[0]

        with self._lane() as lane:
            sent = loadgen(*self._produce(lane), "--events", str(events), *large)["produced"]
            started = self._contenders.started(MODE, lane, "logistic", Tuning())
            drained = drain(lane, started, events, self._log(lane), watching)
        samples = watches[0].samples
        return {
            "bytes_per_event": round(sent["bytes"] / events, 1),  # keys included
            "peak_mb": drained.peak_mb,
            "events_per_s": drained.events_per_s,
            "cpu_s_per_million": drained.cpu_s_per_million,
            "rss": thinned(samples),
        }

    def soaked(self, seconds, rate):
        """How memory went over a long run, and whether every event had its outcome."""
        with self._lane() as lane, contextlib.ExitStack() as running:
            log = self._log(lane)
            first = running.enter_context(self._worker(lane, log))
            wait_until_assigned(first)
            before = scrape(log)
            watch = running.enter_context(MemoryWatch(first))
            senders = []
            for sender in self._senders(lane, seconds, rate):
                senders.append(running.enter_context(sender))
                running.callback(sender.kill)
            joins, second_peak_mb = self._rebalances(lane, first, senders)
            events = sum(json.loads(sender.communicate()[0])["produced"]["events"] for sender in senders)
            with contextlib.closing(GroupOffsets(self._kafka, lane.group, lane.input)) as offsets:
                wait_until(lambda: offsets.committed() >= events, CATCH_UP_S, first, "the end of the backlog")
            after = scrape(log)
            peak_mb = first.peak_mb()
            first.stop(must_end_well=True)
            wrong = self._wrong(lane)
        from_s = min(WARM_S, seconds / 6)
        return {
            "events": events,
            "events_per_s": round(events / seconds, 1),
            "mean_batch": batches_between(before, after).mean_records or 0.0,
            "joins": joins,
            "rebalances": int(after.total("inference_rebalances_total") - before.total("inference_rebalances_total")),
            "peak_mb": round(peak_mb, 1),
            "second_peak_mb": round(second_peak_mb, 1),
            "from_s": from_s,
            "slope_mb_per_10_min": round(slope_mb_per_10_min(watch.samples, from_s), 3),
            "verified": wrong is None,
            "wrong": wrong,
            "rss": thinned(watch.samples),
        }

    def _rebalances(self, lane, first, senders):
        """Until all is sent: a second worker joins, and leaves; returns (how often, its highest peak)."""
        joins, peak_mb = 0, 0.0
        while not sent_all(senders):
            rest(REBALANCE_EVERY_S / 2, first, senders)
            if sent_all(senders):
                break
            joins += 1
            with self._worker(lane, self._log(lane, joins), f"{lane.group}-second") as second:
                wait_until_assigned(second)
                rest(REBALANCE_EVERY_S / 2, first, senders, second)
                peak_mb = max(peak_mb, second.peak_mb())
                second.stop(must_end_well=True)
        return joins, peak_mb

    def _worker(self, lane, log, instance_id=None):
        own = {"worker.instance_id": instance_id} if instance_id else {}
        started = self._contenders.started(MODE, lane, "logistic", Tuning(worker=own))
        return PeerProcess(started.command, started.environment, log)

    def _senders(self, lane, seconds, rate):
        """A sine and spikes, so that batches have all shapes; together `rate` on average."""
        spike = rate * (1 - SINE_SHARE) * SPIKE_EVERY_S / SPIKE_S
        paces = (
            ("sine", rate * SINE_SHARE * 0.1, rate * SINE_SHARE * 1.9, SINE_PERIOD_S),
            ("spike", 0.0, spike, SPIKE_EVERY_S),
        )
        for profile, low, peak, period_s in paces:
            yield subprocess.Popen(
                [
                    sys.executable, "-m", "loadgen", *self._produce(lane), "--duration", str(seconds), "--json",
                    "--profile", profile, "--rate", str(low), "--peak", str(peak), "--period", str(period_s),
                    "--spike", str(SPIKE_S),
                ],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean_environment({}),
            )  # fmt: skip

    def _produce(self, lane):
        return ["produce", "--bootstrap", self._servers, "--topic", lane.input, "--schemas", self._schemas]

    @property
    def _schemas(self):
        return str(self._contenders.schemas)

    def _wrong(self, lane):
        """What loadgen found when it looked for the one outcome of every event; None if each has it."""
        try:
            loadgen(
                "verify", "--bootstrap", self._servers, "--input", lane.input, "--predictions", lane.output,
                "--dead-letters", lane.dead_letters, "--schemas", self._schemas, "--timeout", str(VERIFY_S),
                "--store", str(self._contenders.store("logistic")),
            )  # fmt: skip
        except LoadgenError as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def _lane(self):
        name = f"soak-{uuid.uuid4().hex[:6]}"
        topics = [f"{name}.events", f"{name}.predictions", f"{name}.dead-letters"]
        create(self._kafka, topics)
        try:
            yield Lane(self._servers, *topics, name)
        finally:
            delete(self._kafka, topics)

    def _log(self, lane, number=0):
        return self._work / "logs" / f"{lane.group}-{number}.log"


def sent_all(senders):
    """Whether they have ended. Raises LoadgenError if one of them badly."""
    if any(sender.poll() for sender in senders):
        raise LoadgenError("sending failed")
    return all(sender.poll() is not None for sender in senders)


def rest(seconds, first, senders, second=None):
    """Wait so long, or until all is sent; raises if a worker has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not sent_all(senders):
        first.check()
        if second is not None:
            second.check()
        time.sleep(0.25)


def wait_until_assigned(peer):
    """Until a worker that was just started owns partitions."""
    wait_until(lambda: "partitions_assigned" in peer.tail(), JOIN_S, peer, "partitions for a worker")


def wait_until(condition, within_s, peer, what):
    """Poll; raises LoadgenError if it takes too long or the worker ends."""
    until = time.monotonic() + within_s
    while not condition():
        peer.check()
        if time.monotonic() > until:
            raise LoadgenError(f"not within {within_s:g} s: {what}")
        time.sleep(0.25)


if __name__ == "__main__":
    main()
