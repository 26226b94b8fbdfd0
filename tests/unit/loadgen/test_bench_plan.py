"""What a sitting measures, in which order, and what the command line says to nonsense."""

import re

import pytest
import typer
from typer.testing import CliRunner

from loadgen.bench.plan import EVENTS, PEERS, WITHOUT_SLOW, BenchPlan, External, turns
from loadgen.bench.worker_settings import Lane, Tuning, worker_settings
from loadgen.cli.bench import bench
from loadgen.errors import BadOption


def test_every_round_has_every_contender_once_and_begins_one_further_along():
    assert turns(["a", "b", "c"], 2) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]


def test_backlogs_are_those_of_the_chosen_sections_only():
    counts = {**EVENTS, "naive": 2_000, "exactly_once": 9_000}
    plan = BenchPlan(peers=("exactly_once", "naive"), events=counts, forest_events=5_000, batch_sizes=(8, 512))

    assert plan.backlogs() == {2_000, 9_000, 5_000, 40_000, 500_000}
    assert BenchPlan(sections=("latency",)).backlogs() == set()


def test_an_external_contender_joins_the_drains_with_the_same_events_or_its_own():
    shared = BenchPlan(sections=("drain",), peers=("naive",), external=External("mine", ("run-it",)))
    own = BenchPlan(sections=("drain",), peers=("naive",), external=External("mine", ("run-it",), "its-events"))

    assert list(shared.drained()) == list(own.drained()) == ["naive", "mine"]
    assert shared.backlogs() == {500_000, 3_000_000}
    assert own.backlogs() == {500_000}


def test_quick_keeps_sections_and_peers_and_never_measures_more():
    full = BenchPlan(rounds=1, events={**EVENTS, "quix": 5_000})
    quick = full.quick()

    assert (quick.sections, quick.peers, quick.rounds) == (WITHOUT_SLOW, tuple(PEERS), 1)
    assert all(quick.events[name] <= full.events[name] for name in EVENTS)
    assert quick.events["quix"] == 5_000
    assert quick.rates == (100, 1_000)
    assert quick.seconds < full.seconds


def test_the_curve_is_of_exactly_once_unless_only_the_other_mode_is_chosen():
    assert BenchPlan().curve_mode() == "exactly_once"
    assert BenchPlan(peers=("naive", "at_least_once")).curve_mode() == "at_least_once"


def test_settings_are_put_where_their_path_says_and_an_objective_takes_the_place_of_a_wait(tmp_path):
    given = {"pipelines.batch.slo_s": 0.05, "delivery.commit_interval_s": 0.5, "worker.processes": 2}
    lane = Lane("host:1", "in", "out", "dead", "group")

    settings = worker_settings("exactly_once", lane, tmp_path, tmp_path, Tuning(batch=64, worker=given))

    (pipeline,) = settings["pipelines"]
    assert pipeline["batch"] == {"max_records": 64, "slo_s": 0.05}
    assert settings["delivery"] == {"mode": "exactly_once", "commit_interval_s": 0.5}
    assert settings["worker"] == {"instance_id": "group", "processes": 2}
    with pytest.raises(BadOption, match=r"mode in delivery\.mode\.x is no section"):
        worker_settings("exactly_once", lane, tmp_path, tmp_path, Tuning(worker={"delivery.mode.x": 1}))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sections": ("drains",)}, "--only: 'drains' is not one of drain, latency"),
        ({"peers": ("flink",)}, "--peers: 'flink' is not one of exactly_once"),
        ({"peers": ("naive", "naive")}, "--peers: a name occurs twice"),
        ({"rounds": 0}, "--pairs 0: 1 to 100"),
        ({"events": {**EVENTS, "faust": 10}}, "--count faust=10: 1,000 to"),
        ({"events": {**EVENTS, "flink": 10_000}}, "--count: 'flink' is not one of"),
        ({"rates": ()}, "--rates"),
        ({"batch_sizes": (0,)}, "--batch-sizes"),
        ({"seconds": 0.1}, "--seconds"),
        ({"latency_wait_s": 3.0}, "--latency-wait"),
    ],
)
def test_what_makes_no_sense_is_named(options, complaint):
    with pytest.raises(BadOption, match=re.escape(complaint)):
        BenchPlan(**options)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", ""], "--only: '' is not one of"),
        (["--rates", "1k"], "--rates '1k': whole numbers"),
        (["--count", "faust"], "--count 'faust': NAME=EVENTS is needed"),
        (["--worker-set", "processes"], "--worker-set 'processes': PATH=VALUE is needed"),
        (["--external", "mine"], "NAME=COMMAND is needed"),
        (["--external", "naive=run"], "'naive' is taken"),
        (["--external-topic", "t"], "--external-topic is only for --external"),
        (["--external", "mine=run", "--external-topic", "t"], "--external-topic needs --bootstrap"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_starts_anything(arguments, complaint, tmp_path):
    command = typer.Typer()
    command.command()(bench)

    done = CliRunner().invoke(command, ["--work", str(tmp_path / "work"), *arguments])

    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()
