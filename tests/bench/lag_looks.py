"""What a look at a group of many partitions takes: nothing to read, every partition behind, a backlog to count.

python tests/bench/lag_looks.py --partitions 1000 --records 200000
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.clock import SystemClock
from app.kafka.client_config import ClientPolicy
from app.kafka.lag import KafkaGroups
from app.lag.readings import WatchedGroup
from app.lag.watch import LagWatch
from deploy.local.stack import Stack

TOPIC, GROUP = "lag.many", "lag-looks"
VALUE_BYTES = 200


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--looks", type=int, default=5)
    plan = parser.parse_args()
    stack = Stack(Path(tempfile.mkdtemp(prefix="lag-looks-")))
    stack.guard(os.getpid())
    try:
        kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
        fill(kafka, plan.partitions, plan.records)
        measure(kafka, plan)
    finally:
        stack.down(wipe=True)


def fill(kafka, partitions, records):
    """The topic, and so many records dealt out to its partitions."""
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(TOPIC, partitions, 1)])[TOPIC].result(60)
    while any(p.leader < 0 for p in admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions.values()):
        time.sleep(0.5)
    time.sleep(2)
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 50, "log_level": 2})
    for number in range(records):
        while True:
            try:
                producer.produce(TOPIC, bytes(VALUE_BYTES), partition=number % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def commit(kafka, partitions, offset):
    """The group stands at this offset everywhere."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": GROUP})
    consumer.commit(offsets=[TopicPartition(TOPIC, n, offset) for n in range(partitions)], asynchronous=False)
    consumer.close()


def measure(kafka, plan):
    """One line for each state of the group."""
    each = plan.records // plan.partitions
    for name, offset, count in (
        ("caught up", each, 50_000),
        ("one record behind everywhere", each - 1, 50_000),
        ("all of it behind, 50,000 counted a look", 0, 50_000),
        ("all of it behind, counted at once", 0, None),
    ):
        commit(kafka, plan.partitions, offset)
        reader = KafkaGroups(ClientPolicy(kafka, "bench"), [GROUP], 60.0)
        watch = LagWatch(reader, [WatchedGroup(GROUP, ((TOPIC,),))], count, SystemClock())
        for number in range(plan.looks):
            wall, cpu = time.perf_counter(), time.process_time()
            (lag,) = watch.look()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            uncounted = sum(partition.uncounted for partition in lag.partitions)
            unaged = sum(partition.seconds is None for partition in lag.partitions)
            sys.stdout.write(
                f"{name}: look {number + 1}: {wall:.2f} s, {cpu:.2f} s CPU, {lag.records} records, "
                f"{uncounted} uncounted, {unaged} without an age, {len(lag.unknown)} unknown\n"
            )
        reader.close()


if __name__ == "__main__":
    main()
