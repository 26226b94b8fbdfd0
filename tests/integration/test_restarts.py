"""Workers end, kindly or not, and the next one goes on where the last one committed."""

import time

import pytest
from rig import answers, committed, ends, read_all
from worker_process import running_worker, wait_until

from deploy.local.kafka import Cluster

EVENTS = 25_000
MODES = pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])


def slow(lane, mode="exactly_once", **kafka):
    """Settings that make a worker busy for a while: batches far too small."""
    return lane.settings(
        delivery={"mode": mode},
        kafka={"session_timeout_s": 3, **kafka},
        pipeline={"batch": {"max_records": 1}},
    )


@MODES
def test_sigterm_under_load_drains_and_the_committed_offsets_are_exactly_what_was_answered(lane, mode, tmp_path):
    busy = lane()
    settings = slow(busy, mode)
    busy.produce(EVENTS, poison=0.001)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(1_000)
        assert worker.stop() == 0
        assert worker.said("drained")

    answered = {partition: [] for partition in range(4)}
    for _, answer in answers(busy):
        answered[answer["source_partition"]].append(answer["source_offset"])
    for letter in read_all(busy.kafka, busy.dead_letters):
        headers = dict(letter.headers())
        answered[int(headers["__connect.errors.partition"])].append(int(headers["__connect.errors.offset"]))
    stand = committed(busy.kafka, settings["kafka"]["group_id"], busy.inputs[0])
    assert {p: sorted(offsets) for p, offsets in answered.items()} == {
        p: list(range(max(0, offset))) for p, offset in stand.items()
    }
    assert 1_000 <= sum(map(len, answered.values())) < EVENTS

    settings["pipelines"][0]["batch"] = {"max_records": 512}
    with running_worker(settings, tmp_path) as worker:
        verdict = busy.verified()  # strictly: a clean end doubles nothing in either mode
        done = worker.metrics().records()
        assert worker.stop() == 0
    assert verdict.inputs == EVENTS
    assert done <= EVENTS - 1_000


