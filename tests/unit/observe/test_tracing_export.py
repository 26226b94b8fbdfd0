"""A collector gets what was recorded; one that is away, slow or mad costs its spans, and nobody anything else."""

import time
from collections import Counter, deque
from contextlib import closing

import pytest
import structlog
from fakes import ManualClock
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from otlp_receiver import attributes_of, grpc_collector, http_collector

from app.observe.tracing import Allowance, Tracing
from app.observe.tracing_export import otlp_exporter
from app.observe.tracing_settings import TracingSettings


class Fates:
    """What became of spans."""

    def __init__(self):
        self.of = Counter()

    def __call__(self, fate, many):
        self.of[fate] += many


def tracing_to(url, fates, **more):
    settings = TracingSettings(enabled=True, endpoint=url, **{"timeout_s": 2.0, "close_timeout_s": 5.0, **more})
    return Tracing(settings, "worker-1", "0.1", otlp_exporter(settings), fates)


@pytest.mark.parametrize(("protocol", "collector"), [("http/protobuf", http_collector), ("grpc", grpc_collector)])
def test_a_collector_gets_the_spans_with_whose_they_are(protocol, collector):
    fates = Fates()
    with collector() as received:
        own = "deployment.environment.name=test,service.name=no"
        headers = "x-api-key=t0p%20s3cret"
        with closing(
            tracing_to(received.url, fates, protocol=protocol, resource_attributes=own, headers=headers)
        ) as tracing:
            span = tracing.tracer.start_span("process events", attributes={"messaging.batch.message_count": 3})
            span.end()
        ((resource, exported),) = received.spans
    assert exported.name == "process events"
    assert attributes_of(exported) == {"messaging.batch.message_count": 3}
    told = {name: resource[name] for name in resource if name.startswith(("service.", "deployment."))}
    assert told == {
        "service.name": "inference-worker",
        "service.instance.id": "worker-1",
        "service.version": "0.1",
        "deployment.environment.name": "test",
    }
    assert received.headers[0]["x-api-key"] == "t0p s3cret"
    assert received.paths[0] in {"/v1/traces", ""}
    assert fates.of == {"exported": 1}


def test_a_collector_that_is_away_costs_its_spans_and_says_so_once():
    fates = Fates()
    with structlog.testing.capture_logs() as logs:
        tracing = tracing_to("http://127.0.0.1:9", fates, timeout_s=0.2)
        for _ in range(3):
            tracing.tracer.start_span("x").end()
            assert tracing._queue.force_flush(5_000)
        tracing.close()
    assert fates.of == {"failed": 3}
    assert [line["event"] for line in logs] == ["spans_not_exported"]
    assert logs[0]["reason"]


@pytest.mark.parametrize(
    ("status", "body", "fate"),
    [
        (400, b"", "failed"),
        (301, b"", "failed"),
        (302, b"", "failed"),
        (308, b"", "failed"),
        (200, b"\xff" * 999, "exported"),
    ],
)
def test_what_a_collector_answers_is_its_own_affair(status, body, fate):
    fates = Fates()
    with http_collector() as received:
        received.answer, received.body = status, body
        with closing(tracing_to(received.url, fates)) as tracing:
            tracing.tracer.start_span("x").end()
    assert fates.of == {fate: 1}


def test_a_redirect_is_said_and_not_asked_again():
    with http_collector() as received:
        received.answer = 308
        with structlog.testing.capture_logs() as logs, closing(tracing_to(received.url, Fates())) as tracing:
            tracing.tracer.start_span("x").end()
        assert received.calls == 1
    (said,) = logs
    assert "status 308: the collector is somewhere else" in said["reason"]


def test_while_a_collector_does_not_answer_spans_beyond_the_queue_are_dropped_and_nobody_waits():
    fates = Fates()
    with http_collector() as received:
        received.gate.clear()
        tracing = tracing_to(received.url, fates, queue_spans=10, timeout_s=30.0, close_timeout_s=0.2)
        tracing.tracer.start_span("first").end()
        tracing._queue._wake.set()
        assert received.called.wait(10)
        started = time.perf_counter()
        for _ in range(100):
            tracing.tracer.start_span("x").end()
        assert time.perf_counter() - started < 10.0
        assert fates.of["dropped"] == 90
        started = time.perf_counter()
        tracing.close()
        assert time.perf_counter() - started < 10.0  # the exporter's own time is longer
        assert fates.of["dropped"] == 100


def test_an_exporter_that_fails_in_any_way_ends_nothing():
    class Mad(SpanExporter):
        def export(self, spans):
            raise RuntimeError("garbage")

        def shutdown(self):
            raise RuntimeError("more garbage")

    fates = Fates()
    tracing = Tracing(TracingSettings(enabled=True), "worker-1", "0.1", Mad(), fates)
    tracing.tracer.start_span("x").end()
    tracing.close()
    tracing.close()
    tracing.tracer.start_span("late").end()
    assert fates.of == {"failed": 1, "dropped": 1}


def test_spans_that_the_other_thread_has_taken_meanwhile_are_neither_exported_nor_an_error():
    class Raced(deque):
        def __len__(self):
            return super().__len__() + 1  # what was so before the other one took it

    class Keeping(SpanExporter):
        def export(self, spans):
            return SpanExportResult.SUCCESS

        def shutdown(self):
            pass

    fates = Fates()
    tracing = Tracing(TracingSettings(enabled=True), "worker-1", "0.1", Keeping(), fates)
    tracing._queue._spans = Raced()
    tracing.tracer.start_span("x").end()
    tracing._queue._export_all()
    tracing._queue._export_all()
    tracing.close()
    assert fates.of == {"exported": 1}


def test_a_collector_that_comes_back_is_said_too():
    class Passing(SpanExporter):
        results = iter([SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS])

        def export(self, spans):
            return next(self.results)

        def shutdown(self):
            pass

    with structlog.testing.capture_logs() as logs:
        tracing = Tracing(TracingSettings(enabled=True), "worker-1", "0.1", Passing(), Fates())
        for _ in range(3):
            tracing.tracer.start_span("x").end()
            tracing._queue._export_all()
        tracing.close()
    assert [line["event"] for line in logs] == ["spans_not_exported", "spans_exported_again"]


def test_what_a_span_may_hold_is_bounded_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://nobody.invalid:1")
    with http_collector() as received:
        with closing(tracing_to(received.url, Fates())) as tracing:
            span = tracing.tracer.start_span("x", attributes={str(number): "v" * 5_000 for number in range(100)})
            span.end()
        ((_, exported),) = received.spans
    assert len(exported.attributes) == 64
    assert {len(pair.value.string_value) for pair in exported.attributes} == {1_024}


def test_an_allowance_is_used_up_and_comes_again():
    clock = ManualClock()
    allowance = Allowance(2.0, clock)
    taken = []
    for _ in range(4):
        taken.append(allowance.any())
        if taken[-1]:
            allowance.take()
    clock.advance(0.6)
    assert (taken, allowance.any()) == ([True, True, False, False], True)
    assert not Allowance(0.0, clock).any()
