"""How each contender is started for one run: its command, and what it is told."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadgen.bench.commands import output_of
from loadgen.bench.plan import WORKERS, External
from loadgen.bench.quix_venv import is_installed, quix_python, quix_source
from loadgen.bench.slow_model import SlowWorker
from loadgen.bench.worker_settings import MODEL, WORKER_BATCH, Lane, Tuning, worker_settings
from loadgen.errors import MissingExtra

SCRIPTS: Mapping[str, str] = {
    "naive": "naive_poll",
    "fastavro": "fastavro_batches",
    "faust": "faust_take",
    "quix": "quix_sink",
    "forward": "forward",
}
BATCH: Mapping[str, int] = {"naive": 1, "fastavro": 500, "faust": 256, "quix": 500, "forward": 512}


@dataclass(frozen=True, slots=True)
class Started:
    """A process to start. ends_well: it must end with status 0 when it is told to stop."""

    command: Sequence[str]
    environment: Mapping[str, str]
    ends_well: bool = False


@dataclass(slots=True)
class Contenders:
    """Knows where everything is.

    worker: the program `inference-worker`. work: a directory for models, configurations and environments.
    """

    worker: str
    schemas: Path
    work: Path
    external: External | None = None
    _stores: dict[str, Path] = field(default_factory=dict)

    def store(self, estimator: str) -> Path:
        """A model store with one version of the churn model; trained when it is first asked for."""
        if estimator not in self._stores:
            store = self.work / "models" / estimator
            if not (store / MODEL / "1" / "model.onnx").exists():
                output_of(self.worker, "models", "train", MODEL, "--estimator", estimator, "--store", str(store))
            self._stores[estimator] = store
        return self._stores[estimator]

    def prepare(self, name: str) -> None:
        """Install what is missing. Raises LoadgenError if that cannot be done."""
        if name == "faust" and not is_installed("faust"):
            raise MissingExtra("faust-streaming is not installed: kafka-inference-worker[monitor]")
        if name == "quix":
            quix_python(self.work / "quix-venv")

    def started(self, name: str, lane: Lane, estimator: str, tuning: Tuning) -> Started:
        """What to start for one run."""
        if name in WORKERS:
            return self._worker([self.worker], name, lane, self.store(estimator), tuning)
        told = self._told(lane, estimator, tuning, BATCH.get(name, WORKER_BATCH))
        if self.external and name == self.external.name:
            return Started(self.external.command, told)
        python = sys.executable
        if name == "quix":
            python = quix_python(self.work / "quix-venv")
            told["BENCH_WAIT_S"] = str(tuning.checkpoint_s)
            told["PYTHONPATH"] = str(quix_source(self.work / "quix-source"))
        return Started([python, "-m", f"loadgen.bench.peers.{SCRIPTS[name]}"], told)

    def onnx_alone(self, estimator: str) -> dict[str, float]:
        """rows_per_s and cpu_s_per_million of the model without anything around it, in the worker's batch size."""
        nowhere = Lane("", "", "", "", "")
        told = self._told(nowhere, estimator, Tuning(), WORKER_BATCH)
        printed = output_of(sys.executable, "-m", "loadgen.bench.peers.onnx_alone", environment=told)
        figures: dict[str, float] = json.loads(printed)
        return figures

    def _told(self, lane: Lane, estimator: str, tuning: Tuning, batch: int) -> dict[str, str]:
        return {
            "BENCH_BOOTSTRAP": lane.bootstrap,
            "BENCH_INPUT": lane.input,
            "BENCH_OUTPUT": lane.output,
            "BENCH_GROUP": lane.group,
            "BENCH_MODEL": str(self.store(estimator) / MODEL / "1"),
            "BENCH_SCHEMAS": str(self.schemas.absolute()),
            "BENCH_BATCH": str(batch),
            "BENCH_WAIT_S": str(tuning.wait_s),
            "BENCH_LINGER_MS": str(tuning.linger_ms),
            "BENCH_COMMIT_S": str(tuning.commit_s),
        }

    def slow_worker(self, slow: SlowWorker, mode: str, lane: Lane, tuning: Tuning, member: int = 0) -> Started:
        """The worker with a model of fixed cost. member: which one it is of the several of a group."""
        own = replace(tuning, worker={**tuning.worker, "worker.instance_id": f"{lane.group}-{member}"})
        started = self._worker(slow.command, mode, lane, self.store("logistic"), own, member)
        return replace(started, environment=slow.environment())

    def _worker(
        self, program: Sequence[str], mode: str, lane: Lane, store: Path, tuning: Tuning, member: int = 0
    ) -> Started:
        settings = worker_settings(mode, lane, store, self.schemas, tuning)
        config = self.work / "logs" / f"{lane.group}-{member}.yaml"
        config.write_text(json.dumps(settings, indent=2), encoding="utf-8")  # JSON is YAML
        return Started([*program, "run", "--config", str(config)], {}, ends_well=True)