def test_kill_9_under_load_loses_and_doubles_nothing(lane, tmp_path):
    busy = lane()
    settings = slow(busy, session_timeout_s=10)  # longer than it takes the next one to start
    busy.produce(EVENTS, poison=0.001)

    for _ in range(2):
        with running_worker(settings, tmp_path) as worker:
            worker.wait_for_records(1_000)
            worker.kill()
    settings["pipelines"][0]["batch"] = {"max_records": 512}
    with running_worker(settings, tmp_path) as worker:
        worker.wait_until(lambda: worker.said("started"), "the worker to start")
        # the dead one's membership has seconds to run, so the group cannot answer yet
        assert worker.get("/livez") == (200, "ok")
        assert worker.get("/readyz") == (503, "not in the consumer group yet: churn")
        worker.wait_until_ready()
        verdict = busy.verified()
        assert worker.stop() == 0

    assert (verdict.inputs, verdict.predictions) == (EVENTS, EVENTS - EVENTS // 1000)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_that_starts_at_the_latest_passes_over_nothing_from_then_on(lane, protocol, tmp_path):
    """Not even in partitions that were quiet until the first worker died."""
    one = lane(partitions=2)
    settings = one.settings(kafka={"start_from": "latest", "group_protocol": protocol, "session_timeout_s": 3})
    group, (topic,) = settings["kafka"]["group_id"], one.inputs
    one.produce(100)
    starts = ends(one.kafka, topic)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_assigned()
        wait_until(lambda: committed(one.kafka, group, topic) == starts, "the start to be committed")
        assert worker.metrics().of("inference_offset_resets_total", "reason") == {("no_committed_offset",): 2}
        worker.kill()
    one.produce(50, seed=8)
    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(50)
        assert worker.stop() == 0
    assert len(answers(one)) == 50


def test_the_delivery_mode_can_be_switched_between_two_workers_of_a_group(lane, tmp_path):
    one = lane()
    settings = slow(one)
    one.produce(EVENTS, poison=0.001)

    for mode in ("exactly_once", "at_least_once", "exactly_once"):
        settings["delivery"] = {"mode": mode}
        with running_worker(settings, tmp_path) as worker:
            worker.wait_for_records(1_000)
            assert worker.stop() == 0
    settings["pipelines"][0]["batch"] = {"max_records": 512}
    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        verdict = one.verified()  # strictly: each of them ended cleanly
        assert worker.stop() == 0
    assert verdict.inputs == EVENTS


def test_kill_9_under_load_loses_nothing_in_at_least_once(lane, tmp_path):
    busy = lane()
    settings = slow(busy, "at_least_once")
    busy.produce(EVENTS, poison=0.001)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(1_000)
        worker.kill()
    settings["pipelines"][0]["batch"] = {"max_records": 512}
    with running_worker(settings, tmp_path) as worker:
        verdict = busy.verified(at_least_once=True)
        assert worker.stop() == 0

    assert verdict.inputs == EVENTS


def test_at_least_once_commits_while_idle_without_waiting_for_more(lane, tmp_path):
    """The last batch of a burst falls within a commit interval, and nothing follows it."""
    one = lane()
    settings = one.settings(delivery={"mode": "at_least_once", "commit_interval_s": 1.5})
    one.produce(2_000)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(2_000)
        worker.wait_until(
            lambda: sum(committed(one.kafka, settings["kafka"]["group_id"], one.inputs[0]).values()) == 2_000,
            lambda: f"all offsets, now {committed(one.kafka, settings['kafka']['group_id'], one.inputs[0])}",
        )
        assert worker.stop() == 0


@pytest.fixture
def broker(strict_stack):
    """The process of `strict_lane`'s broker; it goes on after the test."""
    (broker,) = Cluster(strict_stack.directory / "kafka").brokers
    yield broker.process
    broker.process.resume()
    Cluster(strict_stack.directory / "kafka").wait_until_ready(timeout_s=60)


@pytest.mark.broker
def test_a_broker_that_is_silent_past_every_timeout_costs_time_and_nothing_else(strict_lane, broker, tmp_path):
    """The transaction times out, the group loses us, and the partitions come back."""
    settings = slow(strict_lane)
    settings["delivery"]["transaction_timeout_s"] = 2
    strict_lane.produce(10_000, poison=0.001)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(1_000)
        broker.suspend()
        worker.wait_until(lambda: worker.said("backing_off"), "the transaction to be given up")
        worker.wait_until(lambda: worker.said("partitions_lost"), "the session to run out")
        broker.resume()
        worker.wait_until(lambda: len(worker.said("partitions_assigned")) == 2, "the partitions to come back")
        verdict = strict_lane.verified()
        assert worker.stop() == 0

    assert verdict.inputs == 10_000


@pytest.mark.broker
def test_a_drain_that_cannot_finish_ends_with_3_at_its_deadline_and_a_second_sigterm_ends_it_at_once(
    strict_lane, broker, tmp_path
):
    """Two workers of different groups, and a broker that falls silent under load."""
    patient, hurried = slow(strict_lane), slow(strict_lane)
    patient["worker"]["drain_timeout_s"] = 60
    hurried["worker"]["drain_timeout_s"] = 2
    strict_lane.produce(4 * EVENTS)  # neither may be done before both are seen at work

    with running_worker(patient, tmp_path / "a") as one, running_worker(hurried, tmp_path / "b") as other:
        for worker in (one, other):
            worker.wait_for_records(100)
        broker.suspend()
        for worker in (one, other):
            worker.terminate()
            worker.wait_until(lambda worker=worker: worker.get("/readyz")[0] == 503, "the drain to begin")
        assert one.get("/livez") == (200, "ok")
        began = time.monotonic()
        assert one.stop() == 3
        assert time.monotonic() - began < 30  # of the 60 it would have had
        assert other.wait() == 3
        assert time.monotonic() - began < 30  # 2 and 5 of its own, and a busy machine
        assert other.said("drain_deadline_passed")


def test_two_workers_with_one_identity_do_no_harm_and_one_of_them_says_what_is_wrong(lane, tmp_path):
    busy = lane()
    settings = slow(busy)
    busy.produce(EVENTS)

    with running_worker(settings, tmp_path / "a") as one, running_worker(settings, tmp_path / "b") as other:
        wait_until(lambda: not (one.lives and other.lives), "one of them to give up")
        fenced, left = (one, other) if other.lives else (other, one)
        assert fenced.wait() == 1
        assert "Fenced: another producer uses transactional id" in fenced.log
        assert "worker.instance_id" in fenced.log
        assert "Traceback" not in fenced.log
        busy.verified()
        assert left.stop() == 0
