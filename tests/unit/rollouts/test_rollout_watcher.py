"""A worse canary is rolled back by itself, a good one becomes stable step by step, and what people do wins."""

from itertools import pairwise

import numpy as np
import pytest
from rollout_world import CANDIDATE, LADDER, MODEL, STABLE, Ways, Worker, World

from app.errors import ModelMissing, NotReachable, StoreRefused
from app.facts import MetricsLook
from app.models.rollout import StableRollout
from app.models.rollout_changes import advance, hold, promote, resume, start_ab, start_shadow, stop

WORSE = {
    "errors": Ways(errors=0.05),
    "latency": Ways(batch_s=0.01),
    "disagreement": Ways(yes=0.6),
    "accuracy": Ways(right=0.6),
}


def canary(folder, ways=None, *, steps=LADDER, **rest):
    known = {CANDIDATE: ways or Ways()}
    if known[CANDIDATE].right is not None:
        known[STABLE] = Ways(right=0.9)
    world = World(folder, known, **rest)
    world.start_canary(steps)
    return world


def verdicts(reports):
    return [report.decision.verdict for report in reports if report.decision]


@pytest.mark.parametrize("what", WORSE)
def test_a_worse_canary_is_rolled_back_by_itself_and_the_history_says_why(tmp_path, what):
    world = canary(tmp_path, WORSE[what])
    world.watch(40)
    page = world.page
    assert (page.strategy, page.stable) == ("stable", STABLE)
    line = page.history[-1]
    assert line.automatic
    assert line.who == "rollout watch (me@here)"
    assert line.why.startswith(f"{what}: ")
    assert world.clock.monotonic() - 1000.0 <= 400
    assert "promote" not in verdicts(world.reports) or what == "accuracy"


def test_a_good_canary_becomes_stable_step_by_step(tmp_path):
    world = canary(tmp_path)
    world.watch(60)
    page = world.page
    assert (page.strategy, page.stable, page.previous) == ("stable", CANDIDATE, STABLE)
    moved = [report for report in world.reports if report.changed]
    assert [report.page.words for report in moved] == [
        "canary 2 at 25 % (step 2 of 4), stable 1",
        "canary 2 at 50 % (step 3 of 4), stable 1",
        "canary 2 at 100 % (step 4 of 4), stable 1",
        "stable 2",
    ]
    assert all(line.automatic for line in page.history[-4:])
    assert "at most" in page.history[-1].why
    times = [report.at for report in moved]
    assert all((later - earlier).total_seconds() >= 60 for earlier, later in pairwise(times))


def test_a_step_with_all_keys_is_judged_by_what_stable_did_before(tmp_path):
    world = canary(tmp_path)
    while world.page.strategy == "canary" and world.page.step < 3:
        world.watch(1)
    world.ways[CANDIDATE] = Ways(errors=0.2)
    world.watch(10)
    assert world.page.stable == STABLE
    assert "stable 1 before this step" in world.page.history[-1].why


def test_a_step_is_not_left_before_its_time_nor_with_too_few_rows(tmp_path):
    world = canary(tmp_path, steps=((50, 300), (100, 0)))
    assert set(verdicts(world.watch(29))) == {"hold"}
    assert "measured for 290 of 300 s" in world.reports[-1].decision.reason
    assert "promote" in verdicts(world.watch(3))
    thin = canary(tmp_path / "thin", steps=((50, 0),))
    thin.rows_a_tick = 20
    assert set(verdicts(thin.watch(50))) == {"hold"}
    assert "of 1,000 rows of canary 2" in thin.reports[-1].decision.reason


def test_a_step_that_is_never_decided_waits_for_a_person_and_says_so(tmp_path):
    world = canary(tmp_path, guards={"max_step_s": 3600})
    world.rows_a_tick = 2
    world.watch(3)
    assert not world.reports[-1].decision.overdue
    world.clock.advance(7200)
    (_, last) = world.watch(1)
    assert last.decision.verdict == "hold"
    assert last.decision.overdue
    assert last.decision.reason.startswith("not decided 2.0 h after the step began: ")


