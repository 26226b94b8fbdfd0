"""A traced batch is one span with its stages, linked to the records in it that somebody traces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_spans import TRACE_ID, KeptSpans, traceparent
from opentelemetry.trace import SpanKind, StatusCode
from small_pipeline import SICK, SmallPipeline, event, model_of, tenths

from app.answering.asking import FallbackPolicy
from app.errors import ModelFailed, SchemasPending
from app.observe.trace_context import context_in
from app.observe.tracing import add_span_ids, span_context_of
from app.records import Predictions
from app.worker.chain import ChainPolicy
from app.worker.traced_chain import TracedChain

STAGES = ["decode", "features", "infer", "encode"]


class TracedPipeline(SmallPipeline):
    """A small pipeline whose batches are traced."""

    def __init__(self, answer=tenths, policy=None, **sampling):
        super().__init__(model_of("4", answer))
        self.spans = KeptSpans()
        self.tracing = self.spans.stream(self.clock, **sampling)
        plain = self.chain
        self.chain = TracedChain(plain._decoder, plain._lineup, policy or ChainPolicy(), self.clock, self.tracing)

    def deliver(self, records):
        """Through all of it; returns what was scored."""
        scored = self.score(records)
        if scored.trace is not None:
            with scored.trace.delivering(len(scored.predictions.values), len(scored.dead_letters)):
                pass
        self.tracing.settled()
        return scored


def traced_event(x, offset, *headers, **more):
    record = event(x, offset, **more)
    record._headers = list(headers)
    return record


def test_a_batch_that_nobody_samples_is_not_traced():
    rig = TracedPipeline()
    scored = rig.deliver([event(1.0, 0), traced_event(1.0, 1, traceparent(sampled=False))])
    assert scored.trace is None
    assert scored.predictions.headers is None
    assert not len(scored.rows)  # which only a trace asks for
    assert rig.spans.all == []
    assert rig.spans.counted == []


def test_the_stages_of_a_traced_batch_follow_each_other_inside_its_span():
    rig = TracedPipeline(share=1.0)
    rig.deliver([event(1.0, 0), event(2.0, 1)])
    (batch,) = rig.spans.batches
    assert [span.name for span in rig.spans.all] == [*STAGES, "send predictions", "settle", "process events"]
    assert {span.context.trace_id for span in rig.spans.all} == {batch.context.trace_id}
    assert {span.parent.span_id for span in rig.spans.all if span is not batch} == {batch.context.span_id}
    starts = [span.start_time for span in rig.spans.all[:-1]]
    assert starts == sorted(starts)
    assert all(batch.start_time <= span.start_time <= span.end_time <= batch.end_time for span in rig.spans.all)
    assert rig.spans.counted == ["chance"]


def test_spans_have_the_names_that_the_conventions_give_them():
    rig = TracedPipeline(share=1.0)
    rig.deliver([event(1.0, 0, partition=3), event(2.0, 1, partition=3)])
    (batch,) = rig.spans.batches
    told = {name: value for name, value in batch.attributes.items() if name.startswith("messaging.")}
    assert told == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 2,
        "messaging.consumer.group.name": "workers",
        "messaging.client.id": "worker-1",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "3",
    }
    (send,) = rig.spans.named("send predictions")
    assert (batch.kind, send.kind) == (SpanKind.CONSUMER, SpanKind.PRODUCER)
    assert send.attributes["messaging.batch.message_count"] == 2
    assert batch.attributes["inference.model_versions"] == ("4",)


def test_a_batch_is_linked_to_its_sampled_records_and_says_where_they_are():
    rig = TracedPipeline()
    rig.deliver([event(1.0, 0), traced_event(2.0, 7, traceparent(), ("tracestate", b"v=1"), partition=2)])
    (batch,) = rig.spans.batches
    (link,) = batch.links
    assert batch.parent is None
    assert (f"{link.context.trace_id:032x}", link.context.is_remote) == (TRACE_ID, True)
    assert link.context.trace_state.to_header() == "v=1"
    assert dict(link.attributes) == {
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 7,
    }
    assert rig.spans.counted == ["record"]


def test_a_prediction_carries_the_context_of_its_own_record():
    rig = TracedPipeline()
    records = [
        traced_event(11.0, 0, traceparent("1" * 32)),  # rejected: its dead letter has the event's headers anyway
        event(1.0, 1),
        traced_event(2.0, 2, traceparent("2" * 32), ("tracestate", b"v=1")),
        traced_event(3.0, 3, traceparent("3" * 32, sampled=False)),
    ]
    scored = rig.deliver(records)
    assert scored.predictions.keys == [b"1", b"2", b"3"]
    assert scored.predictions.headers == {1: [traceparent("2" * 32), ("tracestate", b"v=1")]}
    assert traceparent("1" * 32) in scored.dead_letters[0].headers
    assert len(rig.spans.batches[0].links) == 2


def test_a_context_that_its_prediction_has_no_room_for_is_left_out():
    rig = TracedPipeline()
    big = [("tracestate", b"k=" + b"v" * 250), ("tracestate", b"l=" + b"v" * 250)]
    record = traced_event(1.0, 0, traceparent(), *big, key=b"k" * 500)
    assert isinstance(rig.deliver([record]).predictions, Predictions)
    assert rig.deliver([record]).predictions.headers is None
    assert rig.deliver([traced_event(1.0, 0, traceparent(), key=b"k" * 500)]).predictions.headers is not None


def test_dead_letters_are_events_of_the_span():
    rig = TracedPipeline(share=1.0)
    rig.deliver([event(1.0, 0), event(11.0, 1), event(12.0, 2), event(SICK, 3)])
    (batch,) = rig.spans.batches
    told = [dict(e.attributes) for e in batch.events if e.name == "inference.dead_letters"]
    assert told == [
        {"inference.stage": "features", "inference.reason": "out_of_range", "inference.rows": 2},
        {"inference.stage": "output", "inference.reason": "bad_output", "inference.rows": 1},
    ]
    assert (batch.attributes["inference.predicted"], batch.attributes["inference.dead_lettered"]) == (1, 3)
    assert batch.status.status_code is StatusCode.UNSET


def test_a_bisected_batch_and_a_fallback_are_seen():
    def picky(tensors):
        if (tensors["X"] == 5.0).any():
            raise ModelFailed("five")
        return tenths(tensors)

    rig = TracedPipeline(picky, share=1.0)
    rig.deliver([event(1.0, 0), event(5.0, 1)])
    (asked,) = [e for e in rig.spans.batches[0].events if e.name == "inference.model.asked"]
    assert asked.attributes["inference.bisected"] is True
    assert (asked.attributes["inference.rows_answered"], asked.attributes["inference.rows_failed"]) == (1, 1)


def test_a_model_at_fault_is_the_error_of_its_batch():
    def broken(_tensors):
        raise ModelFailed("no such operator")

    rig = TracedPipeline(broken, share=1.0)
    rig.model.at_fault = True
    with pytest.raises(ModelFailed):
        rig.score([event(1.0, 0)])
    (batch,) = rig.spans.batches
    assert batch.status.status_code is StatusCode.ERROR
    assert batch.status.description == "ModelFailed: the model is at fault"
    assert batch.attributes["error.type"] == "ModelFailed"


def test_a_version_that_fails_is_an_event_where_the_stream_goes_on():
    def broken(_tensors):
        raise ModelFailed("no such operator")

    rig = TracedPipeline(broken, ChainPolicy(fallback=FallbackPolicy(then="dead_letter")), share=1.0)
    rig.model.at_fault = True
    rig.deliver([event(1.0, 0)])
    (batch,) = rig.spans.batches
    (asked,) = [e for e in batch.events if e.name == "inference.model.asked"]
    assert asked.attributes["inference.model_at_fault"] is True
    assert asked.attributes["inference.bisected"] is False
    assert batch.attributes["inference.dead_lettered"] == 1


def test_a_batch_that_waits_for_a_schema_ends_and_begins_again():
    rig = TracedPipeline(share=1.0)
    rig.schemas.down = True
    with pytest.raises(SchemasPending):
        rig.score([event(1.0, 0)])
    rig.schemas.down = False
    rig.clock.advance(60.0)
    rig.deliver([event(1.0, 0)])
    first, second = rig.spans.batches
    assert first.attributes["error.type"] == "SchemasPending"
    assert second.status.status_code is StatusCode.UNSET


def test_log_lines_name_the_batch_while_it_is_worked_on():
    rig = TracedPipeline(share=1.0)
    seen = []

    def logging_model(tensors):
        seen.append(add_span_ids(None, "info", {}))
        return tenths(tensors)

    rig.model.answer = logging_model
    rig.deliver([event(1.0, 0)])
    (batch,) = rig.spans.batches
    assert seen == [
        {"trace_id": f"{batch.context.trace_id:032x}", "span_id": f"{batch.context.span_id:016x}"},
    ]
    assert add_span_ids(None, "info", {}) == {}


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.binary(max_size=600)), max_size=4
            ),
            st.just([traceparent()]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_headers_say_every_record_is_predicted(sent):
    rig = TracedPipeline()
    scored = rig.deliver([traced_event(1.0, i, *(headers or ())) for i, headers in enumerate(sent)])
    assert scored.predictions.keys == [str(i).encode() for i in range(len(sent))]
    carried = scored.predictions.headers or {}
    assert all(row in carried for row, headers in enumerate(sent) if headers == [traceparent()])


def test_no_more_batches_a_second_are_traced_for_their_senders_than_was_said():
    rig = TracedPipeline(parents_per_s=3.0)
    records = [traced_event(1.0, 0, traceparent())]
    for _ in range(10):
        rig.deliver(records)
    assert len(rig.spans.batches) == 3
    rig.clock.advance(1.0)
    rig.deliver(records)
    assert len(rig.spans.batches) == 4


def test_no_more_links_than_was_said():
    rig = TracedPipeline(most_links=2)
    scored = rig.deliver([traced_event(1.0, i, traceparent(f"{i + 1:032x}")) for i in range(5)])
    assert len(rig.spans.batches[0].links) == len(scored.predictions.headers) == 2


def test_a_sender_is_not_heeded_where_that_is_switched_off():
    rig = TracedPipeline(parents_per_s=0.0)
    assert rig.deliver([traced_event(1.0, 0, traceparent())]).trace is None


def test_chance_takes_its_share():
    throws = iter([0.005, 0.5, 0.0099, 0.01])
    rig = TracedPipeline(share=0.01, throw=lambda: next(throws))
    traced = [rig.deliver([event(1.0, 0)]).trace is not None for _ in range(4)]
    assert traced == [True, False, True, False]


def test_what_comes_after_the_end_of_a_trace_is_left_out():
    rig = TracedPipeline(share=1.0)
    prepared = rig.prepare([event(1.0, 0)])
    prepared.trace.dropped("taken away")
    rig.chain.finish(rig.chain.answer(prepared))
    (batch,) = rig.spans.batches
    assert [e.name for e in batch.events] == ["inference.batch.dropped"]
    assert [span.name for span in rig.spans.all] == ["decode", "features", "process events"]


def test_a_context_is_the_same_in_the_library():
    found = span_context_of(context_in([traceparent(), ("tracestate", b"a=1,b=2")]))
    assert (f"{found.trace_id:032x}", found.trace_flags.sampled, found.trace_state.to_header()) == (
        TRACE_ID, True, "a=1,b=2",
    )  # fmt: skip
