"""A snapshot says what the metrics say: rates and percentiles of what was seen, of one process or several."""

import orjson
import pytest
from fakes import NOW_MS, ManualClock
from hypothesis import given
from hypothesis import strategies as st
from made_worker import CHURN, FACTS, MadeWorker, outcomes, refused

from app.facts import Lag, ShadowCounted
from app.observe.growth import RATE_S, WINDOW_S
from app.observe.look import Look, OneProcess, together
from app.observe.merged import ProcessMetrics
from app.observe.pipeline_observer import PipelineObserver, ShadowMetrics
from app.observe.snapshot import MOST_PARTITIONS, Snapshots, WorkerFacts, shown
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def worker():
    worker = MadeWorker()
    worker.serve_versions(stable="1")
    return worker


@pytest.fixture
def look(worker, clock):
    """Seconds go by, and a snapshot is made."""
    snapshots = Snapshots(OneProcess(worker.metrics), worker.facts, clock)

    def look(after_s=0.0):
        clock.advance(after_s)
        return orjson.loads(snapshots.make(alive=None, ready=None))

    look.snapshots = snapshots
    return look


def test_the_first_look_has_totals_and_neither_rates_nor_percentiles(worker, look):
    worker.work(outcomes(rows=500, letters=[refused()]))
    first = look()

    assert first["throughput"]["total"] == {"predicted": 500, "dead_lettered": 1, "expired": 0, "skipped": 0}
    assert first["throughput"]["records_per_s"] is None
    assert first["end_to_end"] is None
    assert (first["window_s"], first["rate_s"], first["at_ms"]) == (0, 0, NOW_MS)


def test_rates_are_of_the_time_between_looks(worker, look):
    look()
    worker.work(outcomes(rows=500, letters=[refused()]))
    second = look(2)

    assert second["throughput"]["records_per_s"] == 501 / 2
    assert second["throughput"]["per_s"]["predicted"] == 250
    assert second["delivery"]["transactions_per_s"] == 0.5
    assert second["pipelines"][0]["records_per_s"] == 501 / 2


def test_rates_forget_what_is_longer_ago_than_their_time_and_percentiles_later(worker, look):
    look()
    worker.work(outcomes(rows=500))
    for _ in range(int(RATE_S) + 1):
        last = look(1)
    assert last["throughput"]["records_per_s"] == 0
    assert last["rate_s"] == RATE_S
    assert last["end_to_end"]["count"] == 500

    for _ in range(int(WINDOW_S)):
        last = look(1)
    assert last["end_to_end"] is None
    assert last["window_s"] == WINDOW_S


def test_after_nobody_looked_nothing_is_compared_with_long_ago(worker, look):
    look()
    look.snapshots.forget()
    worker.work(outcomes(rows=500))
    assert look(3600)["window_s"] == 0


def test_percentiles_are_of_the_window_and_a_batch_is_shaped_as_it_was(worker, look):
    worker.work(outcomes(rows=1_000, latency_ms=2_000))  # before anybody looked
    look()
    worker.work(outcomes(rows=1_000, latency_ms=8, now_ms=NOW_MS), now_ms=NOW_MS)
    pipeline = look(1)["pipelines"][0]

    assert 0.005 < pipeline["end_to_end"]["p50"] < 0.015
    assert pipeline["end_to_end"]["p50"] <= pipeline["end_to_end"]["p95"] <= pipeline["end_to_end"]["p99"] < 0.2
    assert pipeline["batch_records"]["mean"] == 1_000
    assert pipeline["batches"] == {"records": 0, "bytes": 0, "age": 1, "drain": 0}
    assert pipeline["batch_wait"]["mean"] == pytest.approx(0.004)


def test_a_latency_past_the_last_bucket_is_told_as_above_it(worker, look):
    look()
    worker.work(outcomes(rows=10, latency_ms=10_000_000))
    told = look(1)["end_to_end"]
    assert told["p99"] is None
    assert told["at_most"] == 3600


