"""The sections with a model of fixed cost: what is swept, what is read from the worker, what is made of it."""

import json
import re

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from loadgen.bench.figures import write_figures
from loadgen.bench.objective_run import share_on_time
from loadgen.bench.page import block
from loadgen.bench.peer_process import ContenderFailed
from loadgen.bench.plan import SECTIONS, WITHOUT_SLOW, BenchPlan
from loadgen.bench.scale_run import settled
from loadgen.bench.slow_model import SLOW_SECTIONS, ObjectivePlan, ScalePlan, SlowWorker
from loadgen.bench.worker_metrics import Batches, Scrape, batches_between, scrape, totals
from loadgen.cli.bench import bench
from loadgen.errors import BadOption

SLOW = SlowWorker(("run-it",))
COSTS = st.floats(1e-6, 1.0)
SETTINGS = {
    "model": {"batch_s": 0.002, "row_s": 0.00018},
    "capacity": 5437.6,
    "worker": {"batch": {"max_records": 512, "max_wait_s": 0.01}, "set": {}},
}


def section(runs, **settings):
    return {
        "measured_at": "2026-01-02T03:04:05+00:00",
        "machine": {"cpus": 2, "platform": "Linux x86_64", "python": "3.11.7", "libraries": {"numpy": "2"}},
        "settings": SETTINGS | settings,
        "runs": runs,
    }


def step(load, policy, share, p99, batch=20.0, missing=0):
    return {
        "contender": "exactly_once",
        "load": load,
        "policy": policy,
        "events_per_s_due": load * 54,
        "share_on_time": share,
        "p50": 10.0,
        "p99": p99,
        "p99_9": p99,
        "mean_batch": batch,
        "batches_per_s": 50.0,
        "missing": missing,
    }


def scaled(number, how, workers, speed):
    figures = {"events_per_s": speed, "cpu_s_per_million": 40.0, "cpu_share": 0.2}
    return {"round": number, "contender": "exactly_once", "how": how, "workers": workers, **figures}


OBJECTIVE = section(
    [
        step(20, "slo_s: 0.1", 0.9991, 81.0),
        step(20, "max_wait_s: 0.002", 0.87, 140.0, batch=None, missing=3),
        {"contender": "exactly_once", "load": 80, "policy": "slo_s: 0.1", "events_per_s_due": 9, "error": "gone\nx"},
    ],
    slo_s=0.1,
    modes=["exactly_once"],
    seconds=15.0,
    warmup_s=3.0,
)
SCALE = section(
    [
        scaled(0, "workers", 1, 5_000.0),
        scaled(0, "processes", 2, 9_000.0),
        scaled(0, "workers", 2, 10_000.0),
        {"round": 0, "contender": "exactly_once", "how": "workers", "workers": 4, "error": "it ended"},
    ],
    mode="exactly_once",
    partitions=8,
    rounds=1,
    window_s=15.0,
)


def test_the_models_capacity_is_its_rows_over_their_cost():
    assert SLOW.capacity(512) == pytest.approx(512 / (0.002 + 0.00018 * 512))
    assert SLOW.environment() == {"BENCH_BATCH_COST_S": "0.002", "BENCH_ROW_COST_S": "0.00018"}


@given(COSTS, COSTS, st.integers(1, 10_000))
def test_larger_batches_never_lower_the_capacity_and_a_row_is_its_limit(batch_s, row_s, rows):
    slow = SlowWorker(("run-it",), batch_s, row_s)

    assert slow.capacity(rows) <= slow.capacity(rows + 1) * (1 + 1e-12) <= (1 + 1e-9) / row_s


def test_every_load_is_measured_with_the_objective_and_with_each_fixed_wait():
    plan = ObjectivePlan(slo_s=0.1, waits_s=(0.002, 0.05))

    assert plan.policies() == {
        "slo_s: 0.1": {"slo_s": 0.1},
        "max_wait_s: 0.002": {"max_wait_s": 0.002},
        "max_wait_s: 0.05": {"max_wait_s": 0.05},
    }
    assert [plan.rate(load, 5437.6) for load in (1, 80)] == [54, 4350]


def test_one_worker_is_measured_once_and_several_both_ways():
    shapes = ScalePlan(workers=(1, 2, 4)).shapes()

    assert shapes == [("workers", 1), ("workers", 2), ("processes", 2), ("workers", 4), ("processes", 4)]


@given(st.sampled_from([1, 2, 4, 8]), st.floats(1, 600), st.floats(10, 1e5))
def test_the_backlog_outlasts_the_window_by_a_third(workers, window_s, capacity):
    assert ScalePlan(window_s=window_s).events(workers, capacity) >= workers * capacity * window_s * 1.3


def test_a_group_is_settled_when_each_member_owns_its_share():
    assert settled([4, 4], 2)
    assert settled([8], 1)
    assert not settled([], 1)
    assert not settled([5, 3], 2)
    assert not settled([4], 2)
    assert not settled([2, 2], 2)  # in the middle of a cooperative rebalance


def test_quick_measures_less_of_the_slow_sections_too():
    quick = BenchPlan(sections=tuple(SECTIONS), slow=SLOW).quick()

    assert quick.objective.loads == (1, 20, 80)
    assert quick.objective.seconds <= 5
    assert (quick.scale.rounds, quick.scale.workers) == (1, (1, 2, 4))


