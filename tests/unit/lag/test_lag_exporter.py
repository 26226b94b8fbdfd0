"""What is shown is true or gone; a broker that is away is told of, ever more rarely; probes say which it is."""

import pytest
from fakes import ManualClock
from lag_world import T0, T1, Log, MadeBroker
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from app.lag.board import Board
from app.lag.desired_replicas import ScalingPolicy
from app.lag.exporter import LONGEST_PAUSE_S, ExportPolicy, LagExporter
from app.lag.readings import WatchedGroup
from app.lag.watch import LagWatch
from app.observe.lag_metrics import LAG_TABLE, LagMetrics, lag_metrics_page

GROUP = WatchedGroup("workers", (("events",),))
LABELS = ("group", "topic", "partition", "reason", "result")
POLICY = ExportPolicy(poll_s=5.0, keep_s=20.0)


class World:
    """An exporter over a made-up broker."""

    def __init__(self, group=GROUP, scaling=None):
        self.broker = MadeBroker({T0: Log({0: 0, 1: 0}, end=3), T1: Log({}, end=0)}, committed={T0: 1}, members=1)
        self.clock, self.metrics, self.waits = ManualClock(), LagMetrics(), []
        watch = LagWatch(self.broker, [group], 100, self.clock)
        scaling = scaling or ScalingPolicy(reaction_s=0.0)
        self.exporter = LagExporter(watch, Board(self.metrics), POLICY, scaling, self.clock, self.waited)
        self.turns_left = 0

    def waited(self, seconds):
        self.waits.append(seconds)
        self.clock.advance(seconds)
        self.turns_left -= 1
        return self.turns_left <= 0

    def run(self, turns):
        self.turns_left = turns
        self.exporter.run()

    def shown(self):
        families = text_string_to_metric_families(self.metrics.exposition().decode())
        return {
            (sample.name, *(sample.labels[label] for label in LABELS if label in sample.labels)): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("inference_")
        }

    def names(self):
        return {name for name, *_ in self.shown()}


def test_every_figure_of_a_look_is_shown():
    world = World()
    world.exporter.turn()
    shown = world.shown()
    assert shown["inference_group_lag_records", "workers", "events", "0"] == 1
    assert shown["inference_group_lag_records", "workers", "events", "1"] == 0
    assert shown["inference_group_lag_seconds", "workers", "events", "0"] > 0
    assert shown["inference_group_lag_uncounted_offsets", "workers", "events", "0"] == 0
    assert shown["inference_group_members", "workers"] == 1
    assert shown["inference_desired_replicas", "workers"] == 1
    assert shown["inference_lag_up", "workers"] == 1
    assert shown["inference_lag_looks_total", "workers", "complete"] == 1


def test_only_groups_of_workers_get_a_number():
    world = World(WatchedGroup("monitor", (("events",),), scaled=False))
    world.exporter.turn()
    assert not {name for name in world.names() if "desired" in name or "arrival" in name}
    assert "inference_group_members" in world.names()


def test_the_number_is_the_scaling_policys():
    world = World(scaling=ScalingPolicy(min_replicas=2, capacity_per_process=100.0))
    world.exporter.turn()
    assert world.shown()["inference_desired_replicas", "workers"] == 2


def test_a_number_that_may_be_a_moments_is_not_shown_and_the_other_figures_are():
    """One look at a group of which one member is just being replaced."""
    world = World(scaling=ScalingPolicy(reaction_s=30.0))
    world.exporter.turn()
    assert not {name for name in world.names() if "desired" in name}
    assert {"inference_group_arrival_rate", "inference_group_processes"} <= world.names()

    world.broker.members = 2
    world.run(7)

    assert world.shown()["inference_desired_replicas", "workers"] == 2
    assert [name for name, *_ in world.shown()].count("inference_desired_replicas_reason") == 1


def test_who_left_while_the_broker_was_away_is_asked_for_as_before():
    world = World()
    world.broker.members = 3
    world.run(3)
    world.broker.away = True
    world.run(20)
    assert "inference_desired_replicas" not in world.names()

    world.broker.away, world.broker.members = False, 0
    world.run(3)

    assert world.shown()["inference_desired_replicas", "workers"] == 2  # as many as there are partitions


def test_a_partition_that_is_gone_leaves_no_series():
    world = World()
    world.exporter.turn()
    del world.broker.logs[T1]
    world.exporter.turn()
    assert ("inference_group_lag_records", "workers", "events", "1") not in world.shown()