def test_two_versions_have_the_shares_in_which_they_answered(worker, look):
    worker.serve_versions(stable="1", canary="2")
    look()
    worker.work(outcomes("1", 750), outcomes("2", 250, answered_by="canary"))
    pipeline = look(1)["pipelines"][0]

    assert pipeline["rollout"] == "canary"
    assert pipeline["revision"] == 2
    assert [(one["version"], one["part"], one["share"]) for one in pipeline["versions"]] == [
        ("1", "stable", 0.75),
        ("2", "canary", 0.25),
    ]
    assert pipeline["versions"][1]["model_time"]["mean"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"stable": "1"}, "one version"),
        ({"stable": "2", "previous": "1"}, "one version"),
        ({"stable": "1", "canary": "2"}, "canary"),
        ({"stable": "1", "standby": "2"}, "blue-green"),
        ({"plain": "1", "boosted": "2"}, "A/B"),
    ],
)
def test_a_rollout_is_known_by_its_parts(worker, look, parts, kind):
    worker.serve_versions(**parts)
    assert look()["pipelines"][0]["rollout"] == kind


def test_a_shadow_shows_how_often_it_agreed(worker, look):
    ShadowMetrics(worker.metrics, "churn", "churn").shadow_counted(ShadowCounted("3", agreed=90, disagreed=10))
    assert look()["pipelines"][0]["shadows"] == [{"version": "3", "rows": {"agreed": 90, "disagreed": 10}}]


def test_lag_is_of_each_partition_the_furthest_behind_first(worker, look):
    worker.lag(0, 40, 7)
    lag = look()["lag"]

    assert (lag["records"], lag["seconds"], lag["assigned"]) == (47, 0.2, 3)
    assert [one["partition"] for one in lag["partitions"]] == [1, 2, 0]


def test_a_revoked_partition_is_gone_at_once(worker, look):
    worker.lag(5, 6)
    worker.observer.revoked({TopicPartition("churn.events", 1)})
    assert look()["lag"]["records"] == 5


def test_of_very_many_partitions_only_the_worst_are_listed(worker, look):
    worker.lag(*range(1_000))
    lag = look()["lag"]
    assert lag["assigned"] == 1_000
    assert [one["records"] for one in lag["partitions"]] == list(range(999, 999 - MOST_PARTITIONS, -1))


def test_a_lag_whose_age_is_not_known_is_not_given_one(worker, look):
    worker.metrics.lag["churn"] = {TopicPartition("churn.events", 0): Lag(3, None)}
    assert look()["lag"]["partitions"][0]["seconds"] is None
    assert look()["lag"]["seconds"] is None


def test_dead_letters_come_newest_first_and_only_so_many(worker, look):
    look()
    for offset in range(30):
        worker.work(outcomes(rows=1, letters=[refused(offset=offset)]))
    letters = look(1)["dead_letters"]

    assert [one["offset"] for one in letters["last"]] == list(range(29, 9, -1))
    assert letters["in_window"] == 30
    assert letters["reasons"] == [
        {"pipeline": "churn", "stage": "features", "reason": "out_of_range", "count": 30, "in_window": 30}
    ]
    assert letters["last"][0]["pipeline"] == "churn"


def test_what_went_wrong_is_counted_and_what_did_not_is_not_mentioned(worker, look):
    assert look()["troubles"] == []
    worker.observer.transaction("aborted")
    worker.observer.rebalanced("lost")
    worker.observer.rollout_failed("churn", "ModelInvalid", "3")
    troubles = look(1)["troubles"]
    assert len(troubles) == 3
    assert all(one["count"] == one["in_window"] == 1 for one in troubles)


def test_the_probes_words_are_told(worker, clock):
    snapshots = Snapshots(OneProcess(worker.metrics), worker.facts, clock)
    told = snapshots.facts(alive="no progress for 60 s: churn", ready="not in the consumer group yet: churn")
    assert (told["alive"], told["ready"]) == ("no progress for 60 s: churn", "not in the consumer group yet: churn")


