"""A topic that gets more partitions while workers run is noticed."""

from confluent_kafka.admin import AdminClient, NewPartitions
from worker_process import wait_until

from app.kafka import partition_watch
from app.kafka.client_config import ClientPolicy
from app.kafka.partition_watch import PartitionWatch
from app.observe.worker_metrics import Metrics


def test_a_changed_number_of_partitions_is_counted_by_topic(kafka, topics, monkeypatch):
    monkeypatch.setattr(partition_watch, "EVERY_S", 0.05)
    growing, steady = topics("growing", 2), topics("steady", 2)
    metrics = Metrics()
    watch = PartitionWatch(ClientPolicy(kafka, "watch"), {growing, steady}, metrics)
    changes = metrics.counters["inference_partition_changes_total"]
    watch.start()
    try:
        wait_until(lambda: all(watch._counts.values()), "the first look")
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.create_partitions([NewPartitions(growing, 5)])[growing].result(30)
        wait_until(lambda: changes.labels(growing)._value.get() >= 1, "the change to be seen")
        wait_until(lambda: watch._counts[growing] == 5, "all five")
        assert changes.labels(steady)._value.get() == 0
    finally:
        watch.close()
