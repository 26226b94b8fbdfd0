"""What is in force changes only for something better: loaded beside it, in one piece, or not at all."""

from dataclasses import dataclass, field
from threading import Event

import pytest
from fakes import ManualClock
from made_pages import ab_page, blue_green_page, canary_page, stable_page
from small_pipeline import lane_of, model_of
from structlog.testing import capture_logs

from app.answering.rollout_follower import MOST_PASSED, RolloutFollower
from app.errors import ModelInvalid, ModelMissing, NotReachable, SchemaIncompatible
from app.facts import InUse


@dataclass
class FakeVersions:
    """A store in memory: `current` page, and why versions cannot be had. `loaded` says which were, in order."""

    current: object = None
    away: Exception | None = None
    bad: dict = field(default_factory=dict)
    loaded: list = field(default_factory=list)
    digests: dict = field(default_factory=dict)

    def page(self):
        if self.away:
            raise self.away
        return self.current

    def digest(self, version):
        return self.digests.get(version, model_of(version).digest)

    def lane(self, version):
        self.loaded.append(version)
        if version in self.bad:
            raise self.bad[version]
        model = model_of(version)
        model.digest = self.digest(version)
        return lane_of(model, ManualClock())


class Seen:
    """A RolloutObserver that remembers."""

    def __init__(self):
        self.facts, self.errors, self.blamed = [], [], []

    def serving(self, fact):
        self.facts.append(fact)

    def rollout_failed(self, model, error, version):
        self.errors.append(error)
        self.blamed.append(version)


class Rig:
    def __init__(self, page, *, with_previous=False):
        self.versions, self.seen, self.lineups = FakeVersions(page), Seen(), []
        self.follower = RolloutFollower("churn", self.versions, self.seen, poll_s=3600.0, with_previous=with_previous)
        self.follower._hand_over = self.lineups.append

    def put(self, page):
        self.versions.current = page
        self.follower.look()

    @property
    def serving(self):
        return [(lane.version, lane.answerer.answered_by) for lane in self.lineups[-1].lanes]


@pytest.fixture
def rig():
    made = Rig(stable_page("1"))
    made.lineups.append(made.follower.first())
    return made


def test_the_first_page_is_ready_before_anything_starts(rig):
    assert rig.serving == [("1", "stable")]
    (fact,) = rig.seen.facts
    assert (fact.model, fact.revision) == ("churn", 1)
    assert fact.versions == (InUse("1", model_of("1").digest, "stable"),)


def test_a_page_that_is_the_same_changes_nothing(rig):
    rig.follower.look()
    assert len(rig.lineups) == len(rig.seen.facts) == 1
    assert rig.versions.loaded == ["1"]


def test_a_new_page_is_handed_over_with_its_version_loaded(rig):
    rig.put(stable_page("2", 2))
    assert rig.serving == [("2", "stable")]
    assert rig.lineups[-1].lanes[0].answerer.rollout_revision == 2
    assert rig.versions.loaded == ["1", "2"]


def test_what_is_loaded_already_is_not_loaded_again(rig):
    rig.put(canary_page("1", "2", 10, 2))
    rig.put(canary_page("1", "2", 50, 3))
    rig.put(stable_page("2", 4))
    assert rig.versions.loaded == ["1", "2"]
    assert rig.serving == [("2", "stable")]


def test_a_version_that_is_not_what_it_was_is_loaded_again(rig):
    rig.versions.digests["1"] = "another digest"
    rig.put(canary_page("1", "2", 10, 2))
    assert rig.versions.loaded == ["1", "1", "2"]


def test_the_standby_is_loaded_before_it_answers_so_a_switch_loads_nothing(rig):
    rig.put(blue_green_page("1", "2", 2))
    assert rig.serving == [("1", "stable")]
    assert [item.part for item in rig.seen.facts[-1].versions] == ["stable", "standby"]
    rig.put(blue_green_page("2", "1", 3))
    assert rig.serving == [("2", "stable")]
    assert rig.versions.loaded == ["1", "2"]


@pytest.mark.parametrize("error", [ModelInvalid("golden rows differ"), SchemaIncompatible("no such field")])
def test_a_bad_version_leaves_the_old_one_serving_is_logged_once_and_counted_with_every_look(rig, error):
    rig.versions.bad["2"] = error
    with capture_logs() as log:
        rig.put(stable_page("2", 2))
        rig.follower.look()
    assert len(rig.lineups) == 1
    assert rig.seen.errors == [type(error).__name__] * 2
    assert rig.seen.blamed == ["2", "2"]
    (line,) = log
    assert (line["event"], line["revision"], line["still_serving"]) == ("rollout_refused", 2, 1)
    assert (line["error"], line["reason"]) == (type(error).__name__, str(error))
    assert rig.versions.loaded == ["1", "2"], "what is bad for good is not tried again"


