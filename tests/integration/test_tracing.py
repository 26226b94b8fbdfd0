"""Traces from producer to consumer through a real broker and a real worker, to a collector that decodes real OTLP."""

import urllib.request
from io import BytesIO

import fastavro
import orjson
import pytest
from confluent_kafka import Producer
from otlp_receiver import attributes_of, grpc_collector, http_collector
from raw_headers import send_raw
from rig import SCHEMAS, WAIT_S, answers, events_of, read_all
from worker_process import running_worker

from loadgen.wire import SINGLE_OBJECT

SPAN = "00f067aa0ba902b7"
HOSTILE = [
    ("traceparent", b"\xff" * 70),
    ("traceparent", None),
    ("traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
    ("tracestate", b"=" * 10_000),
    ("", b""),
]


def traceparent(row, flags="01"):
    return ("traceparent", f"00-{row + 1:032x}-{SPAN}-{flags}".encode())


def send(lane, headers_of, count):
    """`count` events, each with the headers that its number gives."""
    producer = Producer({"bootstrap.servers": lane.kafka})
    for row, (partition, key, value) in enumerate(events_of(lane.event_stream(), count)):
        producer.produce(lane.inputs[0], value, key, partition, headers=headers_of(row))
    assert producer.flush(WAIT_S) == 0


def tracing(collector, **more):
    return {"enabled": True, "endpoint": collector.url, "sample_ratio": 0.0, **more}


def own_headers(message):
    return dict(message.headers() or ())


@pytest.mark.parametrize(
    ("mode", "protocol", "collector"),
    [("exactly_once", "http/protobuf", http_collector), ("at_least_once", "grpc", grpc_collector)],
)
def test_a_consumer_goes_on_with_the_trace_of_the_producer(mode, protocol, collector, lane, tmp_path):
    one = lane()
    sampled = {10, 11, 250}
    state = ("tracestate", b"vendor=opaque")

    def headers_of(row):
        return [traceparent(row), state] if row in sampled else [traceparent(row, "00")] if row % 2 else None

    with collector() as received:
        settings = one.settings(
            pipeline={"batch": {"max_records": 32}},
            delivery={"mode": mode},
            tracing=tracing(received, protocol=protocol, records_read=512),
        )
        with running_worker(settings, tmp_path) as worker:
            worker.wait_until_ready()
            send(one, headers_of, 400)
            worker.wait_for_records(400)
            assert worker.stop() == 0
            (told,) = worker.said("tracing")
        batches = received.named("process ")

    carried = {dict(m.headers())["traceparent"]: own_headers(m) for m in read_all(one.kafka, one.output) if m.headers()}
    assert carried.keys() == {traceparent(row)[1] for row in sampled}
    assert all(headers["tracestate"] == state[1] for headers in carried.values())
    found = answers(one)
    assert len(found) == 400
    for partition in range(4):
        offsets = [answer["source_offset"] for message, answer in found if message.partition() == partition]
        assert offsets == list(range(100))  # those with headers went singly, in their places

    links = [link for batch in batches for link in batch.links]
    assert {link.trace_id for link in links} == {(row + 1).to_bytes(16) for row in sampled}
    assert {link.span_id.hex() for link in links} == {SPAN}
    assert {attributes_of(link)["messaging.kafka.offset"] for link in links} == {row // 4 for row in sampled}
    for batch in batches:
        facts = attributes_of(batch)
        assert facts["messaging.system"] == "kafka"
        assert 1 <= facts["messaging.batch.message_count"] == facts["inference.predicted"]
        stages = {span.name for _, span in received.spans if span.parent_span_id == batch.span_id}
        assert stages == {"decode", "features", "infer", "encode", f"send {one.output}", "settle"}
        assert batch.start_time_unix_nano < batch.end_time_unix_nano
    assert told["protocol"] == protocol


def test_hostile_headers_and_a_collector_that_is_away_cost_nothing_but_spans(lane, tmp_path):
    one = lane()
    settings = one.settings(
        tracing={"enabled": True, "endpoint": "http://127.0.0.1:9", "sample_ratio": 1.0, "timeout_s": 0.2}
    )

    def headers_of(row):
        return HOSTILE[: row % 6] + ([traceparent(row)] if row % 3 == 0 else [])

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        send(one, headers_of, 1_000)
        worker.wait_for_records(1_000)
        worker.wait_until(lambda: worker.metrics().total("inference_spans_total", result="failed"), "a failed export")
        assert worker.stop() == 0
        (warning,) = worker.said("spans_not_exported")
    assert worker.said("library_log") == []
    assert len(answers(one)) == 1_000
    assert warning["reason"]


def test_dead_letters_show_in_the_trace_and_keep_their_context(lane, tmp_path):
    one = lane()
    with http_collector() as received:
        settings = one.settings(tracing=tracing(received, resource_attributes="deployment.environment.name=test"))
        with running_worker(settings, tmp_path) as worker:
            worker.wait_until_ready()
            producer = Producer({"bootstrap.servers": one.kafka})
            producer.produce(one.inputs[0], b"\xc3\x01nonsense", b"k", 0, headers=[traceparent(0)])
            assert producer.flush(WAIT_S) == 0
            worker.wait_for_records(1, "dead_lettered")
            assert worker.stop() == 0
        (batch,) = received.named("process ")
        ((resource, _), *_) = received.spans
    (event,) = [event for event in batch.events if event.name == "inference.dead_letters"]
    assert attributes_of(event)["inference.rows"] == 1
    (letter,) = read_all(one.kafka, one.dead_letters)
    assert own_headers(letter)["traceparent"] == traceparent(0)[1]
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("inference-worker", "test")
    assert resource["service.instance.id"] == settings["worker"]["instance_id"]


@pytest.mark.parametrize("ratio", [None, 1.0])
def test_a_header_whose_name_is_no_text_ends_no_worker(ratio, lane, tmp_path):
    """The client kills whoever asks twice for such headers: tracing asks, and a dead letter does."""
    one = lane()
    on = {"tracing": {"enabled": True, "endpoint": "http://127.0.0.1:9", "timeout_s": 0.2, "sample_ratio": ratio}}
    with running_worker(one.settings() | (on if ratio else {}), tmp_path) as worker:
        worker.wait_until_ready()
        send_raw(one.kafka, one.inputs[0], b"\xc3\x01nonsense", [(b"\xff\xfe", b"v"), traceparent_bytes(7)])
        (_, _, value), *_ = events_of(one.event_stream(), 1)
        send_raw(one.kafka, one.inputs[0], value, [(b"\xff\xfe", b"v")])
        worker.wait_for_records(2)
        assert worker.stop() == 0
    (letter,) = read_all(one.kafka, one.dead_letters)
    assert own_headers(letter)["inference.headers"] == b"omitted: the name of one is not UTF-8"
    assert len(answers(one)) == 1


def traceparent_bytes(row):
    name, value = traceparent(row)
    return name.encode(), value


def test_each_process_of_a_worker_is_an_instance_of_its_own(lane, tmp_path):
    one = lane()
    with http_collector() as received:
        settings = one.settings(
            pipeline={"batch": {"max_records": 32}},
            worker={"processes": 2},
            tracing=tracing(received, sample_ratio=1.0),
        )
        with running_worker(settings, tmp_path) as worker:
            worker.wait_until_ready()
            worker.wait_until(
                lambda: {told["slot"] for told in worker.said("partitions_assigned")} == {0, 1}, "partitions for both"
            )
            one.produce(2_000)
            worker.wait_for_records(2_000)
            assert worker.stop() == 0
        instances = {resource["service.instance.id"] for resource, _ in received.spans}
        ids = [span.span_id for _, span in received.spans]
    name = settings["worker"]["instance_id"]
    assert instances == {f"{name}-0", f"{name}-1"}
    assert len(set(ids)) == len(ids)


def test_a_server_goes_on_with_the_traces_of_its_clients(lane, tmp_path):
    one = lane()
    with http_collector() as received:
        settings = one.settings(serving={"port": 0, "grpc": {"port": None}, "drain_delay_s": 0.0}) | {
            "tracing": tracing(received, service_name="churn-server")
        }
        with running_worker(settings, tmp_path, command="serve") as server:
            server.wait_until(lambda: server.said("ready"), "the server to be ready")
            _, _, value = events_of(one.event_stream(), 1)[0]
            page = {"features": features_of(value)}
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/predict",
                orjson.dumps(page),
                {"content-type": "application/json", "traceparent": traceparent(41)[1].decode()},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200
            assert server.stop() == 0
        (call,) = received.named("POST /predict")
        (batch,) = received.named("infer churn")
        ((resource, _), *_) = received.spans
    assert (call.trace_id, call.parent_span_id.hex()) == ((42).to_bytes(16), SPAN)
    assert batch.links[0].span_id == call.span_id
    assert resource["service.name"] == "churn-server"


def features_of(value):
    schema = fastavro.schema.load_schema(SCHEMAS / "churn_event.avsc")
    event = fastavro.schemaless_reader(BytesIO(value[SINGLE_OBJECT.header_size :]), schema, None)
    return {name: field for name, field in event.items() if isinstance(field, int | float | str | bool)}
