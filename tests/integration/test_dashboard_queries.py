"""Every question of every dashboard has an answer, and every rule can be evaluated: on a real Prometheus.

First it scrapes what really runs, under load: a worker on the real broker, the monitor, a server and the lag exporter.
What stays without an answer then has to be in RARE, with the reason why that run cannot show it. Then it scrapes an
endpoint as well to which all of that happens, and nothing may stay without an answer.
"""

import json
import math
import re
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from eventful import Eventful
from rig import ROOT, Lane
from test_rest_process import FEATURES, serving
from worker_process import running_worker, wait_until

from deploy.local.prometheus_server import PrometheusServer

DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
PROMETHEUS = ROOT / "deploy/prometheus"
WINDOW = "10s"  # for $__rate_interval, at a scrape a second
EVERYTHING = ".*"
STANDSTILL_S = 45.0  # so long nothing more was answered: what is left will not be
ANSWERED_WITHIN_S = 240.0
FIRING = 'ALERTS{alertname=~"Inference.+",alertstate="firing"}'

# panel → why a worker that nothing happens to does not show it
RARE = {
    "Firing alerts": "nothing is wrong",
    "Drifted": "the events are as those of training, if chance wants it",
    "Missing, unknown, outside": "no category is new, and only chance puts a value outside",
    "Looks at the store that failed": "the store is readable",
    "Looks at the model store that failed": "the store is readable",
    "Rows compared": "there is no shadow",
    "Difference to stable": "there is no shadow",
    "Time in the shadow": "there is no shadow",
    "Shadow processes lost": "there is no shadow",
    "Cache": "no cache is configured",
    "Batches that a version failed on": "none did",
    "Rows without a usable answer": "there is none",
    "Starts": "there is no supervisor",
    "Processes of a supervisor": "there is no supervisor",
    "Partition counts changed": "they did not",
    "Traced batches": "there is no collector",
    "Spans": "there is no collector",
    "Not usable": "the monitor can use everything",
    "Right answers": "no outcome is known",
    "Becoming known": "no outcome is known",
    "Judged": "no outcome is known",
    "Accuracy": "no outcome is known",
    "AUC and calibration error": "no outcome is known",
    "Log loss": "no outcome is known",
    "Joining": "no outcome is known",
    "Sample": "no outcome is known",
    "Why that many": "the exporter has to measure a capacity first",
    "Capacity of a process": "the exporter has to measure one first",
}
SOMETIMES = {
    "Drifted",
    "Missing, unknown, outside",
    "Starts",
    "Why that many",
    "Capacity of a process",
}  # of those, the ones that may have an answer all the same


class Question:
    """One query of a dashboard, as Grafana would send it with everything chosen. label: what a variable wants of it."""

    def __init__(self, board, panel, expr, label=None):
        self.board, self.panel, self._label = board, panel, label
        expr = expr.replace("$__rate_interval", WINDOW)
        self.expr = re.sub(r"\$(?:\{(\w+)\}|(\w+))", EVERYTHING, expr)

    def __repr__(self):
        return f"{self.board} / {self.panel}: {self.expr}"

    def answered_by(self, prometheus):
        samples = prometheus.query(self.expr)
        if self._label:
            return any(sample.labels.get(self._label) for sample in samples)
        return any(math.isfinite(sample.value) for sample in samples)


def questions():
    found = []
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            found += [Question(path.stem, panel["title"], target["expr"]) for target in panel.get("targets", ())]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                values = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                found.append(Question(path.stem, f"${variable['name']}", values[1], values[2]))
    return found