def test_nothing_is_promoted_without_figures_of_every_worker(tmp_path):
    world = canary(tmp_path)
    world.figures.unread = {"b"}
    world.watch(60)
    assert set(verdicts(world.reports)) == {"hold"}
    assert "no measurements from 1 of 2 workers (b: connection refused)" in world.reports[-1].decision.reason
    world.figures.unread = {"a", "b"}
    (_, last) = world.watch(1)
    assert "no measurements from 2 of 2 workers" in last.decision.reason
    assert world.page.strategy == "canary"
    world.figures.unread = set()
    world.watch(60)
    assert world.page.stable == CANDIDATE


def test_time_without_figures_is_not_time_it_did_well(tmp_path):
    world = canary(tmp_path, steps=((50, 100), (100, 0)))
    world.watch(5)
    world.figures.unread = {"b"}
    world.watch(20)
    world.figures.unread = set()
    (_, last) = world.watch(1)
    assert "measured for 60 of 100 s" in last.decision.reason


def test_what_one_worker_shows_is_enough_to_roll_back(tmp_path):
    world = canary(tmp_path, WORSE["errors"])
    world.figures.unread = {"b"}
    world.watch(40)
    assert world.page.strategy == "stable"


def test_a_worker_that_has_not_taken_the_page_up_holds_the_step(tmp_path):
    world = canary(tmp_path, steps=((50, 0), (100, 0)))
    world.tick()
    late = world.workers["b"]
    late.serves(0)
    late.serves = lambda revision: None
    world.watch(20)
    assert set(verdicts(world.reports)) == {"hold"}
    assert "revision 2 is not in force everywhere yet (b: 0)" in world.reports[-1].decision.reason


def test_workers_that_are_started_again_or_come_and_go_change_nothing(tmp_path):
    world = canary(tmp_path)
    for number in range(30):
        if number % 3 == 0:
            world.workers["a"] = Worker()
        if number % 4 == 0:
            world.workers.pop("c", None)
        if number % 4 == 2:
            world.workers["c"] = Worker()
        world.watch(1)
    assert world.page.stable == CANDIDATE


def test_a_page_that_a_person_holds_is_left_alone_and_watched_on(tmp_path):
    world = canary(tmp_path, WORSE["errors"])
    world.order(hold, who="Ada", why="let me look")
    world.watch(20)
    assert world.page.revision == 3
    assert set(verdicts(world.reports)) == {"hold"}
    assert world.reports[-1].decision.reason.startswith(
        "Ada has taken over at revision 3; otherwise roll back: errors: "
    )
    world.order(resume)
    world.watch(1)
    assert world.page.strategy == "stable"


def test_a_canary_that_a_person_moved_is_left_alone(tmp_path):
    world = canary(tmp_path)
    world.order(advance, who="Ada")
    world.watch(60)
    assert (world.page.step, world.page.revision) == (1, 3)


class InterferingPages:
    """A person changes the page between what the watcher sees and what it does."""

    def __init__(self, world, change):
        self.world, self.change = world, change

    def rollout(self, model):
        return self.world.store.rollout(model)

    def change_rollout(self, model, change, order, *, seen=None):
        if self.change is not None:
            self.world.order(self.change, who="Ada", why="mine")
            self.change = None
        return self.world.store.change_rollout(model, change, order, seen=seen)


@pytest.mark.parametrize("theirs", [hold, stop, lambda page, order: promote(page, None, order)])
def test_whoever_changes_the_page_meanwhile_wins(tmp_path, theirs):
    world = canary(tmp_path, WORSE["errors"])
    watcher = world.new_watcher(InterferingPages(world, theirs))
    reports = world.watch(30, watcher)
    assert world.page.revision == 3
    assert world.page.history[-1].who == "Ada"
    (lost,) = [report for report in reports if report.trouble]
    assert not lost.changed
    assert lost.trouble.startswith("not changed: RolloutConflict: revision 3 of 'churn' is in force, not 2: Ada made")
    assert reports[-1].page.revision == 3


class FlakyPages:
    """A store that answers one call of two, on average."""

    def __init__(self, store):
        self.store, self.rng = store, np.random.default_rng(3)

    def _fails(self):
        mood = self.rng.integers(4)
        if mood == 0:
            raise NotReachable("store: timed out")
        if mood == 1:
            raise StoreRefused("store: token expired")

    def rollout(self, model):
        self._fails()
        return self.store.rollout(model)

    def change_rollout(self, model, change, order, *, seen=None):
        self._fails()
        return self.store.change_rollout(model, change, order, seen=seen)


