"""Canary and A/B on the real broker: the shares that were asked for, and the same key always on the same arm."""

import math
from collections import Counter
from itertools import pairwise

from made_pages import ab_page, canary_page, put, stable_page
from rig import answers
from test_hot_swap import settings_of, until_serving
from worker_process import running_worker

Z99 = 2.5758  # of the normal distribution: 99 % lie within so many standard deviations
STEPS = (5, 25, 50, 100)
EACH = 3_000


def arms_by_key(lane, revision):
    """Key → the names of all who answered it under this page."""
    found = {}
    for message, answer in answers(lane):
        if answer["rollout_revision"] == revision:
            found.setdefault(message.key(), set()).add(answer["answered_by"])
    return found


def within_99_percent(count, total, share):
    """Whether so many of `total` fit a binomial distribution with this share."""
    return abs(count - total * share) <= Z99 * math.sqrt(total * share * (1 - share)) + 0.5


def check(lane, page, share):
    """Every key on one arm, the one the page says, and shares as promised; returns the canaries."""
    arms = arms_by_key(lane, page.revision)
    assert all(len(names) == 1 for names in arms.values())
    keys = list(arms)
    assert len(keys) > EACH / 2
    choice = page.choose(keys)
    assert [arms[key] for key in keys] == [{page.arms[arm].name} for arm in choice.tolist()]
    canaries = {key for key in keys if arms[key] == {"canary"}}
    assert within_99_percent(len(canaries), len(keys), share), (len(canaries), len(keys), share)
    return canaries


def test_a_full_canary_has_its_share_at_each_step_and_keys_stay_across_a_restart(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, stable_page("1"))
    pages = [canary_page("1", "2", percent, 2 + step, salt="spring") for step, percent in enumerate(STEPS)]
    again = canary_page("1", "2", 25, 10, salt="spring")
    settings = settings_of(lane)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_assigned()
        for step, page in enumerate(pages, start=1):
            put(lane.store, page)
            until_serving(worker, page.revision)
            lane.produce(EACH)  # the same keys at every step
            worker.wait_for_records(EACH * step)
        by = worker.metrics().of("inference_answers_total", "version", "answered_by")
        rebalances = worker.metrics().of("inference_rebalances_total", "kind")
        assert worker.stop() == 0
    put(lane.store, again)
    with running_worker(settings, tmp_path) as worker:
        lane.produce(EACH)
        worker.wait_for_records(EACH)
        assert worker.stop() == 0

    assert by.keys() == {("1", "stable"), ("2", "canary")}
    assert sum(by.values()) == EACH * len(STEPS)
    assert rebalances.keys() == {("assigned",)}
    canaries = [check(lane, page, page.percent / 100) for page in pages]
    assert all(before <= after for before, after in pairwise(canaries))
    assert check(lane, again, 0.25) == canaries[1]
    assert lane.verified(sample=300).inputs == EACH * (len(STEPS) + 1)


def test_named_arms_share_the_keys_by_weight_and_records_without_one_are_stables(changing_lane, tmp_path):
    lane = changing_lane()
    page = ab_page("1", {"plain": ("2", 1.0), "bold": ("3", 3.0)}, 2)
    put(lane.store, page)
    with running_worker(settings_of(lane), tmp_path) as worker:
        worker.wait_until_assigned()
        lane.produce(EACH)
        worker.wait_for_records(EACH)
        assert worker.stop() == 0
    found = Counter((answer["model_version"], answer["answered_by"]) for _, answer in answers(lane))
    assert found.keys() == {("2", "plain"), ("3", "bold")}
    assert within_99_percent(found["3", "bold"], EACH, 0.75)
    keys = [(message.key(), answer["answered_by"]) for message, answer in answers(lane)]
    choice = page.choose([key for key, _ in keys]).tolist()
    assert [name for _, name in keys] == [page.arms[arm].name for arm in choice]
