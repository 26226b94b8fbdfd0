"""Workers of one group share the partitions, hand them over, and export only what they own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from rig import answers
from worker_process import running_worker, wait_until

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


def owned(worker):
    """Partitions whose lag it exports."""
    return {int(partition) for (partition,) in worker.metrics().of("inference_lag_records", "partition")}


def group_settings(lane, protocol):
    """Of two workers in one group: equal but for their identity."""
    first = lane.settings(kafka={"group_protocol": protocol}, pipeline={"batch": {"max_records": 64}})
    return first, {**first, "worker": {"instance_id": first["worker"]["instance_id"] + "-second"}}


@PROTOCOLS
def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_leaves(lane, protocol, tmp_path):
    shared = lane()
    settings = group_settings(shared, protocol)

    with running_worker(settings[0], tmp_path / "a") as first, ThreadPoolExecutor(1) as background:
        first.wait_until_assigned()
        sent = background.submit(shared.produce, 6_000, rate=1_000, poison=0.01)
        first.wait_until(lambda: owned(first) == {0, 1, 2, 3}, "the first worker to own all")
        with running_worker(settings[1], tmp_path / "b") as second:
            second.wait_until_ready()
            wait_until(
                lambda: len(owned(first)) == len(owned(second)) == 2 and not owned(first) & owned(second),
                lambda: f"an equal share, now {owned(first)} and {owned(second)}",
            )
            sent.result()
            more = background.submit(shared.produce, 4_000, rate=1_000, poison=0.01, seed=8)
            second.wait_for_records(200)
            by_second = second.metrics()
            assert second.stop() == 0
        first.wait_until(lambda: owned(first) == {0, 1, 2, 3}, "the first worker to take over")
        more.result()
        verdict = shared.verified()
        rebalances = first.metrics().of("inference_rebalances_total", "kind")
        assert first.stop() == 0

    assert (verdict.inputs, verdict.predictions) == (10_000, 9_900)
    assert by_second.records("predicted") >= 150
    assert rebalances[("revoked",)] >= 1
    assert ("lost",) not in rebalances


@PROTOCOLS
def test_a_worker_without_a_partition_is_ready_and_inherits(lane, protocol, tmp_path):
    narrow = lane(partitions=1)
    settings = group_settings(narrow, protocol)

    with running_worker(settings[0], tmp_path / "a") as owner:
        owner.wait_until_assigned()
        with running_worker(settings[1], tmp_path / "b") as spare:
            spare.wait_until_ready()
            narrow.produce(100)
            wait_until(lambda: sum(worker.metrics().records() for worker in (owner, spare)) == 100, "the first hundred")
            assert owner.stop() == 0
            narrow.produce(100)
            spare.wait_until(lambda: len(answers(narrow)) == 200, "the spare worker to inherit")
            assert spare.stop() == 0


def test_a_hand_over_under_a_backlog_loses_and_doubles_nothing(lane, tmp_path):
    """It comes while fetched records wait in the client, in the batcher and in an open transaction."""
    shared = lane()
    settings = group_settings(shared, "classic")
    shared.produce(60_000)

    with running_worker(settings[0], tmp_path / "a") as first:
        first.wait_until_assigned()
        with running_worker(settings[1], tmp_path / "b") as second:
            second.wait_until_assigned()
            shared.produce(30_000, seed=8)
            second.wait_for_records(500)
            assert second.stop() == 0
            verdict = shared.verified()
        assert first.stop() == 0

    assert verdict.predictions == 90_000
