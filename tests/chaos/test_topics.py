"""Topics change under a worker: partitions are added, retention deletes what it has not read, clocks lie."""

import contextlib
import time

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from tests.chaos.flow import PARTITIONS, make_lane
from tests.integration.rig import WAIT_S, answers, committed, ends, events_of, write
from tests.integration.worker_process import running_worker, wait_until

FIRST, SECOND, LEFT = 2_000, 2_000, 100
DAY_MS = 86_400_000


def test_partitions_that_are_added_are_picked_up(faulty_kafka, flow):
    stream = flow(settings={"kafka": {
        "bootstrap_servers": faulty_kafka.proxied, "session_timeout_s": 3,
        "client": {"topic.metadata.refresh.interval.ms": 500},
    }})  # fmt: skip
    admin = faulty_kafka.admin()

    with stream.kept() as slot:
        stream.flows()
        for topic in (stream.lane.output, stream.lane.dead_letters, *stream.lane.inputs):  # outputs first
            admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)])[topic].result(WAIT_S)
        wait_until(
            lambda: slot.tend() or all(ends(stream.lane.kafka, stream.lane.output).get(p) for p in (4, 5)),
            "predictions in the new partitions",
        )
        stream.feeder.stop()
        verdict = stream.lane.verified()
        assert slot.worker.stop() == 0

    assert verdict.inputs == stream.feeder.sent


def delete_all_but(kafka, topic, left):
    """As retention does; the last `left` records of each partition stay."""
    asked = [TopicPartition(topic, partition, end - left) for partition, end in ends(kafka.direct, topic).items()]
    admin = kafka.admin()  # one that is collected early cancels what it was told

    def deleted():
        """A broker that has just come back may keep the others waiting for its copy."""
        with contextlib.suppress(KafkaException):
            for each in admin.delete_records(asked, request_timeout=20, operation_timeout=15).values():
                each.result(WAIT_S)
            return True

    wait_until(deleted, "records to be deleted", 2 * WAIT_S)


def overtaken(kafka, models, folder, start_from):
    """(lane, settings) of a group that stands at offset 500 of each partition, where the first is now 900."""
    lane = make_lane(kafka, models)
    settings = lane.settings(kafka={"bootstrap_servers": kafka.proxied, "start_from": start_from})
    write(kafka.direct, lane.inputs[0], events_of(lane.event_stream(), FIRST))
    settings["kafka"]["start_from"] = "earliest"
    with running_worker(settings, folder) as worker:
        worker.wait_for_records(FIRST)
        assert worker.stop() == 0
    assert set(committed(kafka.direct, settings["kafka"]["group_id"], lane.inputs[0]).values()) == {FIRST // PARTITIONS}
    write(kafka.direct, lane.inputs[0], events_of(lane.event_stream(), SECOND, first=FIRST))
    delete_all_but(kafka, lane.inputs[0], LEFT)
    settings["kafka"]["start_from"] = start_from
    return lane, settings


def test_a_group_overtaken_by_retention_goes_on_with_what_is_left(faulty_kafka, models, tmp_path):
    lane, settings = overtaken(faulty_kafka, models, tmp_path, "earliest")

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(PARTITIONS * LEFT)
        verdict = lane.verified()
        missed = worker.metrics().total("inference_records_missed_total")
        assert len(worker.said("committed_offset_out_of_range")) == PARTITIONS
        assert worker.stop() == 0

    assert missed == SECOND - PARTITIONS * LEFT
    assert (verdict.inputs, verdict.before_window) == (PARTITIONS * LEFT, FIRST)


def test_a_group_overtaken_by_retention_goes_on_with_what_is_new(faulty_kafka, models, tmp_path):
    lane, settings = overtaken(faulty_kafka, models, tmp_path, "latest")
    end = (FIRST + SECOND) // PARTITIONS

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_assigned()
        more = lane.event_stream()

        def newest_answered():
            write(lane.kafka, lane.inputs[0], events_of(more, PARTITIONS))  # until it stands at the end
            return {answer["source_partition"] for _, answer in answers(lane) if answer["source_offset"] >= end}

        wait_until(lambda: len(newest_answered()) == PARTITIONS, "answers to new events")
        assert worker.stop() == 0

    offsets = [(answer["source_partition"], answer["source_offset"]) for _, answer in answers(lane)]
    assert len(offsets) == len(set(offsets))
    assert not [offset for _, offset in offsets if FIRST // PARTITIONS <= offset < end]


def test_a_group_overtaken_by_retention_stops_if_that_is_the_policy(faulty_kafka, models, tmp_path):
    lane, settings = overtaken(faulty_kafka, models, tmp_path, "fail")

    with running_worker(settings, tmp_path) as worker:
        assert worker.wait() == 1
        assert "start_from is fail" in worker.log

    assert len(answers(lane)) == FIRST


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_timestamps_from_the_past_and_the_future_change_nothing(faulty_kafka, models, tmp_path, mode):
    lane = make_lane(faulty_kafka, models, message_timestamp_after_max_ms=400 * DAY_MS)
    settings = lane.settings(kafka={"bootstrap_servers": faulty_kafka.proxied}, delivery={"mode": mode})
    now_ms = time.time_ns() // 1_000_000
    stamps = [1, now_ms - 300 * DAY_MS, now_ms - 60_000, now_ms, now_ms + 3_600_000, now_ms + 300 * DAY_MS]
    producer = Producer({"bootstrap.servers": lane.kafka})
    for number, (partition, key, value) in enumerate(events_of(lane.event_stream(), 600)):
        stamp = stamps[number % len(stamps)]
        producer.produce(lane.inputs[0], partition=partition, key=key, value=value, timestamp=stamp)
    assert producer.flush(WAIT_S) == 0

    with running_worker(settings, tmp_path) as worker:
        verdict = lane.verified(at_least_once=mode == "at_least_once")
        worker.wait_for_records(600)
        latencies = worker.metrics().of("inference_end_to_end_latency_seconds_bucket", "le")
        assert worker.stop() == 0

    assert verdict.predictions == 600
    assert latencies["0.001",] >= 200  # the future counts as no latency at all
    assert latencies["+Inf",] == 600
