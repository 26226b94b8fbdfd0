"""`loadgen bench`, cut down to seconds: everything it measures is written down, and its leftovers are gone."""

import json
import shutil
import subprocess
import sys

import pytest
from confluent_kafka.admin import AdminClient
from rig import ROOT

# and events: a drain that is over while this process has no turn is not measured, and the quickest do 60,000 in 0.1 s
PEERS = {"at_least_once": 300_000, "naive": 60_000, "forward": 600_000}
pytestmark = pytest.mark.timeout(600)  # scale-out took two minutes on two idle cores


def bench(kafka, folder, *arguments):
    """Run it; returns (exit status, standard error)."""
    done = subprocess.run(
        [
            sys.executable, "-m", "loadgen", "bench", "--quick", "--bootstrap", kafka, "--out", str(folder / "out"),
            "--work", str(folder / "work"), "--pairs", "1", *arguments,
        ],
        capture_output=True, text=True, timeout=560, cwd=ROOT, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path, models):
    """Where it writes; with a model, so that none is trained."""
    shutil.copytree(models, tmp_path / "work" / "models" / "logistic")
    return tmp_path


def test_a_small_sitting_measures_the_worker_beside_its_peers_and_writes_the_page(kafka, folder):
    counts = [argument for name, count in PEERS.items() for argument in ("--count", f"{name}={count}")]

    status, said = bench(
        kafka, folder, "--only", "drain,latency", "--peers", ",".join(PEERS), *counts,
        "--rates", "200", "--seconds", "2", "--warmup", "0.5",
    )  # fmt: skip

    assert status == 0, said
    sections = json.loads((folder / "out/benchmarks/results.json").read_text())["sections"]
    drains = {run["contender"]: run for run in sections["drain"]["runs"]}
    assert drains.keys() == set(PEERS)
    for name, run in drains.items():
        assert 0 < run["events"] <= PEERS[name]
        assert run["events_per_s"] > 100
        assert run["cpu_s_per_million"] > 0
        assert run["peak_mb"] > 20
    assert drains["at_least_once"]["verified"]
    for run in sections["latency"]["runs"]:
        assert (run["measured"], run["missing"]) == (400, 0)
        assert 0 < run["p50"] <= run["p99"] <= run["p99_9"] <= run["max"]
    page = (folder / "out/BENCHMARKS.md").read_text()
    assert "## Draining a backlog" in page
    assert "## Latency at fixed rates" in page
    assert "failed" not in page
    assert {"drain.svg", "latency.svg"} <= {path.name for path in (folder / "out/benchmarks").iterdir()}
    left = [topic for topic in AdminClient({"bootstrap.servers": kafka}).list_topics().topics if "bench-" in topic]
    assert left == []


def test_a_model_of_fixed_cost_is_measured_by_load_and_by_workers(kafka, folder):
    """How well a busy machine does is not judged here; that everything is measured and written down is."""
    worker = f"{sys.executable} -m tests.bench.fixed_cost_worker"

    status, said = bench(
        kafka, folder, "--only", "objective,scale", "--slow-worker", worker,
        "--loads", "20", "--step-seconds", "4", "--step-warmup", "0.5", "--workers", "2", "--scale-seconds", "1",
    )  # fmt: skip

    assert status == 0, said
    sections = json.loads((folder / "out/benchmarks/results.json").read_text())["sections"]
    steps = {run["policy"]: run for run in sections["objective"]["runs"]}
    assert list(steps) == ["slo_s: 0.1", "max_wait_s: 0.002"]
    for run in steps.values():
        assert run["missing"] == 0
        assert 0 <= run["share_on_time"] <= 1
        assert run["mean_batch"] >= 1
        assert run["batches_per_s"] > 0
    scaled = {(run["how"], run["workers"]): run["events_per_s"] for run in sections["scale"]["runs"]}
    assert scaled.keys() == {("workers", 2), ("processes", 2)}
    capacity = sections["scale"]["settings"]["capacity"]
    for (_, workers), speed in scaled.items():
        assert 0 < speed < capacity * workers * 1.5  # the model's cost is there, in every process
    assert {"objective.svg", "scale.svg"} <= {path.name for path in (folder / "out/benchmarks").iterdir()}
    assert "failed" not in (folder / "out/BENCHMARKS.md").read_text()


def test_a_contender_that_fails_is_written_down_and_the_others_go_on(kafka, folder):
    arguments = ["--only", "drain", "--peers", "naive", "--count", "naive=2000", "--count", "external=2000"]
    mine = f"mine={sys.executable} -c 'raise SystemExit(\"not today\")'"

    status, said = bench(kafka, folder, *arguments, "--external", mine)

    assert status == 1, said
    runs = json.loads((folder / "out/benchmarks/results.json").read_text())["sections"]["drain"]["runs"]
    by_name = {run["contender"]: run for run in runs}
    assert by_name["naive"]["events_per_s"] > 100
    assert "ended with status 1" in by_name["mine"]["error"]
    assert "not today" in by_name["mine"]["error"]
    assert (
        "| mine | 2,000 | failed: it ended with status 1: not today | | |" in (folder / "out/BENCHMARKS.md").read_text()
    )