def test_several_processes_are_added_up_and_listed(clock):
    merged, several = ProcessMetrics(), [Metrics() for _ in range(2)]
    facts = WorkerFacts("w", "0", "exactly_once", 3, (CHURN,))
    snapshots = Snapshots(merged, facts, clock)

    def report():
        for slot, metrics in enumerate(several):
            merged.reported(slot, metrics.samples())
            if metrics.refused:
                merged.refused(slot, tuple(metrics.refused))

    for slot, metrics in enumerate(several):
        merged.started(slot, again=slot == 1)
        made = MadeWorker()
        made.metrics, made.observer = metrics, PipelineObserver(metrics, "churn")
        made.work(outcomes(rows=100, letters=[refused(offset=slot)]))
        made.lag(*([0] * slot), 10 + slot, busy=0.2 + 0.4 * slot)
    report()
    snapshots.facts(alive=None, ready=None)
    several[0].counters["inference_records_total"].labels("churn", "predicted").inc(50)
    report()
    clock.advance(1)
    told = snapshots.facts(alive=None, ready=None)

    assert told["throughput"]["total"]["predicted"] == 250
    assert told["throughput"]["busy_ratio"] == pytest.approx(0.4)
    assert told["lag"]["records"] == 21
    assert {one["offset"] for one in told["dead_letters"]["last"]} == {0, 1}
    assert [(one["slot"], one["reports"], one["restarts"]) for one in told["processes"]] == [
        (0, True, 0),
        (1, True, 1),
        (2, False, 0),
    ]
    assert [one["records_per_s"] for one in told["processes"][:2]] == [50, 0]

    merged.ended(0)
    later = snapshots.facts(alive=None, ready=None)
    assert later["throughput"]["total"]["predicted"] == 250
    assert {one["offset"] for one in later["dead_letters"]["last"]} == {0, 1}


def test_a_worker_that_did_nothing_yet_can_be_looked_at(clock):
    snapshots = Snapshots(OneProcess(Metrics()), FACTS, clock)
    snapshots.facts(alive=None, ready=None)
    clock.advance(1)
    told = snapshots.facts(alive=None, ready="starting")
    assert told["throughput"]["records_per_s"] == 0
    assert told["pipelines"][0]["versions"] == []


class Nothing:
    def look(self):
        return Look({})


def test_a_supervisor_whose_processes_have_not_begun_can_be_looked_at(clock):
    told = Snapshots(Nothing(), WorkerFacts("w", "0", "exactly_once", 2, (CHURN,)), clock).facts(alive=None, ready=None)
    assert [one["reports"] for one in told["processes"]] == [False, False]


@given(st.text())
def test_what_is_shown_has_no_character_that_is_not_to_be_seen(text):
    assert shown(text).isprintable()
    assert len(shown(text)) == len(text)


def test_text_that_turns_its_direction_is_shown_as_it_is_written(worker, look):
    worker.work(outcomes(rows=1, letters=[refused("a\u202eb\x1b[31m\nc")]))
    assert look()["dead_letters"]["last"][0]["message"] == "a\ufffdb\ufffd[31m\ufffdc"


@given(
    st.dictionaries(
        st.builds(TopicPartition, st.sampled_from(["a", "b.c", "z"]), st.integers(0, 200)),
        st.builds(Lag, st.integers(0, 2**40), st.none() | st.floats(0, 1e9)),
        max_size=150,
    )
)
def test_the_partitions_shown_are_those_furthest_behind_by_age_then_records_then_name(lags):
    worker = MadeWorker()
    worker.metrics.lag["churn"] = lags
    lag = Snapshots(OneProcess(worker.metrics), worker.facts, ManualClock()).facts(alive=None, ready=None)["lag"]
    ranked = sorted(lags, key=lambda at: (-(lags[at].seconds or 0.0), -lags[at].records, *at))

    assert [(one["topic"], one["partition"]) for one in lag["partitions"]] == ranked[:MOST_PARTITIONS]
    assert all(lags[one["topic"], one["partition"]].seconds == one["seconds"] for one in lag["partitions"])
    assert lag["records"] == sum(one.records for one in lags.values())
    assert lag["seconds"] == max((one.seconds for one in lags.values() if one.seconds is not None), default=None)


def test_two_that_tell_of_one_partition_while_it_changes_hands_are_not_added_up():
    several = [{TopicPartition("a", 0): Lag(5, 1.0)}, {TopicPartition("a", 0): Lag(7, None)}, {}]

    assert together(several) == {TopicPartition("a", 0): Lag(7, None)}
    assert together([]) == {}
