"""Several worker processes under a supervisor: one worker to its operator, one group to the broker."""

import os
import signal

import psutil
from worker_process import refused_start, running_worker, wait_until

EVENTS = 10_000
RESTARTS = "inference_process_restarts_total"


def settings_of(lane, **options):
    """Two processes; a dead one is missed after 3 s."""
    settings = lane.settings(kafka={"session_timeout_s": 3}, **options)
    settings["worker"]["processes"] = 2
    return settings


def pids(worker):
    """Slot → process, the newest of each."""
    return {told["slot"]: told["pid"] for told in worker.said("process_started")}


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_shared(worker):
    """Until both processes own partitions and all four are owned."""
    worker.wait_until(
        lambda: {told["slot"] for told in worker.said("partitions_assigned")} == {0, 1}, "partitions for both"
    )
    worker.wait_until(
        lambda: len(worker.metrics().of("inference_lag_records", "partition")) == 4, "all partitions to be shown"
    )


def test_two_processes_share_the_partitions_and_show_themselves_as_one(lane, tmp_path):
    one = lane()

    with running_worker(settings_of(one), tmp_path) as worker:
        worker.wait_until_ready()
        wait_until_shared(worker)
        one.produce(5_000, poison=0.01)
        verdict = one.verified()
        worker.wait_for_records(5_000)
        metrics = worker.metrics()
        children = pids(worker).values()
        assert worker.get("/livez") == (200, "ok")
        assert worker.stop() == 0
        assert not [pid for pid in children if lives(pid)]

    assert verdict.inputs == 5_000
    assert (metrics.records("predicted"), metrics.records("dead_lettered")) == (4_950, 50)
    assert metrics.total("inference_end_to_end_latency_seconds_count") == 5_000
    assert metrics.total("inference_rebalances_total", kind="assigned") >= 2
    assert metrics.of("inference_worker_processes", "state") == {("ready",): 2, ("not_ready",): 0, ("waiting",): 0}
    assert metrics.of(RESTARTS, "slot") == {("0",): 0, ("1",): 0}
    assert {told["slot"] for told in worker.said("drained")} == {0, 1}
    assert {told["status"] for told in worker.said("process_ended")} == {0}


def test_a_process_that_is_killed_comes_back_and_nothing_is_lost_doubled_or_uncounted(lane, tmp_path):
    busy = lane()

    with running_worker(settings_of(busy, pipeline={"batch": {"max_records": 1}}), tmp_path) as worker:
        worker.wait_until_ready()
        wait_until_shared(worker)
        busy.produce(EVENTS, poison=0.001)
        worker.wait_for_records(1_000)
        before = worker.metrics().records()
        killed = pids(worker)[1]
        os.kill(killed, signal.SIGKILL)
        shown = []

        def back():
            shown.append(worker.metrics().records())
            return len(worker.said("process_started")) == 3 and worker.get("/readyz")[0] == 200

        worker.wait_until(back, "the process to come back")
        verdict = busy.verified()
        metrics = worker.metrics()
        assert worker.stop() == 0

    assert (verdict.inputs, verdict.predictions) == (EVENTS, EVENTS - EVENTS // 1000)
    assert shown == sorted(shown)
    assert before <= shown[0]
    assert metrics.of(RESTARTS, "slot") == {("0",): 0, ("1",): 1}
    (ended,) = [told for told in worker.said("process_ended") if told["status"]]
    assert (ended["slot"], ended["pid"], ended["status"]) == (1, killed, -signal.SIGKILL)


def test_processes_whose_supervisor_is_killed_drain_and_end(lane, tmp_path):
    busy = lane()
    settings = settings_of(busy, pipeline={"batch": {"max_records": 1}})
    busy.produce(EVENTS)

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(1)
        children = pids(worker)
        worker.kill()
        wait_until(lambda: not [pid for pid in children.values() if lives(pid)], "the processes to end")
        assert {told["slot"] for told in worker.said("supervisor_gone")} == {0, 1}
        assert worker.said("drained")  # by whoever had begun

    settings["worker"]["processes"] = 1
    settings["pipelines"][0]["batch"] = {"max_records": 512}
    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        assert busy.verified().inputs == EVENTS
        assert worker.stop() == 0


def test_a_fatal_error_of_one_process_ends_all_with_1(lane, tmp_path):
    one = lane()
    settings = settings_of(one, pipeline={"dead_letter_limit": {"records": 50, "window_s": 60}})

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        one.produce(300, poison=1.0)
        assert worker.wait() == 1
        assert "DeadLetterFlood" in worker.log
        assert "Traceback" not in worker.log
        assert {told["status"] for told in worker.said("process_ended")} <= {0, 1}
        assert not worker.said("process_restarts")


def test_a_topic_that_is_missing_ends_all_with_2(lane, tmp_path):
    message, _ = refused_start(settings_of(lane().with_inputs("no.such.events")), tmp_path)
    assert "topic no.such.events does not exist" in " ".join(message.split())
    assert "process_restarts" not in message
