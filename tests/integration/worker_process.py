"""The worker as operators run it: a process of its own, told by a settings file, watched from outside.

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        ...
        assert worker.stop() == 0

A test that fails inside the block shows the end of the worker's log. Whoever still runs at the end of the block
is killed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0  # generous: bounds are asserted apart, and starting a worker took 50 s on a machine busy with others
LOG_TAIL_LINES = 40
NOT_INHERITED = ("INFERENCE_", "KAFKA_", "SCHEMA_REGISTRY_")


def wait_until(condition, what, within_s=WAIT_S):
    """Poll until `condition()` is true and return what it gave; `what` names it if that takes too long."""
    deadline = time.monotonic() + within_s
    while not (given := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what() if callable(what) else what}"
        time.sleep(0.02)
    return given


def owned(worker):
    """Partitions whose lag it exports."""
    return {int(partition) for (partition,) in worker.metrics().of("inference_lag_records", "partition")}


def clean_environment(**more):
    """Ours, without what would override a settings file."""
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)} | more


class Samples:
    """One scrape."""

    def __init__(self, text):
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def of(self, name, *labels):
        """Label values → value, of every series with this name."""
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for sample in self._samples
            if sample.name == name
        }

    def total(self, name, **labels):
        """The sum of the series with this name and these labels."""
        return sum(
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def lines(self):
        """As text, but for zeros and histograms."""
        return [
            f"{sample.name}{sample.labels or ''} {sample.value:g}"
            for sample in self._samples
            if sample.value and not sample.name.endswith(("_bucket", "_sum", "_created", "_info"))
        ]

    def records(self, outcome=None, **labels):
        """Finished input records."""
        more = {"outcome": outcome} if outcome else {}
        return self.total("inference_records_total", **labels, **more)


class WorkerProcess:
    """One `python -m app run`; module: another entry point with the same command line. command: instead of run."""

    def __init__(self, settings, folder, *, module="app", command="run", **environment):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("worker-*.yaml")))
        config = folder / f"worker-{number}.yaml"
        config.write_text(yaml.safe_dump(settings))
        self._log = folder / f"worker-{number}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, command, "--config", config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=clean_environment(**environment),
            )

    @property
    def pid(self):
        return self._process.pid

    @property
    def lives(self):
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def log(self):
        """Everything it said."""
        return self._log.read_text(errors="replace")

    def said(self, event):
        """The log lines of this event, as dicts."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                if isinstance(fields, dict) and fields.get("event") == event:
                    found.append(fields)
        return found

    @property
    def port(self):
        """Of its probes, once it has started."""
        return wait_until(lambda: self.said("started") or not self.lives, "the worker to start")[0]["http_port"]

    def get(self, path):
        """(status, text) of an HTTP GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode().rstrip("\n")
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode().rstrip("\n")

    def metrics(self):
        """What it exports now."""
        status, text = self.get("/metrics")
        assert status == 200
        return Samples(text)

    def wait_until_ready(self):
        """Until it has joined its groups."""
        self.wait_until(lambda: self.said("started"), "the worker to start")
        self.wait_until(lambda: self.get("/readyz")[0] == 200, "the worker to be ready")
        return self

    def wait_until_assigned(self):
        """Until it owns partitions."""
        return self.wait_until(lambda: self.said("partitions_assigned"), "partitions to be assigned")

    def wait_until(self, condition, what):
        """As the function, while the worker lives."""

        def met_or_dead():
            given = condition()
            assert given or self.lives, f"the worker ended with {self._process.returncode} before: {what}"
            return given

        return wait_until(met_or_dead, what)

    def wait_for_records(self, count, outcome=None):
        """Until at least so many input records are finished."""
        return self.wait_until(
            lambda: self.metrics().records(outcome) >= count, lambda: f"{count} records, now {self.metrics().records()}"
        )

    def terminate(self):
        """SIGTERM, and wait for nothing."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.terminate()
        return self.wait()

    def kill(self):
        """SIGKILL; the process is gone afterwards."""
        self._process.kill()
        self._process.wait(WAIT_S)

    def wait(self):
        """Returns the exit status once it has ended."""
        return self._process.wait(WAIT_S)

    def state(self):
        """What it counts and gauges, but for zeros and histograms, as far as it still answers."""
        with contextlib.suppress(OSError, AssertionError):
            return "\n  ".join(["state:", *self.metrics().lines()])
        return "state: no answer"

    def tail(self):
        """The end of the log."""
        lines = self.log.splitlines()[-LOG_TAIL_LINES:]
        return "\n  ".join([f"{self._log.name} (exit status {self._process.poll()}):", *lines])


@contextlib.contextmanager
def running_worker(settings, folder, **environment):
    """A worker for the length of a block."""
    worker = WorkerProcess(settings, folder, **environment)
    try:
        yield worker
    except BaseException as exc:
        exc.add_note(worker.tail())
        if worker.lives:
            exc.add_note(worker.state())
        raise
    finally:
        worker.kill()


def refused_start(settings, folder, **environment):
    """(what it said, seconds until it ended) of a worker that must end with status 2, without a traceback."""
    before = time.monotonic()
    with running_worker(settings, folder, **environment) as worker:
        assert worker.wait() == 2
        assert "Traceback" not in worker.log
        return worker.log, time.monotonic() - before
