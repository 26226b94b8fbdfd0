"""A model that fails: the rows it fails on are dead-lettered, unless its golden rows say that it is at fault itself."""

from rig import answers, committed, events_of, read_all, write
from worker_process import running_worker

from loadgen.wire import SINGLE_OBJECT

ODD = "tests.integration.odd_worker"


def ages(values):
    """Age of each event: the int behind the customer id."""
    found = []
    for value in values:
        datum = value[SINGLE_OBJECT.header_size :]
        number = datum[1 + datum[0] // 2 :]
        raw = number[0] if number[0] < 128 else (number[0] & 127) | number[1] << 7
        found.append(raw // 2)
    return found


def letters_by_offset(lane):
    """(partition, offset) of the event → its dead letter's headers."""
    found = {}
    for message in read_all(lane.kafka, lane.dead_letters):
        headers = {name: value.decode() for name, value in message.headers()}
        at = int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])
        assert at not in found
        found[at] = headers
    return found


def test_rows_that_a_model_fails_on_are_found_by_bisection_and_dead_lettered_alone(lane, tmp_path):
    one = lane(partitions=1)
    events = events_of(one.event_stream(), 5_000, partitions=1)
    allergic = {(0, offset) for offset, age in enumerate(ages([value for _, _, value in events])) if age == 77}
    assert 10 < len(allergic) < 500
    write(one.kafka, one.inputs[0], events)

    with running_worker(one.settings(), tmp_path, module=ODD, ODD_MODEL="fail:77:77") as worker:
        worker.wait_for_records(5_000)
        assert worker.stop() == 0

    letters = letters_by_offset(one)
    assert letters.keys() == allergic
    assert {(h["inference.reason"], h["__connect.errors.stage"]) for h in letters.values()} == {
        ("model_error", "model")
    }
    answered = {(a["source_partition"], a["source_offset"]) for _, a in answers(one)}
    assert answered == {(0, offset) for offset in range(5_000)} - allergic


def test_rows_answered_with_nan_are_dead_lettered_alone(lane, tmp_path):
    one = lane()
    one.produce(3_000)
    with running_worker(one.settings(), tmp_path, module=ODD, ODD_MODEL="nan:77:78") as worker:
        worker.wait_for_records(3_000)
        rejected = worker.metrics().of("inference_dead_letters_total", "stage", "reason")
        assert worker.stop() == 0
    assert rejected.keys() == {("output", "bad_output")}
    letters = letters_by_offset(one)
    assert len(letters) == rejected["output", "bad_output"]
    assert len(answers(one)) + len(letters) == 3_000


def test_a_model_that_breaks_dead_letters_nothing_and_stops_the_worker_by_name(lane, tmp_path):
    one = lane(partitions=1)
    one.produce(5_000)
    settings = one.settings(pipeline={"batch": {"max_records": 100}})

    with running_worker(settings, tmp_path, module=ODD, ODD_MODEL="break:20") as worker:
        assert worker.wait() == 1
        assert "ModelFailed" in worker.log
        assert "its golden rows fail too" in worker.log
    assert read_all(one.kafka, one.dead_letters) == []
    answered = len(answers(one))
    assert answered == max(0, committed(one.kafka, settings["kafka"]["group_id"], one.inputs[0])[0]) < 5_000

    with running_worker(settings, tmp_path) as worker:
        verdict = one.verified()
        assert worker.stop() == 0
    assert verdict.predictions == 5_000


def test_bad_outputs_stop_the_worker_if_they_are_to(lane, tmp_path):
    one = lane()
    one.produce(3_000)
    settings = one.settings(pipeline={"bad_output": "stop"})
    with running_worker(settings, tmp_path, module=ODD, ODD_MODEL="nan:77:78") as worker:
        assert worker.wait() == 1
        assert "bad_output is stop" in worker.log
    assert read_all(one.kafka, one.dead_letters) == []


def test_a_model_slower_than_the_poll_interval_costs_no_rebalance(lane, tmp_path):
    one = lane(partitions=2)
    settings = one.settings(
        kafka={"session_timeout_s": 3, "client": {"max.poll.interval.ms": 3000}},
        delivery={"transaction_timeout_s": 5},
        pipeline={"batch": {"max_records": 200}},
    )
    one.produce(1_000)
    with running_worker(settings, tmp_path, module=ODD, ODD_MODEL="sleep:5") as worker:
        verdict = one.verified()
        rebalances = worker.metrics().of("inference_rebalances_total", "kind")
        assert worker.stop() == 0
    assert verdict.predictions == 1_000
    assert rebalances.keys() == {("assigned",)}


def test_a_flood_of_dead_letters_stops_the_worker_and_a_restart_gets_no_new_quota(lane, tmp_path):
    one = lane(partitions=2)
    settings = one.settings(pipeline={"dead_letter_limit": {"records": 100, "window_s": 600}})
    good = events_of(one.event_stream(), 1_000, partitions=2)
    write(one.kafka, one.inputs[0], [*good, *[(n % 2, None, b"no datum") for n in range(1_000)]])

    for _ in range(3):
        with running_worker(settings, tmp_path) as worker:
            assert worker.wait() == 1
            assert "DeadLetterFlood" in worker.log
    letters = letters_by_offset(one)
    assert len(letters) <= 100
    assert len(answers(one)) <= 1_000

    settings["pipelines"][0]["dead_letter_limit"] = {"records": 5_000, "window_s": 600}
    with running_worker(settings, tmp_path) as worker:
        worker.wait_until(lambda: len(read_all(one.kafka, one.dead_letters)) >= 1_000, "the rest to be dead-lettered")
        assert worker.stop() == 0
    assert len(letters_by_offset(one)) == len(answers(one)) == 1_000
