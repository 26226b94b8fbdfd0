"""One sitting: every run of the chosen sections, one after the other on one broker, written down as they come."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from loadgen.bench.broker import PARTITIONS, create, delete
from loadgen.bench.commands import loadgen
from loadgen.bench.contenders import Contenders
from loadgen.bench.drain import Drained, drain
from loadgen.bench.latency_run import Load, latency_run
from loadgen.bench.objective_run import objective_run
from loadgen.bench.plan import WORKERS, BenchPlan, turns
from loadgen.bench.results import Results, Section, in_short
from loadgen.bench.scale_run import Crew, scale_run
from loadgen.bench.slow_model import SCALE_PARTITIONS, SlowWorker
from loadgen.bench.worker_settings import WORKER_BATCH, Lane, Tuning, worker_settings
from loadgen.errors import LoadgenError
from loadgen.kafka_client import KafkaOptions

VERIFY_TIMEOUT_S = 900.0

Say = Callable[[str], None]
Measure = Callable[[], dict[str, Any]]


class Sitting:
    """Runs a plan. A contender that fails is written down as failed, and the others go on."""

    def __init__(self, plan: BenchPlan, bootstrap: str, contenders: Contenders, results: Results, say: Say) -> None:
        """`results` is saved after each run; `say` is told each one in a line."""
        self._plan, self._bootstrap, self._contenders = plan, bootstrap, contenders
        self._draining = Tuning(worker=plan.worker_set)
        # as docs/OPERATIONS.md advises for a model that takes some microseconds a row
        self._forest_tuning = Tuning(worker={"models.threads_per_run": 1, **plan.worker_set})
        self._results, self._say = results, say
        self._kafka = KafkaOptions(bootstrap)
        self._name = f"bench-{uuid.uuid4().hex[:6]}"
        self._backlogs: dict[int, str] = {}
        self._unusable: dict[str, str] = {}
        self._runs = 0
        self.failures = 0

    def run(self) -> None:
        """Measure everything. Raises LoadgenError if the broker or the events are not to be had."""
        try:
            self._prepare()
            if "drain" in self._plan.sections:
                self._drains()
            if "latency" in self._plan.sections:
                self._latencies()
            if "batch" in self._plan.sections:
                self._batch_curve()
            if "forest" in self._plan.sections:
                self._forest()
            if self._plan.slow is not None and "objective" in self._plan.sections:
                self._objective(self._plan.slow)
            if self._plan.slow is not None and "scale" in self._plan.sections:
                self._scale(self._plan.slow)
        finally:
            delete(self._kafka, list(self._backlogs.values()))

    def _prepare(self) -> None:
        (self._contenders.work / "logs").mkdir(parents=True, exist_ok=True)
        for name in self._plan.peers:
            try:
                self._contenders.prepare(name)
            except LoadgenError as error:
                self._unusable[name] = str(error)
        if set(self._plan.sections) - {"forest"}:
            self._contenders.store("logistic")
        if "forest" in self._plan.sections:
            self._contenders.store("forest")
        for count in sorted(self._plan.backlogs()):
            self._say(f"sending {count:,} events")
            topic = f"{self._name}.events.{count}"
            create(self._kafka, [topic])
            self._backlogs[count] = topic
            self._send(topic, count)

    def _send(self, topic: str, count: int) -> None:
        loadgen(
            "produce", "--bootstrap", self._bootstrap, "--topic", topic, "--events", str(count),
            "--schemas", str(self._contenders.schemas),
        )  # fmt: skip

    def _drains(self) -> None:
        plan = self._plan
        events = plan.drained()
        section = self._begin("drain", self._draining, {"events": events, "rounds": plan.rounds})
        for number, name in turns(list(events), plan.rounds):
            external = plan.external if plan.external and name == plan.external.name else None
            topic = external.topic if external and external.topic else self._backlogs[events[name]]
            checked = plan.verify and number == 0 and name in WORKERS
            self._record(
                section,
                {"round": number, "contender": name},
                partial(self._drain, name, topic, events[name], "logistic", self._draining, verify=checked),
            )

    def _latencies(self) -> None:
        plan = self._plan
        wait_s = plan.latency_wait_s
        worker = {**plan.worker_set, **plan.latency_set}
        tuning = Tuning(wait_s=wait_s, linger_ms=0.0, checkpoint_s=wait_s, worker=worker)
        rounds = plan.fewer_rounds()
        told = {"seconds": plan.seconds, "warmup_s": plan.warmup_s, "rounds": rounds}
        section = self._begin("latency", tuning, told)
        for rate, (number, name) in product(plan.rates, turns(plan.peers, rounds)):
            self._record(
                section,
                {"round": number, "contender": name, "rate": rate},
                partial(self._latency, name, Load(rate, plan.seconds, plan.warmup_s), tuning),
            )

    def _batch_curve(self) -> None:
        plan, mode = self._plan, self._plan.curve_mode()
        rounds = plan.fewer_rounds()
        section = self._begin("batch", self._draining, {"mode": mode, "rounds": rounds})
        for number, size in turns(plan.batch_sizes, rounds):
            count = plan.curve_events(size)
            topic, tuning = self._backlogs[count], replace(self._draining, batch=size)
            self._record(
                section,
                {"round": number, "contender": mode, "batch": size},
                partial(self._drain, mode, topic, count, "logistic", tuning, verify=False),
            )

    def _forest(self) -> None:
        plan = self._plan
        names = [*plan.forest_contenders(), "onnx_alone"]
        settings = {"events": plan.forest_events, "rounds": plan.rounds, "batch": WORKER_BATCH}
        section = self._begin("forest", self._forest_tuning, settings)
        for number, name in turns(names, plan.rounds):
            checked = plan.verify and number == 0 and name in WORKERS
            self._record(
                section,
                {"round": number, "contender": name},
                partial(self._forest_run, name, verify=checked),
            )

    def _objective(self, slow: SlowWorker) -> None:
        plan = self._plan.objective
        capacity = slow.capacity(WORKER_BATCH)
        told = {"slo_s": plan.slo_s, "modes": list(plan.modes), "seconds": plan.seconds, "warmup_s": plan.warmup_s}
        section = self._begin("objective", self._draining, {**told, **_slow_settings(slow, capacity)})
        for mode, load, (policy, batch) in product(plan.modes, plan.loads, plan.policies().items()):
            tuning = Tuning(worker={**self._plan.worker_set, **{f"pipelines.batch.{k}": v for k, v in batch.items()}})
            step = Load(plan.rate(load, capacity), plan.seconds, plan.warmup_s)
            self._record(
                section,
                {"contender": mode, "load": load, "policy": policy, "events_per_s_due": step.rate},
                partial(self._objective_step, slow, mode, step, tuning),
            )

    def _objective_step(self, slow: SlowWorker, mode: str, load: Load, tuning: Tuning) -> dict[str, Any]:
        with self._lane(None) as lane:
            started = self._contenders.slow_worker(slow, mode, lane, tuning)
            slo_s = self._plan.objective.slo_s
            return objective_run(lane, started, load, slo_s, self._contenders.schemas, self._log(lane))

    def _scale(self, slow: SlowWorker) -> None:
        plan, mode = self._plan.scale, self._plan.curve_mode()
        capacity = slow.capacity(WORKER_BATCH)
        told = {"mode": mode, "partitions": SCALE_PARTITIONS, "rounds": plan.rounds, "window_s": plan.window_s}
        section = self._begin("scale", self._draining, {**told, **_slow_settings(slow, capacity)})
        for number, (how, workers) in turns(plan.shapes(), plan.rounds):
            self._record(
                section,
                {"round": number, "contender": mode, "how": how, "workers": workers},
                partial(self._scale_run, slow, mode, how, workers),
            )

    def _scale_run(self, slow: SlowWorker, mode: str, how: str, workers: int) -> dict[str, Any]:
        plan = self._plan.scale
        apart = workers if how == "workers" else 1
        shared = {"worker.processes": workers // apart}
        tuning = replace(self._draining, worker={**self._draining.worker, **shared})
        with self._lane(None, SCALE_PARTITIONS) as lane:
            crew = Crew(
                [
                    (self._contenders.slow_worker(slow, mode, lane, tuning, member), self._log(lane, member))
                    for member in range(apart)
                ],
                workers,
            )
            events = plan.events(workers, slow.capacity(WORKER_BATCH))
            return asdict(scale_run(lane, crew, plan.window_s, partial(self._send, lane.input, events)))

    def _forest_run(self, name: str, *, verify: bool) -> dict[str, Any]:
        if name == "onnx_alone":
            alone = self._contenders.onnx_alone("forest")
            return {"events_per_s": alone["rows_per_s"], "cpu_s_per_million": alone["cpu_s_per_million"]}
        count = self._plan.forest_events
        return self._drain(name, self._backlogs[count], count, "forest", self._forest_tuning, verify=verify)

    def _drain(
        self, name: str, topic: str, count: int, estimator: str, tuning: Tuning, *, verify: bool
    ) -> dict[str, Any]:
        with self._lane(topic) as lane:
            started = self._contenders.started(name, lane, estimator, tuning)
            drained: Drained = drain(lane, started, count, self._log(lane))
            if verify:
                self._verify(name, lane, estimator)
            return asdict(drained) | {"verified": verify}

    def _latency(self, name: str, load: Load, tuning: Tuning) -> dict[str, Any]:
        with self._lane(None) as lane:
            started = self._contenders.started(name, lane, "logistic", tuning)
            return latency_run(lane, started, load, self._contenders.schemas, self._log(lane))

    def _verify(self, mode: str, lane: Lane, estimator: str) -> None:
        """Every event has exactly the outcome it should have; raises LoadgenError if not."""
        relaxed = ["--at-least-once"] if mode == "at_least_once" else []
        loadgen(
            "verify", "--bootstrap", lane.bootstrap, "--input", lane.input, "--predictions", lane.output,
            "--dead-letters", lane.dead_letters, "--store", str(self._contenders.store(estimator)),
            "--schemas", str(self._contenders.schemas), "--timeout", str(VERIFY_TIMEOUT_S), *relaxed,
        )  # fmt: skip

    @contextmanager
    def _lane(self, topic: str | None, partitions: int = PARTITIONS) -> Iterator[Lane]:
        """Fresh outputs, and inputs if no topic is given; deleted afterwards."""
        self._runs += 1
        prefix = f"{self._name}.{self._runs}"
        predictions, dead_letters = f"{prefix}.predictions", f"{prefix}.dead-letters"
        made = [predictions, dead_letters, *([] if topic else [f"{prefix}.events"])]
        create(self._kafka, made, partitions)
        try:
            group = f"{self._name}-{self._runs}"
            yield Lane(self._bootstrap, topic or made[-1], predictions, dead_letters, group)
        finally:
            delete(self._kafka, made)

    def _begin(self, section: str, tuning: Tuning, settings: dict[str, Any]) -> Section:
        lane = Lane("HOST:PORT", "events", "predictions", "dead-letters", "group")
        told = worker_settings("exactly_once", lane, Path("/models"), Path("/schemas"), tuning)
        worker = {"batch": told["pipelines"][0]["batch"], "set": dict(tuning.worker)}
        peers = {name: getattr(tuning, name) for name in ("wait_s", "linger_ms", "commit_s", "checkpoint_s")}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return self._results.begin(section, at, {**settings, "peers": peers, "worker": worker})

    def _log(self, lane: Lane, member: int = 0) -> Path:
        return self._contenders.work / "logs" / f"{lane.group}-{member}.log"

    def _record(self, section: Section, facts: dict[str, Any], measure: Measure) -> None:
        """Measure, write down, say."""
        name = facts["contender"]
        what = " ".join(f"{key} {value}" for key, value in facts.items() if key != "contender")
        try:
            figures = {"error": self._unusable[name]} if name in self._unusable else measure()
        except LoadgenError as error:
            figures = {"error": str(error)}
        self.failures += "error" in figures
        section["runs"].append(facts | figures)
        self._results.save()
        self._say(f"{name:<14} {what}: {summary_line(figures)}")


def _slow_settings(slow: SlowWorker, capacity: float) -> dict[str, Any]:
    return {"model": {"batch_s": slow.batch_s, "row_s": slow.row_s}, "capacity": round(capacity, 1)}


def summary_line(figures: dict[str, Any]) -> str:
    """One run in a line."""
    if "error" in figures:
        return f"FAILED: {in_short(figures['error'])}"
    if "p50" in figures:
        missing = f", {figures['missing']:,} MISSING" if figures["missing"] else ""
        on_time = f", {figures['share_on_time'] * 100:.2f} % on time" if "share_on_time" in figures else ""
        batch = f", {figures['mean_batch']:.1f} a batch" if figures.get("mean_batch") else ""
        return (
            f"p50 {figures['p50']:.1f}, p99 {figures['p99']:.1f}, p99.9 {figures['p99_9']:.1f} ms"
            f"{on_time}{batch}{missing}"
        )
    memory = f", {figures['peak_mb']:.0f} MB" if "peak_mb" in figures else ""
    return f"{figures['events_per_s']:,.0f}/s, {figures['cpu_s_per_million']:.2f} CPU s per million{memory}"
