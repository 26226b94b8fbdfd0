"""When summaries are told of, and of what: never twice, never of what is undone, never across buckets."""

import numpy as np
import pytest
from fakes import NOW_MS, FakeModel, ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipeline.summary.plan import SummaryPlan, SummedRows
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput
from app.worker import summing as summing_module
from app.worker.summing import Summing, SummingPolicy

OUTPUT = ProbabilitiesOutput(name="P", classes=(0, 1), fields={"p": "probability"})
INPUTS = (InputSpec(name="X", features=(NumberFeature(field="x"),)),)
BUCKET_S = 10


def plan_of(version="1"):
    return SummaryPlan("churn", FakeModel(INPUTS, (OUTPUT,), lambda _: {}, name="churn", version=version), {}, 0.6)


PLAN, OTHER = plan_of(), plan_of("2")


class Told(Summing):
    """Keeps records instead of datums: `telling` gives key, bucket and how many predictions of each."""

    def __init__(self, clock, *, size=100, **policy):
        self.records = []
        super().__init__(self._keep, SummingPolicy(bucket_s=BUCKET_S, **policy), clock)
        self._size = size

    def _keep(self, record):
        self.records.append(record)
        return bytes(self._size + 100 * len(record["features"]))

    def telling(self, *, at_once=True):
        first = len(self.records)
        keys = [key.decode() for key, _ in self.to_commit(at_once=at_once)]
        told = self.records[first:]
        return [(key, r["window_start"] // 1000 % 100, r["records"]) for key, r in zip(keys, told, strict=True)]


def rows(count, at_ms=NOW_MS, plan=PLAN):
    p = np.linspace(0, 1, count)
    winner = (p >= 0.5).astype(int)
    return SummedRows(plan, at_ms, np.arange(count), np.full(count, NOW_MS), {"p": p}, (0, 1), winner, p, None)


@pytest.fixture
def clock():
    return ManualClock()


# -- in a transaction ----------------------------------------------------------------------------------------------


def test_a_transaction_is_told_what_was_delivered_in_it_and_only_once(clock):
    told = Told(clock)
    told.delivered([rows(3)])
    told.delivered([rows(4)])
    assert told.telling() == [("churn/1", 0, 7)]
    told.settled()
    assert told.telling() == []
    told.delivered([rows(2)])
    assert told.telling(at_once=False) == [("churn/1", 0, 2)]


def test_what_is_undone_was_never_told(clock):
    told = Told(clock)
    told.delivered([rows(3)])
    told.undone()
    assert told.telling() == []
    told.delivered([rows(3)])
    assert told.telling() == [("churn/1", 0, 3)]


def test_each_version_has_a_summary_of_its_own(clock):
    told = Told(clock)
    told.delivered([rows(3), rows(5, plan=OTHER)])
    assert told.telling() == [("churn/1", 0, 3), ("churn/2", 0, 5)]


def test_a_summary_ends_with_its_bucket(clock):
    told = Told(clock)
    told.delivered([rows(3, NOW_MS + 9_999)])
    told.delivered([rows(5, NOW_MS + 10_000)])
    assert told.telling() == [("churn/1", 0, 3), ("churn/1", 10, 5)]
    [first, second] = told.records
    assert (first["from_ms"], first["to_ms"]) == (NOW_MS + 9_999,) * 2
    assert second["window_start"] == NOW_MS + 10_000


def test_a_batch_without_a_prediction_is_nothing_to_tell(clock):
    told = Told(clock)
    told.delivered([rows(0)])
    assert told.telling() == []


def test_a_summary_that_its_topic_does_not_take_goes_without_features(clock):
    told = Told(clock, most_bytes=150)
    told.delivered([rows(3)])
    [(key, value)] = told.to_commit(at_once=True)
    assert (key, len(value)) == (b"churn/1", 100)
    whole, without = told.records
    assert len(whole["features"]) == 1
    assert without == whole | {"features": []}


# -- at least once -------------------------------------------------------------------------------------------------


def test_outside_a_transaction_only_what_is_acknowledged_is_told(clock):
    told = Told(clock, transactional=False)
    told.delivered([rows(3)])
    assert told.telling() == []
    told.settled()
    told.delivered([rows(9)])
    told.undone()
    assert told.telling() == [("churn/1", 0, 3)]


def test_outside_a_transaction_summaries_wait_for_their_interval(clock):
    told = Told(clock, transactional=False, interval_s=1.0)
    told.delivered([rows(3)])
    told.settled()
    assert told.telling(at_once=False) == []
    clock.advance(0.999)
    told.delivered([rows(4)])
    told.settled()
    assert told.telling(at_once=False) == []
    clock.advance(0.001)
    assert told.telling(at_once=False) == [("churn/1", 0, 7)]
    clock.advance(60)
    assert told.telling(at_once=False) == []


def test_the_end_of_a_bucket_does_not_wait_for_the_interval(clock):
    told = Told(clock, transactional=False, interval_s=60.0)
    told.delivered([rows(3)])
    told.settled()
    clock.advance(BUCKET_S - 0.001)
    assert told.telling(at_once=False) == []
    clock.advance(0.001)
    assert told.telling(at_once=False) == [("churn/1", 0, 3)]


def test_at_the_end_nothing_waits(clock):
    told = Told(clock, transactional=False, interval_s=60.0)
    told.delivered([rows(3)])
    told.settled()
    assert told.telling(at_once=True) == [("churn/1", 0, 3)]


# -- laws ----------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 40), st.sampled_from([PLAN, OTHER]), st.integers(0, 30_000)),
        st.sampled_from([("settle",), ("undo",), ("tell",)]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps, st.booleans(), st.integers(1, 60))
def test_whatever_happens_what_is_told_is_what_was_settled(steps, transactional, fold_rows):
    clock, patch = ManualClock(), pytest.MonkeyPatch()
    patch.setattr(summing_module, "FOLD_ROWS", fold_rows)
    told = Told(clock, transactional=transactional, interval_s=1e-9)
    unsettled = settled = 0
    for step, *what in [*steps, ("settle",), ("tell",)]:
        if step == "deliver":
            count, plan, later_ms = what
            told.delivered([rows(count, NOW_MS + later_ms, plan)])
            unsettled += count
        elif step == "settle":
            if transactional:
                told.to_commit(at_once=True)  # what a transaction is told belongs to its commit
            told.settled()
            settled, unsettled = settled + unsettled, 0
        elif step == "undo":
            told.undone()
            unsettled = 0
        elif not transactional:
            told.to_commit(at_once=True)
    patch.undo()
    assert sum(record["records"] for record in told.records) == settled
    assert sum(sum(record["score"]["counts"]) for record in told.records) == settled
    for record in told.records:
        assert record["window_start"] <= record["from_ms"] <= record["to_ms"] < record["window_start"] + 1000 * BUCKET_S
