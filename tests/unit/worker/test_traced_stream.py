"""The loop and its traces: a batch's span ends when the batch is durable, or says why it never was."""

from dataclasses import replace

import pytest
from fake_stream import Rig, copy_offsets
from fakes import ManualClock
from kept_spans import KeptSpans
from opentelemetry.trace import StatusCode

from app.errors import DeadLetterFlood, ModelFailed


class TracedRig(Rig):
    """Every batch is traced."""

    def __init__(self, **more):
        clock = ManualClock()
        self.spans = KeptSpans()
        self.tracing = self.spans.stream(clock, share=1.0)

        def score(batch, origin):
            trace = self.tracing.begin(batch, origin)
            with trace.current():
                if more_score is not None:
                    more_score()
            return replace(copy_offsets(batch, origin), trace=trace)

        more_score = more.pop("fails", None)
        super().__init__(clock, score=score, tracing=self.tracing, **more)
        self.broker.append(0, 4)
        self.change("assigned", 0, 1)


def test_the_span_of_a_batch_ends_when_it_is_durable():
    rig = TracedRig()
    rig.settle()
    (batch,) = rig.spans.batches
    assert batch.status.status_code is StatusCode.UNSET
    assert len(rig.spans.named("settle")) == 1


def test_a_batch_whose_transaction_aborts_is_an_error_and_comes_again():
    rig = TracedRig()
    rig.sink.aborts = 1
    rig.settle(2000)
    first, second = rig.spans.batches
    assert (first.status.status_code, first.attributes["error.type"]) == (StatusCode.ERROR, "Aborted")
    assert second.status.status_code is StatusCode.UNSET
    assert len(rig.spans.named("settle")) == 1


def test_partitions_that_are_taken_away_end_no_trace_without_a_word():
    rig = TracedRig(by_hand=True)
    rig.turn(3)
    rig.change("lost", 0)
    rig.turn(3)
    rig.tracing.undone(None)
    assert all(span.end_time for span in rig.spans.all)


@pytest.mark.parametrize("error", [ModelFailed("at fault"), DeadLetterFlood("too many")])
def test_when_the_worker_ends_by_an_error_its_batches_say_so(error):
    def fail():
        raise error

    rig = TracedRig(fails=fail)
    with pytest.raises(type(error)):
        rig.worker.run()
    (batch,) = rig.spans.batches
    assert batch.attributes["error.type"] == type(error).__name__
    assert rig.sink.closed


def test_a_batch_that_is_committed_before_a_flood_ends_the_worker_is_no_error():
    errors = iter([None, DeadLetterFlood("too many")])

    def fail():
        if (error := next(errors)) is not None:
            raise error

    rig = TracedRig(fails=fail)
    rig.sink.settles = False  # only when it is asked to at once
    rig.broker.append(0, 4)
    with pytest.raises(DeadLetterFlood):
        rig.worker.run()
    assert len(rig.broker.outcomes) == 4
    ends = {span.attributes.get("error.type") for span in rig.spans.batches}
    assert (len(rig.spans.batches), ends) == (2, {None, "DeadLetterFlood"})
    assert len(rig.spans.named("settle")) == 1


def test_a_drained_worker_leaves_no_span_open():
    rig = TracedRig()
    rig.turn(1)
    rig.worker.stop()
    rig.worker.run()
    assert len(rig.broker.outcomes) in {0, 4}
    assert len(rig.spans.batches) == len(rig.broker.outcomes) // 4
    assert all(span.status.status_code is StatusCode.UNSET for span in rig.spans.batches)