def test_after_a_bad_one_a_good_one_is_taken(rig):
    rig.versions.bad["2"] = ModelInvalid("bad")
    rig.put(stable_page("2", 2))
    rig.put(stable_page("3", 3))
    assert rig.serving == [("3", "stable")]


def test_one_bad_arm_refuses_the_whole_page(rig):
    rig.versions.bad["3"] = ModelInvalid("bad")
    rig.put(ab_page("1", {"left": ("2", 1), "right": ("3", 1)}, 2))
    assert rig.serving == [("1", "stable")]


def test_going_back_to_the_page_in_force_after_a_bad_one_costs_nothing(rig):
    rig.versions.bad["2"] = ModelInvalid("bad")
    rig.put(stable_page("2", 2))
    rig.put(stable_page("1"))
    assert len(rig.lineups) == 1
    assert rig.versions.loaded == ["1", "2"]


@pytest.mark.parametrize("error", [NotReachable("no answer"), ModelMissing("cannot read"), ModelInvalid("no JSON")])
def test_while_the_page_cannot_be_read_everything_stays_and_it_is_said_once(rig, error):
    rig.versions.away = error
    with capture_logs() as log:
        for _ in range(3):
            rig.follower.look()
        rig.versions.away = None
        rig.follower.look()
    assert [line["event"] for line in log] == ["rollout_not_read", "rollout_read_again"]
    assert rig.seen.errors == [type(error).__name__] * 3
    assert rig.seen.blamed == [None] * 3
    assert len(rig.lineups) == 1
    rig.put(stable_page("2", 2))
    assert rig.serving == [("2", "stable")]


def test_a_version_that_could_not_be_fetched_is_tried_again(rig):
    rig.versions.bad["2"] = ModelMissing("cannot read 2/model.onnx: connection refused")
    with capture_logs() as log:
        rig.put(stable_page("2", 2))
        rig.follower.look()
        rig.versions.bad.clear()
        rig.follower.look()
        rig.follower.look()
    assert rig.serving == [("2", "stable")]
    assert [line["event"] for line in log] == ["rollout_refused", "rollout", "rollout_read_again"]


def test_what_was_loaded_for_a_page_that_is_not_complete_is_loaded_once(rig):
    rig.versions.bad["3"] = NotReachable("no answer")
    rig.put(ab_page("1", {"left": ("2", 1), "right": ("3", 1)}, 2))
    for _ in range(20):
        rig.follower.look()
    assert rig.versions.loaded.count("2") == 1
    rig.versions.bad.clear()
    for _ in range(MOST_PASSED + 1):
        rig.follower.look()
    assert rig.serving == [("1", "stable"), ("2", "left"), ("3", "right")]
    assert rig.versions.loaded.count("2") == 1
    assert rig.follower._ready == {}


def test_it_is_tried_again_with_more_and_more_looks_in_between_and_never_given_up(rig):
    rig.versions.bad["2"] = NotReachable("no answer")
    rig.put(stable_page("2", 2))
    tries = []
    for number in range(1, 100):
        before = len(rig.versions.loaded)
        rig.follower.look()
        tries += [number] * (len(rig.versions.loaded) - before)
    assert tries[:6] == [1, 3, 7, 15, 31, 47]
    rig.put(stable_page("3", 3))
    assert rig.serving == [("3", "stable")], "another page does not wait"


def test_what_was_loaded_for_a_page_that_was_replaced_is_kept_only_if_it_is_wanted(rig):
    rig.versions.bad["3"] = NotReachable("no answer")
    rig.put(ab_page("1", {"left": ("2", 1), "right": ("3", 1)}, 2))
    rig.put(ab_page("1", {"left": ("2", 1), "right": ("4", 1)}, 3))
    assert rig.versions.loaded.count("2") == 1
    assert rig.serving == [("1", "stable"), ("2", "left"), ("4", "right")]
    rig.put(ab_page("1", {"left": ("5", 1), "right": ("3", 1)}, 4))
    rig.put(stable_page("1", 5))
    assert rig.follower._ready == {}, "nothing is kept that nobody wants"


def test_what_was_loaded_beside_a_bad_one_is_let_go(rig):
    rig.versions.bad["3"] = ModelInvalid("bad")
    rig.put(ab_page("1", {"left": ("2", 1), "right": ("3", 1)}, 2))
    assert rig.follower._ready == {}


def test_a_fault_of_ours_ends_neither_the_follower_nor_what_serves(rig):
    rig.versions.bad["2"] = MemoryError("too large")
    with capture_logs() as log:
        rig.put(stable_page("2", 2))
    assert (len(rig.lineups), rig.seen.errors) == (1, ["MemoryError"])
    assert log[0]["exc_info"]
    rig.put(stable_page("3", 3))
    assert rig.serving == [("3", "stable")]


