"""What a worker may be asked to read: old writers, several topics, several pipelines, null keys, tombstones."""

from collections import Counter

from rig import answers, events_of, read_all, write
from worker_process import running_worker


def test_old_and_new_writer_schemas_share_a_topic_in_both_wire_formats(lane, schema_registry, tmp_path):
    for name, url in (("single-object", None), ("confluent", schema_registry)):
        mixed = lane(registry_url=url)
        mixed.produce(4_000, writer_versions="all")
        settings = mixed.settings(schemas={"auto_register": True})

        with running_worker(settings, tmp_path / name) as worker:
            verdict = mixed.verified(min_accuracy=0.75)
            assert worker.stop() == 0

        assert verdict.predictions == 4_000
        assert verdict.score.checked >= 400


def test_several_input_topics_feed_one_pipeline_and_each_prediction_names_its_own(lane, tmp_path):
    several = lane(inputs=3)
    for seed, topic in enumerate(several.inputs):
        several.produce(1_000, topic=topic, seed=seed)

    with running_worker(several.settings(), tmp_path) as worker:
        verdict = several.verified()
        assert worker.stop() == 0

    assert (verdict.inputs, verdict.predictions) == (3_000, 3_000)
    assert Counter(answer["source_topic"] for _, answer in answers(several)) == dict.fromkeys(several.inputs, 1_000)


def test_two_pipelines_run_in_one_process_each_in_a_group_of_its_own(lane, tmp_path):
    churn, digits = lane("churn"), lane("digits", partitions=2)
    churn.produce(2_000, poison=0.01)
    digits.produce(1_000, poison=0.009)

    with running_worker(churn.settings(digits), tmp_path) as worker:
        assert churn.verified().predictions == 1_980
        assert digits.verified().predictions == 991
        worker.wait_for_records(3_000)
        metrics = worker.metrics()
        assert worker.stop() == 0

    assert metrics.of("inference_records_total", "pipeline", "outcome") == {
        ("churn", "predicted"): 1_980,
        ("churn", "dead_lettered"): 20,
        ("churn", "skipped"): 0,
        ("digits", "predicted"): 991,
        ("digits", "dead_lettered"): 9,
        ("digits", "skipped"): 0,
    }


def test_partitioning_by_key_gathers_each_key_and_null_keys_need_no_partition_of_their_own(lane, topics, tmp_path):
    """Four partitions in, two out: what has no key comes from partitions that the output topic lacks."""
    lanes = lane(partitions=4)
    narrow = lanes.with_outputs(topics("churn.predictions", 2), topics("churn.dead-letters", 2))
    keyed = events_of(narrow.event_stream(poison=0.02), 2_000)
    write(narrow.kafka, narrow.inputs[0], keyed)
    write(narrow.kafka, narrow.inputs[0], [(partition, None, value) for partition, _, value in keyed])

    with running_worker(narrow.settings(pipeline={"output_partitioning": "key"}), tmp_path) as worker:
        worker.wait_for_records(4_000)
        assert worker.stop() == 0

    predictions, dead_letters = read_all(narrow.kafka, narrow.output), read_all(narrow.kafka, narrow.dead_letters)
    assert (len(predictions), len(dead_letters)) == (3_920, 80)
    for outputs in (predictions, dead_letters):
        assert sum(output.key() is None for output in outputs) == len(outputs) / 2
        assert {output.partition() for output in outputs} == {0, 1}
        of_key = {(output.key(), output.partition()) for output in outputs if output.key() is not None}
        assert len(of_key) == len({key for key, _ in of_key})


def test_a_null_key_stays_null_and_keeps_its_partition(lane, tmp_path):
    one = lane()
    events = [(partition, None, value) for partition, _, value in events_of(one.event_stream(), 400)]
    write(one.kafka, one.inputs[0], events)

    with running_worker(one.settings(pipeline={"output_partitioning": "key"}), tmp_path) as worker:
        worker.wait_for_records(400)
        assert worker.stop() == 0

    for message, answer in answers(one):
        assert message.key() is None
        assert message.partition() == answer["source_partition"]


def test_tombstones_are_skipped_and_counted(lane, tmp_path):
    one = lane()
    one.produce(500)
    write(one.kafka, one.inputs[0], [(row % 4, b"cust-1", None) for row in range(40)])

    with running_worker(one.settings(), tmp_path) as worker:
        verdict = one.verified()
        worker.wait_for_records(540)
        metrics = worker.metrics()
        assert worker.stop() == 0

    assert (verdict.predictions, verdict.tombstones) == (500, 40)
    assert metrics.records("skipped") == 40


def test_an_event_too_large_for_the_dead_letter_topic_leaves_a_reference(lane, topics, tmp_path):
    """The headers add to it: what just fitted into the input topic fits no longer."""
    one = lane(partitions=1)
    roomy = one.with_inputs(topics("churn.events", 1, {"max.message.bytes": "2000000"}))
    junk = b"\x7f" * 1_100_000
    write(roomy.kafka, roomy.inputs[0], [(0, b"large", junk)], **{"message.max.bytes": 2_000_000})
    roomy.produce(100)

    with running_worker(roomy.settings(), tmp_path) as worker:
        worker.wait_for_records(101)
        assert worker.stop() == 0

    (letter,) = read_all(roomy.kafka, roomy.dead_letters)
    headers = dict(letter.headers())
    assert (letter.key(), letter.value()) == (b"large", None)
    assert headers["inference.reason"] == b"bad_frame"
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"0", b"0")
    assert len(read_all(roomy.kafka, roomy.output)) == 100
