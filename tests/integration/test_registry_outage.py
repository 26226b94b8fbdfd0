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


def test_known_schemas_go_on_and_an_unknown_one_waits_for_the_registry_to_come_back(lane, registry, tmp_path):
    one = lane(partitions=1, registry_url=registry.url)
    (topic,) = one.inputs
    events = events_of(one.event_stream(), 2_000, partitions=1)
    settings = one.settings(
        schemas={"auto_register": True},
        pipeline={"batch": {"max_records": 1}},  # so that what waits is the stranger alone, and what is behind it
        delivery={"commit_interval_s": 1.0},
    )
    write(one.kafka, topic, events[:500])

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(500)
        registry.kill()
        (_, key, value) = events[0]
        unheard_of = (0, key, value[:1] + UNHEARD_OF + value[5:])
        write(one.kafka, topic, [*events[500:1_500], unheard_of, *events[1_500:]])
        worker.wait_until(lambda: worker.said("backing_off"), "the registry to be asked for the unknown schema")
        worker.wait_for_records(1_500)  # what was delivered before the stranger came is committed meanwhile
        assert worker.metrics().records() == worker.metrics().records("predicted") == 1_500
        assert worker.get("/livez") == (200, "ok")

        registry.start()
        worker.wait_for_records(2_001)
        assert worker.stop() == 0

    (letter,) = read_all(one.kafka, one.dead_letters)
    assert dict(letter.headers())["inference.reason"] == b"unknown_schema"
    assert len(read_all(one.kafka, one.output)) == 2_000
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
