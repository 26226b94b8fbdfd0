"""The loop keeps I1 to I4 whatever happens around it: aborts, rebalances, outages, a full sink."""

import itertools
import threading
import time
from dataclasses import replace

import pytest
from fake_stream import Rig, copy_offsets
from fakes import ManualClock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.errors import DeadLetterFlood, DrainDeadline, ModelFailed, Reason, SchemasPending, Stage
from app.facts import Committed, Pulse
from app.pipeline.dead_letter import DeadLetterLimit
from app.pipeline.objective import LatencyObjective
from app.records import DeadLetter, TopicPartition, predictions_of


@pytest.fixture
def rig():
    return Rig(ManualClock())


def records_counted(rig):
    """Those that are said to be committed."""
    committed = [fact for fact in rig.observer.facts if isinstance(fact, Committed)]
    return sum(outcomes.records for fact in committed for outcomes in fact.outcomes)


def test_every_record_gets_one_outcome_in_order(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.broker.append(1, 7)

    rig.settle()

    assert sorted(rig.broker.outcomes) == rig.broker.everything()


def test_a_record_is_not_committed_before_its_prediction_is_delivered(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.sink.room = False

    rig.turn(20)
    assert rig.broker.committed[rig.broker.sources[0]] == 0

    rig.sink.room = True
    rig.settle()
    assert len(rig.broker.outcomes) == 4


def test_an_aborted_transaction_is_done_again_from_the_lowest_unfinished_offset(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.broker.append(1, 3)
    rig.sink.aborts = 3

    rig.settle()

    assert sorted(rig.broker.outcomes) == rig.broker.everything()


def test_a_commit_that_took_effect_unheard_is_not_done_again(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.broker.append(1, 3)
    rig.sink.unheard = 2
    rig.source.asking_fails = 3

    rig.settle()

    assert sorted(rig.broker.outcomes) == rig.broker.everything()


def test_a_commit_that_was_lost_unheard_is_done_again(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.sink.vanishing = 2

    rig.settle()

    assert sorted(rig.broker.outcomes) == rig.broker.everything()


@pytest.mark.parametrize("unheard", [{"unheard": 2}, {"vanishing": 2}, {"unheard": 1, "vanishing": 1}], ids=str)
def test_what_is_counted_is_what_is_committed_whatever_was_heard_of_it(rig, unheard):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    for what, times in unheard.items():
        setattr(rig.sink, what, times)
    rig.source.asking_fails = 1

    rig.settle()
    rig.turn(5)

    assert records_counted(rig) == 10


def test_an_offset_past_what_was_in_doubt_is_another_members_and_not_counted(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.sink.vanishing = 1
    while rig.sink.vanishing:
        rig.turn()
    rig.broker.append(0, 4)
    rig.broker.committed[rig.broker.sources[0]] = 6  # before we hear that the partition is not ours any more
    rig.turn(50)

    assert records_counted(rig) == 2


def test_a_commit_unheard_while_draining_is_counted_before_the_end(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    rig.turn()
    rig.sink.unheard = 1
    rig.worker.stop()
    rig.worker.run()

    assert records_counted(rig) == 3


def test_what_another_member_may_have_committed_is_not_counted(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    rig.sink.unheard = 1
    rig.source.asking_fails = 10_000
    while not rig.broker.outcomes:
        rig.turn()
    rig.change("lost", 0)
    rig.turn()
    rig.source.asking_fails = 0
    rig.change("assigned", 0)
    rig.turn(50)

    assert not [fact for fact in rig.observer.facts if isinstance(fact, Committed)]


def test_what_is_to_be_read_again_is_lag_while_the_sink_recovers(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.sink.aborts, rig.sink.broken = 1, 0
    while rig.sink.aborts:
        rig.turn()
    rig.sink.broken = 10_000
    rig.clock.advance(5)
    rig.turn(3)

    lag = [fact for fact in rig.observer.facts if isinstance(fact, Pulse)][-1].lag[rig.broker.sources[0]]
    assert lag.records == 4
    assert lag.seconds >= 5


def test_a_drain_whose_work_was_undone_by_an_outage_says_so():
    rig = Rig(ManualClock(), by_hand=True)
    rig.model.answers = 10_000
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    rig.sink.room = False
    rig.turn(5)
    rig.worker.stop()
    rig.sink.room, rig.sink.aborts = True, 1
    rig.turn()
    rig.sink.broken = 10**6
    with pytest.raises(DrainDeadline, match="could not be committed"):
        rig.worker.run()
    assert rig.broker.outcomes == []


def test_a_rewind_that_fails_is_tried_again_before_anything_is_read(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 10)
    rig.sink.aborts = 1
    rig.source.seeks_fail = 2

    rig.settle()

    assert sorted(rig.broker.outcomes) == rig.broker.everything()


class Registry:
    """A score function that does not know the schema of these (partition, offset) while it is down."""

    def __init__(self, *unknown):
        self.unknown, self.down = set(unknown), True

    def prepare(self, batch):
        rows = [row for row, r in enumerate(batch.records) if (r.partition(), r.offset()) in self.unknown]
        if self.down and rows:
            raise SchemasPending(rows, "registry down")

    def __call__(self, batch, origin):
        return copy_offsets(batch, origin)


def test_a_partition_waits_from_its_first_unknown_schema_on_and_the_others_go_on():
    registry = Registry((0, 3), (0, 5))
    rig = Rig(ManualClock(), score=registry)
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.broker.append(1, 30)

    for _ in range(40):
        rig.turn()
        rig.clock.advance(0.3)
    first, second = rig.broker.sources
    assert rig.broker.committed == {first: 3, second: 30}
    assert sorted(rig.broker.outcomes) == [(first, o) for o in range(3)] + [(second, o) for o in range(30)]
    pulses = [fact for fact in rig.observer.facts if isinstance(fact, Pulse)]
    assert pulses[-1].waiting_partitions == 1
    assert pulses[-1].lag[first].records == 7

    registry.down = False
    rig.settle()
    assert sorted(rig.broker.outcomes) == rig.broker.everything()
    rig.clock.advance(1.1)
    rig.turn(2)
    assert [fact for fact in rig.observer.facts if isinstance(fact, Pulse)][-1].waiting_partitions == 0


def test_the_schema_registry_is_asked_less_and_less_often_while_it_is_down():
    asked = []

    class Asked(Registry):
        def prepare(self, batch):
            asked.append(rig.clock.monotonic())
            super().prepare(batch)

    rig = Rig(ManualClock(), score=Asked((0, 0)))
    rig.change("assigned", 0)
    rig.broker.append(0, 1)
    for _ in range(600):
        rig.turn()
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[0] < 0.3
    assert 4.9 < pauses[-1] < 5.5


def test_a_partition_that_waits_when_the_worker_stops_is_left_uncommitted():
    rig = Rig(ManualClock(), score=Registry((0, 2)))
    rig.change("assigned", 0)
    rig.broker.append(0, 10)
    rig.turn(5)
    rig.worker.stop()
    rig.worker.run()
    assert rig.broker.committed[rig.broker.sources[0]] == 2
    assert len(rig.broker.outcomes) == 2


def test_a_fatal_error_in_scoring_commits_nothing_new():
    def score(_batch, _origin):
        raise ModelFailed("broken")

    rig = Rig(ManualClock(), score=score)
    rig.change("assigned", 0)
    rig.broker.append(0, 6)

    with pytest.raises(ModelFailed):
        rig.worker.run()

    assert rig.broker.committed[rig.broker.sources[0]] == 0
    assert rig.sink.closed
    assert rig.source.closed


def all_rejected(batch, origin):
    """Each record is dead-lettered; its letter is "partition@offset"."""
    scored = copy_offsets(batch, origin)
    letters = [
        DeadLetter(None, value, (), None, 0, Stage.DECODE, Reason.BAD_FRAME) for value in scored.predictions.values
    ]
    return replace(scored, predictions=predictions_of([], [], origin.offsets[:0]), dead_letters=letters)


def test_a_flood_stops_the_worker_and_what_came_before_it_is_committed():
    rig = Rig(ManualClock(), score=all_rejected, flood_limit=DeadLetterLimit(10, 60.0))
    rig.sink.settles = False  # only when it is asked to at once
    rig.change("assigned", 0)
    rig.broker.append(0, 30)

    with pytest.raises(DeadLetterFlood, match="12 records rejected"):
        rig.worker.run()

    assert rig.broker.committed[rig.broker.sources[0]] == len(rig.broker.outcomes) == 8


def test_a_restart_within_the_window_gets_no_new_quota_of_dead_letters():
    rig = Rig(ManualClock(), score=all_rejected, flood_limit=DeadLetterLimit(10, 60.0))
    rig.change("assigned", 0)
    rig.broker.append(0, 100)
    for _ in range(3):
        with pytest.raises(DeadLetterFlood):
            rig.worker.run()
        assert len(rig.broker.outcomes) == 8
        rig = Rig(rig.clock, score=all_rejected, flood_limit=DeadLetterLimit(10, 60.0), broker=rig.broker)
        rig.change("assigned", 0)
    rig.clock.advance(61)
    with pytest.raises(DeadLetterFlood):
        rig.worker.run()
    assert len(rig.broker.outcomes) == 16


def test_dead_letters_of_aborted_transactions_are_no_flood():
    rig = Rig(ManualClock(), score=all_rejected, flood_limit=DeadLetterLimit(10, 60.0))
    rig.change("assigned", 0)
    rig.broker.append(0, 10)
    rig.sink.aborts = 5
    rig.settle()
    assert sorted(rig.broker.outcomes) == rig.broker.everything()


def test_what_was_delivered_is_committed_before_a_revoked_partition_goes(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 4)
    rig.turn()
    rig.change("revoked", 0)
    rig.turn(3)

    assert rig.broker.committed[rig.broker.sources[0]] == 4
    assert ("revoked", frozenset({TopicPartition("events", 0)})) in rig.observer.facts


def test_buffered_records_of_a_revoked_partition_are_dropped_uncommitted(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 2)  # not a full batch: stays in the batcher
    rig.turn()
    rig.change("revoked", 0)
    rig.turn(5)

    assert rig.broker.committed[rig.broker.sources[0]] == 0
    assert rig.broker.outcomes == []


def test_nothing_is_committed_after_partitions_are_lost(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 4)
    rig.broker.append(1, 4)
    rig.sink.room = False
    rig.turn(3)
    rig.change("lost", 0)
    rig.clock.advance(2)  # long enough to poll again although the batcher is full
    rig.turn(2)
    rig.sink.room = True

    rig.settle()

    assert {source for source, _ in rig.broker.outcomes} == {rig.broker.sources[1]}


def test_a_slow_batch_of_a_revoked_partition_is_dropped_when_it_outlives_the_bound(monkeypatch):
    monkeypatch.setattr("app.worker.stream.REVOKE_BOUND_S", 0.01)
    release = threading.Event()

    def score(batch, origin):
        release.wait(10)
        return copy_offsets(batch, origin)

    rig = Rig(ManualClock(), score=score)
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 4)
    rig.turn()
    rig.change("revoked", 0)
    rig.turn()
    release.set()
    rig.broker.append(1, 4)

    rig.settle()

    assert {source for source, _ in rig.broker.outcomes} == {rig.broker.sources[1]}


class Slow:
    """A model that answers when told to; keeps what it was prepared for and asked, by first offset."""

    def __init__(self):
        self.prepared, self.asked, self.answers = [], [], threading.Semaphore(0)

    def prepare(self, batch):
        self.prepared.append(batch.records[0].offset())

    def __call__(self, batch, origin):
        self.asked.append(batch.records[0].offset())
        assert self.answers.acquire(timeout=10)
        return copy_offsets(batch, origin)


def test_while_the_model_works_the_next_full_batch_is_prepared_and_no_other_one():
    model = Slow()
    rig = Rig(ManualClock(), partitions=1, score=model)
    rig.change("assigned", 0)
    rig.broker.append(0, 4 + 3)
    rig.clock.advance(1)
    rig.turn(3)
    deadline = time.monotonic() + 20
    while not model.asked and time.monotonic() < deadline:  # by a thread, which may have no turn for a while
        rig.turn()
        time.sleep(0.001)
    assert (model.prepared, model.asked) == ([0], [0])  # three records could still be joined by a fourth
    rig.broker.append(0, 6)
    rig.turn(3)
    assert (model.prepared, model.asked) == ([0, 4], [0])
    model.answers.release()
    while len(model.asked) < 2:
        rig.turn()
    assert [offset for _, offset in rig.broker.outcomes] == [0, 1, 2, 3]  # delivered while the next is with the model
    model.answers.release(10)
    rig.settle()
    assert [offset for _, offset in rig.broker.outcomes] == list(range(13))


def test_what_the_model_has_is_finished_before_its_partition_goes_and_nothing_more():
    model = Slow()
    rig = Rig(ManualClock(), partitions=1, score=model)
    rig.change("assigned", 0)
    rig.broker.append(0, 10)
    rig.turn(2)
    assert model.prepared == [0, 4]
    model.answers.release(10)
    rig.change("revoked", 0)
    rig.turn()
    assert rig.broker.committed[rig.broker.sources[0]] == 4


def test_a_prepared_batch_goes_back_for_a_rebalance_and_comes_again_in_order():
    model = Slow()
    rig = Rig(ManualClock(), score=model)
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.turn(2)
    rig.broker.append(1, 3)
    model.answers.release(20)
    rig.change("revoked", 1)
    rig.settle()
    assert [offset for _, offset in rig.broker.outcomes] == list(range(10))
    assert model.prepared == [0, 4, 4, 8]


def test_partitions_are_paused_only_after_being_full_for_a_while():
    rig = Rig(ManualClock(), by_hand=True)
    rig.model.answers = 10_000
    rig.change("assigned", 0)
    rig.sink.room = False
    rig.broker.append(0, 20)
    rig.turn(3)
    assert not rig.source.paused

    rig.clock.advance(2)
    rig.turn(2)
    assert rig.source.paused

    rig.sink.room = True
    rig.settle()
    assert len(rig.broker.outcomes) == 20


def test_stop_finishes_what_was_read_and_leaves_the_group(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    rig.turn()
    rig.worker.stop()

    rig.worker.run()

    assert rig.broker.committed[rig.broker.sources[0]] == 3
    assert rig.source.closed
    assert not rig.worker.ready


def test_a_drain_that_cannot_finish_in_time_says_so():
    rig = Rig(ManualClock(), drain_timeout_s=1.0)
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    rig.turn()
    rig.sink.broken = 10_000
    rig.worker.stop()

    with pytest.raises(DrainDeadline, match="3 records were still in work"):
        rig.worker.run()

    assert rig.broker.outcomes == []


def test_a_drain_that_waits_for_the_model_in_vain_says_how_many_records_it_had():
    rig = Rig(ManualClock(), drain_timeout_s=1.0, by_hand=True)
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    while rig.worker._asked is None:
        rig.turn()
    rig.worker.stop()

    with pytest.raises(DrainDeadline, match="3 records were still in work"):
        rig.worker.run()


def test_positions_past_transaction_markers_are_committed_once_nothing_is_taken(rig):
    source = rig.broker.sources[0]
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.settle()
    rig.source.position[source] = 5  # the client has passed a marker

    rig.clock.advance(1.1)
    rig.turn()

    assert rig.broker.committed[source] == 5


def test_an_aborted_commit_of_positions_is_tried_again(rig):
    source = rig.broker.sources[0]
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.settle()
    rig.source.position[source] = 5
    rig.sink.aborts = 1

    rig.clock.advance(1.1)
    rig.turn()
    rig.clock.advance(1.1)
    rig.turn(2)

    assert rig.broker.committed[source] == 5


def test_a_position_is_not_trusted_after_a_rewind(rig):
    source = rig.broker.sources[0]
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.settle()
    rig.broker.append(0, 4)
    rig.sink.aborts = 1
    rig.source.seeks_fail = 10**6  # the position stays behind the records that are to be read again
    rig.turn(3)

    rig.clock.advance(10)
    rig.turn(3)

    assert rig.broker.committed[source] == 4


def test_lag_is_measured_from_the_first_unfinished_record(rig):
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 10)
    rig.sink.room = False
    rig.turn(3)
    rig.clock.advance(5)
    rig.turn()

    pulses = [fact for fact in rig.observer.facts if isinstance(fact, Pulse)]
    lag = pulses[-1].lag
    assert lag[rig.broker.sources[0]].records == 10
    assert lag[rig.broker.sources[0]].seconds >= 5
    assert lag[rig.broker.sources[1]].records == 0


def test_outcomes_are_told_only_once_they_are_committed(rig):
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.sink.aborts = 1

    rig.settle()

    told = [fact for fact in rig.observer.facts if isinstance(fact, Committed)]
    assert sum(outcomes.predicted for fact in told for outcomes in fact.outcomes) == 4


def test_an_objective_learns_what_batches_and_their_delivery_cost():
    clock = ManualClock()
    rig = Rig(clock, max_records=8, pace=LatencyObjective(0.1, clock))
    rig.change("assigned", 0)
    rig.broker.append(0, 8)
    rig.settle()
    clock.advance(2)
    rig.turn()

    (*_, last) = [fact for fact in rig.observer.facts if isinstance(fact, Pulse)]
    assert (last.pace.objective_s, last.pace.per_record_s) == (0.1, pytest.approx(0.001 / 8))
    assert last.pace.delivery_s < 0.1


@pytest.fixture
def slow_model():
    """The model has one batch of four, another four were delivered, and the sink commits when it is worth it."""
    rig = Rig(ManualClock(), by_hand=True)
    rig.sink.patient = True
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.turn()
    rig.broker.append(0, 4)
    rig.turn()
    return rig


def test_what_was_delivered_is_committed_while_a_slow_model_works_on_the_next_batch(slow_model):
    slow_model.model.answers = 1
    slow_model.turn(2)
    assert len(slow_model.broker.outcomes) == 4
    assert slow_model.model.busy_s()


def test_a_model_that_answers_sooner_than_a_commit_takes_is_not_made_to_wait(slow_model):
    slow_model.model.takes_s = 0.0
    slow_model.model.answers = 1
    slow_model.turn(2)
    assert not slow_model.broker.outcomes


def test_under_a_backlog_a_commit_beside_the_model_waits_for_its_interval(slow_model):
    slow_model.broker.append(0, 40)
    slow_model.model.answers = 1
    slow_model.turn(2)
    assert not slow_model.broker.outcomes


def test_while_the_model_works_a_backlog_is_one_however_few_come_at_a_time(slow_model):
    slow_model.model.most_together = 4
    slow_model.source.at_hand = 4
    slow_model.broker.append(0, 40)
    slow_model.model.answers = 1
    slow_model.turn(2)
    assert not slow_model.broker.outcomes


@pytest.mark.parametrize(("left", "committed"), [(40, 0), (3, 8)])
def test_a_backlog_of_which_the_client_has_less_at_hand_than_there_is_room_for_is_one(left, committed):
    rig = Rig(ManualClock(), by_hand=True)
    rig.model.most_together = 4
    rig.sink.patient = True
    rig.change("assigned", 0)
    rig.broker.append(0, 4)
    rig.model.answers = 10
    rig.turn(2)
    rig.broker.outcomes.clear()

    rig.source.at_hand = 8
    rig.broker.append(0, 8 + left)
    rig.turn()

    assert len(rig.broker.outcomes) == committed


class AnythingGoes(RuleBasedStateMachine):
    """Any order of arrivals, rebalances, aborts and outages: exactly one outcome each, offsets never too far."""

    @initialize()
    def start(self):
        self.registry = Registry()
        self.rig = Rig(ManualClock(), partitions=3, score=self.registry, by_hand=True)
        self.mine = set()

    @rule(partition=st.integers(0, 2), count=st.integers(1, 9))
    def records_arrive(self, partition, count):
        self.rig.broker.append(partition, count)

    @rule(times=st.integers(1, 5))
    def the_loop_turns(self, times):
        self.rig.turn(times)

    @rule(times=st.integers(1, 5))
    def the_model_answers(self, times):
        self.rig.model.answers += times

    @rule(together=st.integers(1, 4))
    def the_model_becomes_quicker_or_slower(self, together):
        self.rig.model.most_together = together

    @rule()
    def the_next_rebalance_comes_when_records_were_taken(self):
        self.rig.source.midway = True

    @rule(partition=st.integers(0, 2))
    def a_partition_comes(self, partition):
        if partition not in self.mine:
            self.mine.add(partition)
            self.rig.change("assigned", partition)

    @rule(partition=st.integers(0, 2), kind=st.sampled_from(["revoked", "lost"]))
    def a_partition_goes(self, partition, kind):
        if partition in self.mine:
            self.mine.discard(partition)
            self.rig.change(kind, partition)

    @rule()
    def the_next_transaction_aborts(self):
        self.rig.sink.aborts = 1

    @rule()
    def the_next_commit_takes_effect_unheard(self):
        self.rig.sink.unheard = 1

    @rule()
    def the_next_commit_is_lost_unheard(self):
        self.rig.sink.vanishing = 1

    @rule()
    def asking_for_offsets_fails_once(self):
        self.rig.source.asking_fails = 1

    @rule()
    def seeking_fails_once(self):
        self.rig.source.seeks_fail = 1

    @rule(room=st.booleans())
    def the_sink_fills_or_empties(self, room):
        self.rig.sink.room = room

    @rule(partition=st.integers(0, 2), offset=st.integers(0, 20))
    def a_record_has_an_unknown_schema(self, partition, offset):
        self.registry.unknown.add((partition, offset))

    @rule(down=st.booleans())
    def the_schema_registry_goes_or_comes(self, down):
        self.registry.down = down

    @rule(seconds=st.floats(0.001, 3))
    def time_passes(self, seconds):
        self.rig.clock.advance(seconds)

    @invariant()
    def no_outcome_comes_twice(self):
        assert len(self.rig.broker.outcomes) == len(set(self.rig.broker.outcomes))

    @invariant()
    def offsets_rise_within_a_partition(self):
        for source in self.rig.broker.sources:
            offsets = [offset for where, offset in self.rig.broker.outcomes if where == source]
            assert offsets == sorted(offsets)

    @invariant()
    def everything_below_the_committed_offset_has_an_outcome(self):
        done = set(self.rig.broker.outcomes)
        for source, committed in self.rig.broker.committed.items():
            assert all((source, offset) in done for offset in range(committed))

    def teardown(self):
        rig = self.rig
        rig.sink.room = True
        rig.model.answers = 10_000
        self.registry.down = False
        for partition in {0, 1, 2} - self.mine:
            rig.change("assigned", partition)
        rig.turn()
        rig.settle(400)
        assert sorted(rig.broker.outcomes) == rig.broker.everything()


TestAnythingGoes = AnythingGoes.TestCase
