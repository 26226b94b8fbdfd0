"""Workers come and go faster than the group settles."""

import contextlib

import pytest

STORM = (  # slot, and what happens to it
    ("b", "start"), ("c", "start"), ("a", "kill"), ("b", "stop"), ("a", "start"), ("b", "start"),
    ("c", "kill"), ("a", "stop"), ("c", "start"), ("a", "start"),
)  # fmt: skip


@pytest.mark.parametrize("protocol", ["consumer", pytest.param("classic", marks=pytest.mark.chaos)])
def test_a_rebalance_storm(flow, protocol):
    stream = flow(protocol=protocol)

    with contextlib.ExitStack() as running:
        workers = {"a": running.enter_context(stream.worker("a"))}
        stream.flows()
        for slot, event in STORM:
            if event == "start":
                workers[slot] = running.enter_context(stream.worker(slot))
                workers[slot].wait_until(lambda slot=slot: workers[slot].said("started"), "its start")
            elif event == "stop":
                workers.pop(slot).terminate()
            else:
                workers.pop(slot).kill()
        stream.flows()
        stream.judged()
        assert [worker.stop() for worker in workers.values()] == [0] * len(workers)