def test_without_its_stable_version_a_worker_does_not_start():
    rig = Rig(stable_page("1"))
    rig.versions.bad["1"] = ModelInvalid("bad")
    with pytest.raises(ModelInvalid):
        rig.follower.first()


@pytest.mark.parametrize("error", [ModelInvalid("bad"), MemoryError("too large")])
def test_a_bad_canary_does_not_keep_a_worker_from_starting_and_stable_answers_for_it(error):
    rig = Rig(canary_page("1", "2", 10, 4))
    rig.versions.bad["2"] = error
    rig.lineups.append(rig.follower.first())
    assert rig.serving == [("1", "stable"), ("1", "fallback")]
    assert rig.seen.errors == [type(error).__name__]
    rig.follower.look()
    assert rig.versions.loaded == ["1", "2"], "it is bad for good"
    assert rig.seen.blamed == ["2", "2"], "and counted with every look"


def test_a_canary_that_was_away_at_the_start_joins_later():
    rig = Rig(canary_page("1", "2", 10, 4))
    rig.versions.bad["2"] = NotReachable("no answer")
    rig.lineups.append(rig.follower.first())
    rig.versions.bad.clear()
    rig.follower.look()
    assert rig.serving == [("1", "stable"), ("2", "canary")]
    assert rig.versions.loaded == ["1", "2", "2"]


def test_the_version_before_is_kept_loaded_only_where_it_may_answer():
    for with_previous, loaded in ((True, ["3", "2"]), (False, ["3"])):
        rig = Rig(stable_page("3", previous="2"), with_previous=with_previous)
        (lane,) = rig.follower.first().lanes
        assert rig.versions.loaded == loaded
        assert ([lane.previous.version] if lane.previous else []) == loaded[1:]


def test_without_the_version_before_the_page_is_taken_all_the_same():
    rig = Rig(stable_page("3", previous="2"), with_previous=True)
    rig.versions.bad["2"] = ModelMissing("collected")
    (lane,) = rig.follower.first().lanes
    assert (lane.version, lane.stable, lane.previous) == ("3", None, None)
    assert rig.seen.errors == ["ModelMissing"]


@pytest.mark.parametrize("at_the_start", [True, False])
def test_a_version_before_that_was_away_joins_later_and_is_told_once(at_the_start):
    page = stable_page("3", 2, previous="2")
    rig = Rig(page if at_the_start else stable_page("3"), with_previous=True)
    rig.versions.bad["2"] = NotReachable("no answer")
    with capture_logs() as log:
        rig.lineups.append(rig.follower.first())
        rig.put(page)
        rig.follower.look()
        rig.versions.bad.clear()
        for _ in range(4):
            rig.follower.look()
    assert rig.lineups[-1].lanes[0].previous.version == "2"
    assert [item.part for item in rig.seen.facts[-1].versions] == ["stable", "previous"]
    assert [line["event"] for line in log].count("rollout_refused") == 1
    assert log[-1]["event"] == "rollout_read_again"
    assert rig.versions.loaded.count("3") == 1
    handed_over = len(rig.lineups)
    rig.follower.look()
    assert len(rig.lineups) == handed_over


@pytest.mark.parametrize("at_the_start", [True, False])
def test_a_version_before_that_is_bad_refuses_nothing(at_the_start):
    page = stable_page("3", 2, previous="2")
    rig = Rig(page if at_the_start else stable_page("1"), with_previous=True)
    rig.versions.bad["2"] = MemoryError("too large")
    rig.lineups.append(rig.follower.first())
    for _ in range(3):
        rig.put(page)
    assert rig.serving == [("3", "stable")]
    assert rig.versions.loaded.count("2") == 1


def test_who_answers_in_place_of_whom():
    rig = Rig(canary_page("2", "3", 10, previous="1"), with_previous=True)
    stable, canary = rig.follower.first().lanes
    assert (stable.stable, stable.previous.version) == (None, "1")
    assert (canary.stable.version, canary.previous.version) == ("2", "1")
    assert {lane.answerer.answered_by for lane in (stable.previous, canary.stable, canary.previous)} == {"fallback"}


def test_on_its_thread_it_looks_until_it_is_closed():
    rig = Rig(stable_page("1"))
    rig.follower._poll_s = 0.001
    rig.follower.first()
    handed_over = Event()

    def take(lineup):
        rig.lineups.append(lineup)
        handed_over.set()

    rig.follower.start(take)
    rig.versions.current = stable_page("2", 2)
    assert handed_over.wait(10)
    rig.follower.close()
    assert not rig.follower._thread.is_alive()
    assert rig.serving == [("2", "stable")]