@pytest.fixture
def product(kafka, topics, models, tmp_path):
    """A worker, the monitor, a server and the lag exporter. job → address."""
    lane = Lane(kafka, "churn", (topics("churn.events", 3),), topics("churn.predictions", 3),
                topics("churn.dead-letters", 3), models)  # fmt: skip
    watched = {"summary_topic": topics("churn.summaries", 3), "sample_topic": topics("churn.sampled", 3), "bucket_s": 5}
    settings = lane.settings(
        pipeline={"batch": {"slo_s": 30}, "monitoring": watched},
        monitor={
            "group_id": f"monitor-{uuid.uuid4().hex[:12]}", "publish_topic": topics("inference.monitor"),
            "window_s": 5, "grace_s": 0.5, "keep_s": 600, "publish_s": 0.3, "drift": {"min_rows": 50},
        },
        lag={"poll_s": 1, "scaling": {"reaction_s": 1}},
    )  # fmt: skip
    own = {name: section for name, section in settings.items() if name not in {"monitor", "lag"}}
    with ExitStack() as stack:
        processes = {}
        for job, asked, command in (("lag", settings, "lag"), ("monitor", settings, "monitor"), ("worker", own, "run")):
            process = stack.enter_context(running_worker(asked, tmp_path / job, command=command))
            process.wait_until(lambda: process.said("started"), f"the {job} to start")  # noqa: B023
            processes[job] = process
        server = stack.enter_context(serving(models, tmp_path)).wait_until_ready()
        processes["worker"].wait_until_ready()
        _under_load(stack, lane, server)
        yield {job: f"127.0.0.1:{process.port}" for job, process in processes.items()} | {
            "server": f"127.0.0.1:{server.port}"
        }


def _under_load(stack, lane, server):
    """Events, some of them broken, and requests, until the stack is closed."""
    over = threading.Event()

    def produce():
        while not over.is_set():
            lane.produce(1_500, poison=0.02, rate=1_500)

    def ask():
        while not over.wait(0.2):
            server.ask("/predict", {"features": FEATURES})

    for work in (produce, ask):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        stack.callback(thread.join, 30)
    stack.callback(over.set)


@pytest.fixture
def prometheus(tmp_path):
    """One with our own configuration and rules, quicker, and with addresses instead of names."""
    folder = tmp_path / "configuration"
    folder.mkdir()
    for path in PROMETHEUS.glob("*.rules.yaml"):
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / path.name).write_text(yaml.safe_dump(rules))
    with Scraper(folder) as server:
        yield server


class Scraper(PrometheusServer):
    """scrapes: what, by job; several addresses of one."""

    def __init__(self, folder: Path):
        self._file = folder / "prometheus.yml"
        self.scrapes({})
        super().__init__(folder / "data", self._file)

    def scrapes(self, *addresses):
        configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        configuration["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in configuration["scrape_configs"]:
            del job["dns_sd_configs"]
            targets = [found[job["job_name"]] for found in addresses if job["job_name"] in found]
            job["static_configs"] = [{"targets": targets}]
        self._file.write_text(yaml.safe_dump(configuration))


@pytest.mark.timeout(900)  # a quiet machine takes 60 s
def test_every_question_of_every_dashboard_has_an_answer_and_no_rule_fails(product, prometheus):
    asked = questions()
    prometheus.scrapes(product)
    prometheus.reload()

    unanswered = _unanswered(prometheus, asked, RARE)
    assert not [question for question in unanswered if question.panel not in RARE]
    assert prometheus.query(FIRING) == []

    with Eventful() as eventful:
        prometheus.scrapes(product, eventful.addresses)
        prometheus.reload()
        assert not _unanswered(prometheus, asked, {})
        wait_until(lambda: prometheus.query(FIRING), "an alert to fire")  # as the boards' annotations ask for them
    assert RARE.keys() - {question.panel for question in unanswered} <= SOMETIMES
    assert {rule["name"]: rule["lastError"] for rule in prometheus.rules() if rule["health"] != "ok"} == {}
    jobs = {"worker", "monitor", "server", "lag"}
    wait_until(lambda: {one.job for one in prometheus.targets() if one.health == "up"} == jobs, "all jobs to be up")


def _unanswered(prometheus, asked, excused):
    """Those without an answer once all others have one, or when none has got one for STANDSTILL_S."""
    left, answered_at = asked, time.monotonic()

    def over():
        nonlocal left, answered_at
        still = [question for question in left if not question.answered_by(prometheus)]
        if len(still) < len(left):
            left, answered_at = still, time.monotonic()
        only_excused = all(question.panel in excused for question in left)
        return only_excused or time.monotonic() > answered_at + STANDSTILL_S

    wait_until(over, lambda: f"answers to {left}", ANSWERED_WITHIN_S)
    return left
