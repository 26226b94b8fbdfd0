"""The schema registry goes away: what is known goes on, what is not waits, and nothing is dead-lettered for it."""

import pytest
from rig import committed, ends, events_of, read_all, write
from worker_process import running_worker

from deploy.local.schema_registry import SchemaRegistry

UNHEARD_OF = (2_000_000_000).to_bytes(4, "big")


@pytest.fixture
def registry(tmp_path):
    """A registry of this test's own."""
    with SchemaRegistry(tmp_path / "registry") as registry:
        yield registry


def test_known_schemas_go_on_and_only_the_partition_of_an_unknown_one_waits(lane, registry, tmp_path):
    one = lane(partitions=2, registry_url=registry.url)
    (topic,) = one.inputs
    events = events_of(one.event_stream(), 4_000, partitions=2)
    settings = one.settings(schemas={"auto_register": True})
    write(one.kafka, topic, events[:1_000])

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(1_000)
        registry.kill()
        (_, key, value) = events[0]
        unheard_of = (0, key, value[:1] + UNHEARD_OF + value[5:])
        write(one.kafka, topic, [*events[1_000:3_000], unheard_of, *events[3_000:]])
        worker.wait_until(lambda: worker.said("partitions_wait_for_schemas"), "partition 0 to be held back")
        worker.wait_for_records(3_500)  # all of partition 1, and of partition 0 what came before the stranger
        worker.wait_until(
            lambda: worker.metrics().total("inference_waiting_partitions") == 1, "the metric to say that one waits"
        )
        assert worker.metrics().records() == worker.metrics().records("predicted") == 3_500
        worker.wait_until(
            lambda: worker.metrics().of("inference_lag_records", "partition") == {("0",): 501, ("1",): 0},
            "the lag of the one that waits, and of no other",
        )
        assert worker.get("/livez") == (200, "ok")
        assert worker.get("/readyz") == (200, "ok")

        registry.start()
        worker.wait_for_records(4_001)
        assert worker.stop() == 0

    (letter,) = read_all(one.kafka, one.dead_letters)
    assert dict(letter.headers())["inference.reason"] == b"unknown_schema"
    assert len(read_all(one.kafka, one.output)) == 4_000
    assert committed(one.kafka, settings["kafka"]["group_id"], topic) == ends(one.kafka, topic)


def test_without_a_registry_at_the_start_the_worker_names_it_and_consumes_nothing(lane, registry, tmp_path):
    one = lane(partitions=1, registry_url=registry.url)
    one.produce(100)
    registry.kill()
    settings = one.settings(schemas={"auto_register": True})

    with running_worker(settings, tmp_path) as worker:
        status = worker.wait()
        assert "NotReachable" in worker.log
        assert registry.url in worker.log
        assert "Traceback" not in worker.log
    assert status == 2
    assert committed(one.kafka, settings["kafka"]["group_id"], one.inputs[0]) == {0: -1001}
    assert read_all(one.kafka, one.dead_letters) == []
