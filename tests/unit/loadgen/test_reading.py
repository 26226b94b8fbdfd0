"""The topic reader, on the mock broker."""

import time

from confluent_kafka import TopicPartition

from app.kafka.mock_cluster import PARTITIONS, MockCluster
from loadgen.kafka_client import KafkaOptions
from loadgen.reading import TopicReader

START = dict.fromkeys(range(PARTITIONS), 0)


def _read_until(reader, ends):
    values, deadline = [], time.monotonic() + 20
    while not reader.has_read(ends):
        assert time.monotonic() < deadline
        values += reader.read(0.1).values
    return values


def test_each_record_is_returned_once_though_the_client_goes_back():
    with MockCluster() as cluster:
        cluster.put("events", [b"%d" % number for number in range(40)], [b"k"] * 40, first=0)
        reader = TopicReader(KafkaOptions(cluster.bootstrap_servers), "events", START)
        try:
            assert not reader.has_read(START | {0: 1})
            first = _read_until(reader, dict.fromkeys(START, 10))
            reader._consumer.seek(TopicPartition("events", 2, 3))
            cluster.put("events", [b"%d" % number for number in range(40, 48)], [b"k"] * 8, first=0)
            second = _read_until(reader, dict.fromkeys(START, 12))
        finally:
            reader.close()
    assert sorted(first + second, key=int) == [b"%d" % number for number in range(48)]
    assert sorted(second, key=int) == [b"%d" % number for number in range(40, 48)]
