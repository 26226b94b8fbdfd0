"""Workers of one group share the partitions, hand them over, and export only what they own."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event as StopEvent

import pytest
from rig import answers
from worker_process import owned, running_worker, wait_until

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


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


@PROTOCOLS
def test_one_worker_becomes_four_and_then_two_under_load(lane, protocol, tmp_path):
    """Replicas with identities nobody will see again, as a Deployment's pods have."""
    shared = lane(partitions=8)
    settings, _ = group_settings(shared, protocol)

    def replica(name):
        return running_worker({**settings, "worker": {"instance_id": f"{protocol}-{name}"}}, tmp_path / name)

    def all_owned_once(workers):
        shares = [owned(worker) for worker in workers]
        return sorted(partition for share in shares for partition in share) == list(range(8)) and all(shares)

    with ExitStack() as running, ThreadPoolExecutor(1) as background:
        load = StopEvent()
        sent = background.submit(produce_until, shared, load)
        try:
            workers = [running.enter_context(replica("first"))]
            wait_until(lambda: all_owned_once(workers), "one worker to own all")
            workers += [running.enter_context(replica(name)) for name in ("second", "third", "fourth")]
            wait_until(lambda: all_owned_once(workers), lambda: f"four to share, now {[owned(w) for w in workers]}")
            for worker in workers:
                worker.wait_for_records(100)
            leaving, workers = workers[:2], workers[2:]
            assert [worker.stop() for worker in leaving] == [0, 0]
            wait_until(lambda: all_owned_once(workers), lambda: f"two to share, now {[owned(w) for w in workers]}")
        finally:
            load.set()
        events = sent.result()
        verdict = shared.verified()
        lost = [worker.metrics().of("inference_rebalances_total", "kind").get(("lost",), 0) for worker in workers]
        assert [worker.stop() for worker in workers] == [0, 0]

    assert verdict.inputs == events
    assert lost == [0, 0]


def produce_until(lane, stopping, rate=1_000, poison=0.0):
    """A steady load until told to stop; returns how many events."""
    rounds = 0
    while not stopping.is_set():
        lane.produce(500, rate=rate, poison=poison, seed=rounds)
        rounds += 1
    return 500 * rounds


def test_two_static_members_of_one_identity_are_told_so_by_name(lane, tmp_path):
    shared = lane()
    settings = shared.settings(
        worker={"instance_id": "twin", "static_membership": True}, delivery={"mode": "at_least_once"}
    )
    with running_worker(settings, tmp_path / "a") as first:
        first.wait_until_assigned()
        with running_worker(settings, tmp_path / "b") as second:
            wait_until(lambda: not (first.lives and second.lives), "one of the twins to give up")
            loser, winner = (first, second) if not first.lives else (second, first)
            assert loser.wait() == 1
            assert "Fenced" in loser.log
            assert "worker.static_membership" in loser.log
            assert "worker.instance_id" in loser.log
            shared.produce(500)
            shared.verified(at_least_once=True)
            assert winner.stop() == 0


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