@pytest.mark.parametrize(("ways", "stable"), [(Ways(), CANDIDATE), (WORSE["errors"], STABLE)])
def test_outages_of_the_store_are_told_and_survived(tmp_path, ways, stable):
    world = canary(tmp_path, ways)
    reports = world.watch(200, world.new_watcher(FlakyPages(world.store)))
    assert world.page.stable == stable
    assert world.page.strategy == "stable"
    assert any("NotReachable: store: timed out" in report.words for report in reports)
    assert any(report.trouble.startswith("not changed: ") for report in reports)


def test_a_dry_run_changes_nothing(tmp_path):
    world = canary(tmp_path, WORSE["errors"], dry_run=True)
    world.watch(30)
    assert world.page.revision == 2
    assert verdicts(world.reports)[-1] == "roll_back"
    assert not any(report.changed for report in world.reports)


def test_a_watcher_that_is_started_again_measures_anew(tmp_path):
    world = canary(tmp_path, steps=((50, 100), (100, 0)))
    world.watch(9)
    reports = world.watch(9, world.new_watcher())
    assert set(verdicts(reports)) == {"hold"}
    assert "measured for 90 of 100 s" in reports[-1].decision.reason


def test_a_server_that_keeps_figures_makes_up_for_a_watcher_that_was_not_there(tmp_path):
    world = canary(tmp_path, steps=((50, 100), (100, 0)))
    for _ in range(12):
        world.figures.keep(world.clock.now_ms() / 1000)
        world.tick()
    report = world.new_watcher().look()
    assert report.decision.verdict == "promote"
    assert sum(counts.rows for counts in report.counts.values()) == 12 * world.rows_a_tick


def test_a_past_that_cannot_be_read_is_said_once_and_holds_nothing_up_after_that(tmp_path):
    world = canary(tmp_path, steps=((50, 0), (100, 0)))
    why = MetricsLook({}, {"http://prometheus:9090": "it answers 503"}, world.clock.now_ms() / 1000)
    world.figures.past.append(why)
    first, *rest = world.watch(3)
    words = "what happened since the step began is not known (http://prometheus:9090: it answers 503)"
    assert words in first.decision.reason
    assert not any(words in report.decision.reason for report in rest)
    assert "promote" in verdicts(rest)


def test_once_looks_a_second_time_only_if_nothing_was_decided(tmp_path):
    world = canary(tmp_path, WORSE["errors"])
    reports = []

    def wait():
        for _ in range(12):
            world.tick()
        return False

    assert world.watcher.once(reports.append, wait).ended == "roll_back"
    assert verdicts(reports) == ["hold", "roll_back"]
    assert world.watcher.once(reports.append, wait).ended == "nothing"
    assert len(reports) == 3


def test_what_does_not_exist_is_not_watched(tmp_path):
    world = World(tmp_path)
    watcher = world.new_watcher()
    watcher._model = "nobody"
    with pytest.raises(ModelMissing, match="no model 'nobody'"):
        watcher.run(pytest.fail, lambda: True)


def test_without_a_rollout_there_is_nothing_to_decide(tmp_path):
    world = World(tmp_path)
    reports = world.watch(3)
    assert set(verdicts(reports)) == {"nothing"}
    assert isinstance(world.page, StableRollout)


@pytest.mark.parametrize(
    ("what", "ways"),
    [
        ("errors", WORSE["errors"]),
        ("errors", Ways(errors=1.0)),
        ("latency", WORSE["latency"]),
        ("disagreement", Ways(differs=0.3)),
    ],
)
def test_a_worse_shadow_is_stopped_and_the_history_says_why(tmp_path, what, ways):
    world = World(tmp_path, {CANDIDATE: ways})
    world.order(lambda page, order: start_shadow(page, CANDIDATE, order))
    world.watch(20)
    assert world.page.strategy == "stable"
    line = world.page.history[-1]
    assert line.automatic
    assert line.why.startswith(f"{what}: ")
    assert "shadow 2" in line.why


