"""The loop and its summaries: they add up to what was committed, through aborts, silence, rebalances and the end."""

import numpy as np
import pytest
from fake_stream import Rig, copy_offsets
from fakes import FakeModel, ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipeline.summary.plan import SummaryPlan, SummedRows
from app.specs import InputSpec, NumberFeature, ValueOutput
from app.worker.chain import ScoredBatch
from app.worker.summing import Summing, SummingPolicy

PLAN = SummaryPlan(
    "test",
    FakeModel((InputSpec(name="X", features=(NumberFeature(field="x"),)),), (ValueOutput(name="y"),), lambda _: {}),
    {},
    0.6,
)


class SummedRig(Rig):
    """Predictions have their offset for a value, so that sums tell which were told of."""

    def __init__(self, clock=None, **more):
        clock = clock or ManualClock()
        told = []
        self.told = told

        def write(record):
            told.append(record)
            return str(len(told) - 1).encode()

        def score(batch, origin):
            scored = copy_offsets(batch, origin)
            summed = SummedRows(
                PLAN, clock.now_ms(), np.arange(len(batch)), origin.timestamps_ms,
                {"value": origin.offsets.astype(float)}, (), None, None, None,
            )  # fmt: skip
            return ScoredBatch(scored.predictions, [], scored.scored, scored.outcomes, (summed,))

        super().__init__(clock, score=score, summing=Summing(write, SummingPolicy(), clock), **more)

    def summed(self):
        """Count and sum of the offsets that committed summaries tell of."""
        records = [self.told[int(value)] for _, value in self.broker.summaries]
        return sum(r["records"] for r in records), sum(r["score_sum"] for r in records)

    def committed(self):
        """The same of the outcomes that were committed."""
        return len(self.broker.outcomes), sum(offset for _, offset in self.broker.outcomes)


def test_summaries_are_committed_with_their_predictions():
    rig = SummedRig()
    rig.broker.append(0, 10)
    rig.change("assigned", 0, 1)
    rig.settle()
    assert rig.summed() == rig.committed() == (10, 45)


@pytest.mark.parametrize("aborts", [1, 3])
def test_an_aborted_transaction_takes_its_summaries_with_it(aborts):
    rig = SummedRig()
    rig.sink.aborts = aborts
    rig.broker.append(0, 10)
    rig.change("assigned", 0)
    rig.settle(2000)
    assert rig.summed() == rig.committed() == (10, 45)
    assert len(rig.told) > len(rig.broker.summaries)  # some were made for nothing


@pytest.mark.parametrize("how", ["unheard", "vanishing"])
def test_a_commit_that_nobody_heard_of_is_counted_as_often_as_it_took_effect(how):
    rig = SummedRig()
    setattr(rig.sink, how, 2)
    rig.broker.append(0, 10)
    rig.change("assigned", 0)
    rig.settle(2000)
    assert rig.summed() == rig.committed() == (10, 45)


def test_what_is_under_way_at_the_stop_is_told_of():
    rig = SummedRig()
    rig.broker.append(0, 10)
    rig.change("assigned", 0)
    rig.turn(2)
    rig.worker.stop()
    rig.worker.run()
    assert rig.committed()[0] > 0
    assert rig.summed() == rig.committed()


def test_what_is_lost_is_not_told_of():
    rig = SummedRig()
    rig.sink.settles = False
    rig.broker.append(0, 4)
    rig.change("assigned", 0)
    rig.turn(3)
    rig.change("lost", 0)
    rig.turn()
    rig.sink.settles = True
    rig.broker.append(1, 2)
    rig.change("assigned", 1)
    rig.settle()
    assert rig.summed() == rig.committed() == (2, 1)


events = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 1), st.integers(1, 9)),
        st.tuples(st.sampled_from(["aborts", "unheard", "vanishing"]), st.just(1)),
        st.tuples(st.sampled_from(["assigned", "revoked", "lost"]), st.integers(0, 1)),
        st.tuples(st.just("turn"), st.integers(1, 4)),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(events)
def test_at_every_moment_summaries_add_up_to_what_is_committed(events):
    rig = SummedRig()
    rig.sink.settles = True
    owned = set()
    for what, *how in events:
        if what == "append":
            rig.broker.append(*how)
        elif what == "turn":
            rig.turn(how[0])
        elif what == "assigned":
            if how[0] not in owned:
                owned.add(how[0])
                rig.change("assigned", how[0])
                rig.turn()
        elif what in ("revoked", "lost"):
            if how[0] in owned:
                owned.discard(how[0])
                rig.change(what, how[0])
                rig.turn()
        else:
            setattr(rig.sink, what, 1)
        assert rig.summed() == rig.committed()