def test_without_a_slow_worker_its_sections_are_left_out_and_asked_for_they_are_refused():
    assert BenchPlan().sections == WITHOUT_SLOW
    assert set(SECTIONS) - set(WITHOUT_SLOW) == set(SLOW_SECTIONS)
    with pytest.raises(BadOption, match="--only objective needs --slow-worker"):
        BenchPlan(sections=("drain", "objective"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: SlowWorker(()), "--slow-worker"),
        (lambda: SlowWorker(("x",), 0.0, 0.0), "--slow-cost"),
        (lambda: SlowWorker(("x",), float("nan")), "--slow-cost"),
        (lambda: ObjectivePlan(slo_s=0.0), "--slo"),
        (lambda: ObjectivePlan(waits_s=(-1.0,)), "--fixed-waits"),
        (lambda: ObjectivePlan(loads=()), "--loads"),
        (lambda: ObjectivePlan(loads=(0,)), "--loads"),
        (lambda: ObjectivePlan(modes=("twice",)), "--objective-modes"),
        (lambda: ObjectivePlan(seconds=0.5), "--step-seconds"),
        (lambda: ScalePlan(workers=(3,)), "--workers: each must divide the 8 partitions"),
        (lambda: ScalePlan(workers=(0,)), "--workers"),
        (lambda: ScalePlan(workers=(-1,)), "--workers"),
        (lambda: ScalePlan(window_s=0.1), "--scale-seconds"),
    ],
)
def test_nonsense_in_a_slow_section_is_named(make, complaint):
    with pytest.raises(BadOption, match=re.escape(complaint)):
        make()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "scale"], "--only scale needs --slow-worker"),
        (["--slow-cost", "1"], "--slow-cost '1': two numbers"),
        (["--slow-cost", "a,b"], "--slow-cost 'a,b': numbers with commas"),
        (["--slow-worker", "'"], "No closing quotation"),
        (["--slow-worker", ""], "--slow-worker: a command is needed"),
        (["--loads", "x"], "--loads 'x': whole numbers"),
        (["--workers", "two"], "--workers 'two': whole numbers"),
    ],
)
def test_the_command_names_a_slow_option_that_is_wrong(arguments, complaint, tmp_path):
    command = typer.Typer()
    command.command()(bench)

    done = CliRunner().invoke(command, ["--work", str(tmp_path / "work"), *arguments])

    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()


def test_an_event_without_an_output_is_not_on_time():
    assert share_on_time(np.array([1.0, 100.0, 100.1, np.nan]), 0.1) == 0.5


METRICS = """# HELP inference_batch_records Records in a micro-batch.
# TYPE inference_batch_records histogram
inference_batch_records_bucket{le="1.0",pipeline="a b"} 7.0
inference_batch_records_count{pipeline="a b"} 10.0
inference_batch_records_count{pipeline="c"} 2.0
inference_batch_records_sum{pipeline="a b"} 1.2e+02
inference_busy_ratio 0.25
odd NaN?
"""


def test_metrics_are_added_up_by_name_and_buckets_left_out():
    assert totals(METRICS) == {
        "inference_batch_records_count": 12.0,
        "inference_batch_records_sum": 120.0,
        "inference_busy_ratio": 0.25,
    }


@given(st.text())
def test_no_text_of_a_metrics_page_is_an_error(text):
    totals(text)


def test_batches_are_those_between_two_scrapes():
    before = Scrape(1.0, {"inference_batch_records_count": 10.0, "inference_batch_records_sum": 40.0})
    after = Scrape(3.0, {"inference_batch_records_count": 20.0, "inference_batch_records_sum": 240.0})

    assert batches_between(before, after) == Batches(20.0, 5.0)
    assert batches_between(before, before) == Batches(None, 0.0)


@pytest.mark.parametrize("text", ["", "no json\n[1]\n", json.dumps({"event": "started"}).replace("started", "ended")])
def test_a_worker_that_did_not_say_that_it_started_cannot_be_asked(tmp_path, text):
    (tmp_path / "log").write_text(text)

    with pytest.raises(ContenderFailed, match="says that the worker started"):
        scrape(tmp_path / "log")


def test_the_page_tells_who_was_on_time_at_each_load():
    text = block({"objective": OBJECTIVE})

    assert "| 20 % | 1,080 | `slo_s: 0.1` | 99.91 % | 10.0 / 81.0 | 20.0 | 50.0 |" in text
    assert "| 20 % | 1,080 | `max_wait_s: 0.002` | 87.00 %, 3 missing | 10.0 / 140 |  | 50.0 |" in text
    assert "| 80 % | 9 | `slo_s: 0.1` | failed: gone x | | | |" in text
    assert "the 5,438 events per second of that model in batches of 512 (computed" in text
    assert "the reader's own time counts" in text


def test_the_page_tells_how_many_times_one_worker_several_are():
    text = block({"scale": SCALE})

    times = "\N{MULTIPLICATION SIGN}"
    assert "| 1 | separate workers | 5,000 |  | 40.00 | 0.20 |" in text
    assert f"| 2 | separate workers | 10,000 | 2 {times} | 40.00 | 0.20 |" in text
    assert f"| 2 | `worker.processes` of one | 9,000 | 1.8 {times} | 40.00 | 0.20 |" in text
    assert "| 4 | separate workers | failed: it ended | | | |" in text


def test_both_have_plots_and_equal_runs_give_equal_ones(tmp_path):
    for folder in ("a", "b"):
        write_figures(tmp_path / folder, {"objective": OBJECTIVE, "scale": SCALE})

    for name in ("objective.svg", "scale.svg"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