def test_a_shadow_that_a_worker_gave_up_is_stopped(tmp_path):
    world = World(tmp_path)
    world.order(lambda page, order: start_shadow(page, CANDIDATE, order))
    world.rows_a_tick = 20
    world.watch(2)
    for error in ("ShadowCrashed", "ShadowCrashed", "ShadowGivenUp"):
        world.workers["b"].shadow.shadow_failed(CANDIDATE, error)
    world.watch(1)
    assert world.page.strategy == "stable"
    assert world.page.history[-1].why == "shadow 2 was given up by b: ShadowCrashed"


def test_a_shadow_whose_process_was_lost_once_goes_on(tmp_path):
    world = World(tmp_path)
    world.order(lambda page, order: start_shadow(page, CANDIDATE, order))
    world.watch(1)
    world.workers["b"].shadow.shadow_failed(CANDIDATE, "ShadowHung")
    world.watch(5)
    assert world.page.strategy == "shadow"


@pytest.mark.parametrize("error", ["ModelInvalid", "MemoryError"])
def test_a_canary_that_a_worker_cannot_load_is_rolled_back_with_that_reason(tmp_path, error):
    world = canary(tmp_path)
    world.workers["b"].trouble = error
    world.watch(4)
    assert world.page.strategy == "stable"
    line = world.page.history[-1]
    assert line.automatic
    assert line.why.startswith(f"canary 2 cannot be used by b: {error}, in ")


def test_an_arm_that_a_worker_cannot_load_ends_the_experiment(tmp_path):
    world = World(tmp_path)
    world.order(lambda page, order: start_ab(page, arms(old=STABLE, new=CANDIDATE), order))
    for worker in world.workers.values():
        worker.trouble = "SchemaIncompatible"
    world.watch(4)
    assert world.page.strategy == "stable"


def test_trouble_that_passes_holds_the_step_by_name_and_no_more(tmp_path):
    world = canary(tmp_path, steps=((50, 0), (100, 0)))
    late = world.workers["b"]
    world.watch(0)
    late.trouble = "NotReachable"
    world.watch(2)
    assert "canary 2 cannot be used by b: NotReachable, in 2 of 3 looks" in world.reports[-1].decision.reason
    late.trouble = None
    world.watch(20)
    assert "roll_back" not in verdicts(world.reports)


def test_other_versions_a_worker_cannot_use_say_nothing_of_the_canary(tmp_path):
    world = canary(tmp_path)
    for _ in range(40):
        world.workers["a"].observer.rollout_failed(MODEL, "ModelMissing", "7")
        world.workers["a"].observer.rollout_failed(MODEL, "NotReachable", None)
        world.watch(1)
    assert "cannot be used" not in "".join(report.words for report in world.reports)
    assert world.page.stable == CANDIDATE


def test_a_good_shadow_is_for_a_person_to_go_on_with(tmp_path):
    world = World(tmp_path, {CANDIDATE: Ways(differs=0.02)})
    world.order(lambda page, order: start_shadow(page, CANDIDATE, order))
    world.watch(20)
    assert world.page.strategy == "shadow"
    assert "disagreement: " in world.reports[-1].decision.reason
    assert world.reports[-1].decision.reason.endswith("; more than that is for a person to decide")


def arms(**versions):
    return [(name, version, 1) for name, version in versions.items()]


def test_an_experiment_with_a_worse_arm_is_ended_and_one_without_goes_on(tmp_path):
    worse = World(tmp_path / "worse", {CANDIDATE: WORSE["errors"]})
    worse.order(lambda page, order: start_ab(page, arms(old=STABLE, new=CANDIDATE), order))
    worse.watch(20)
    assert worse.page.strategy == "stable"
    assert "errors: " in worse.page.history[-1].why
    assert "of new 2, " in worse.page.history[-1].why
    good = World(tmp_path / "good")
    good.order(lambda page, order: start_ab(page, arms(old=STABLE, new=CANDIDATE), order))
    good.watch(20)
    assert good.page.strategy == "ab"


def test_the_model_is_named_in_what_programs_read(tmp_path):
    world = canary(tmp_path)
    facts = world.watch(1)[-1].facts
    assert facts["page"]["model"] == MODEL
    assert (facts["verdict"], facts["changed"], facts["trouble"]) == ("hold", False, None)
    assert facts["versions"][STABLE]["rows"] > facts["versions"][CANDIDATE]["rows"] > 0