def test_a_broker_that_is_away_takes_the_figures_with_it_after_a_while():
    world = World()
    world.exporter.turn()
    world.broker.away = True
    world.clock.advance(POLICY.keep_s - 0.1)
    world.exporter.turn()
    assert "inference_group_lag_records" in world.names()
    assert world.shown()["inference_lag_up", "workers"] == 0
    last_success = world.shown()["inference_lag_last_success_timestamp_seconds", "workers"]

    world.clock.advance(0.1)
    world.exporter.turn()

    assert world.names() == {
        "inference_lag_up", "inference_lag_last_success_timestamp_seconds", "inference_lag_look_seconds",
        "inference_lag_looks_total",
    }  # fmt: skip
    assert world.shown()["inference_lag_last_success_timestamp_seconds", "workers"] == last_success
    world.broker.away = False
    world.exporter.turn()
    assert {"inference_group_lag_records", "inference_desired_replicas"} <= world.names()


def test_figures_go_when_they_are_too_old_not_at_the_look_after_that():
    """Looks at a broker that is away are 30 s apart."""
    world = World()
    world.exporter.turn()
    seen_at_s = world.clock.monotonic()
    world.broker.away = True
    gone = []

    def waited(seconds):
        if "inference_group_lag_records" not in world.names():
            gone.append(world.clock.monotonic())
        world.clock.advance(seconds)
        return bool(gone)

    world.exporter._wait = waited
    world.exporter.run()

    assert gone == [seen_at_s + POLICY.keep_s]


def test_a_partial_look_shows_what_it_saw_and_leaves_the_number_alone():
    world = World()
    world.exporter.turn()
    world.broker.unknown = {"events[7]": "no leader"}
    world.broker.members = 3
    world.exporter.turn()
    assert world.shown()["inference_group_members", "workers"] == 1
    assert world.shown()["inference_lag_looks_total", "workers", "partial"] == 1
    world.clock.advance(POLICY.keep_s + 0.1)
    world.exporter.turn()
    assert "inference_group_lag_records" in world.names()
    assert "inference_desired_replicas" not in world.names()


def test_the_pauses_grow_while_nothing_is_seen_and_are_as_before_afterwards():
    world = World()
    world.broker.away = True
    world.run(5)
    assert world.waits == [10.0, 20.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    world.run(2_000)  # hours of it
    assert world.waits[-1] == LONGEST_PAUSE_S
    world.broker.away = False
    world.run(2)
    assert world.waits[-2:] == [5.0, 5.0]


def test_each_failed_look_is_one_line_and_so_is_the_first_that_succeeds():
    world = World()
    world.broker.away = True
    with capture_logs() as logs:
        world.run(3)
        world.broker.away = False
        world.run(2)
    assert [line["event"] for line in logs] == ["group_not_seen"] * 3 + ["group_seen_again"]
    assert logs[0]["why"] == "group workers: no answer"
    assert logs[-1]["after_s"] == 60.0


def test_ready_is_what_was_seen_whole_and_alive_is_whatever_the_broker_does():
    world = World()
    assert world.exporter.ready() == "nothing was looked at yet"
    world.exporter.turn()
    assert world.exporter.ready() is None
    world.broker.away = True
    world.exporter.turn()
    assert world.exporter.ready() == "group workers: group workers: no answer"
    assert world.exporter.alive() is None


def test_a_look_that_does_not_return_is_no_life():
    world = World()
    world.clock.advance(POLICY.alive_within_s)
    assert world.exporter.alive() is None
    world.clock.advance(0.1)
    assert world.exporter.alive() == "no progress for 120 s"


def test_a_thousand_things_unknown_are_named_in_one_short_line():
    world = World()
    world.broker.unknown = {f"events[{number}]": "no leader" for number in range(1000)}
    world.exporter.turn()
    assert len(world.exporter.ready()) < 200
    assert world.exporter.ready().endswith("and 997 more")


def test_the_table_names_each_metric_once_and_the_page_has_them_all():
    names = [spec.name for spec in LAG_TABLE]
    assert len(set(names)) == len(names)
    assert all(f"| `{name}` |" in lag_metrics_page() for name in names)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("inference_group_lag_records", ("group", "topic", "partition")),
        ("inference_group_lag_seconds", ("group", "topic", "partition")),
        ("inference_group_last_stable_offset_lag_records", ("group", "topic", "partition")),
        ("inference_group_members", ("group",)),
        ("inference_group_arrival_rate", ("group",)),
        ("inference_desired_replicas", ("group",)),
    ],
)
def test_names_that_others_rely_on(name, labels):
    assert [spec.labels for spec in LAG_TABLE if spec.name == name] == [labels]
