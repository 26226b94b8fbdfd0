"""On the real broker, with real workers: a worse canary is rolled back by itself, a good one becomes stable."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from rig import answers
from test_hot_swap import settings_of, until_serving
from worker_process import ROOT, WAIT_S, clean_environment, running_worker, wait_until

from app.models.model_store import open_store
from app.wiring.stores import model_desk

RATE = 2_000
ENDS_WITHIN_S = 120.0
GUARDS = {"latency_ratio": 5.0}  # this machine is busy with other things; what is slow here is slower than that


@contextmanager
def watching(lane, folder, *urls):
    """`models rollout watch`; gives what it said so far, as dicts. It must end well when told to."""
    log = folder / "watch.jsonl"
    command = [sys.executable, "-m", "app", "models", "rollout", "watch", "churn", "--store", str(lane.store), "--json"]
    command += ["--interval", "0.3", *(part for url in urls for part in ("--metrics-url", url))]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=clean_environment())
    try:
        yield lambda: [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def watched(lane, folder, worse, steps, *, workers=1):
    """(the page that ends the canary, what the watcher said) of a canary of version 2."""
    desk = model_desk(str(lane.store), None)
    desk.guard("churn", GUARDS, "for this test")
    settings = settings_of(lane)
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                running_worker(
                    settings | {"worker": {"instance_id": f"{settings['worker']['instance_id']}-{number}"}},
                    folder,
                    module="tests.integration.worse_canary",
                    WORSE=worse,
                )
            )
            for number in range(workers)
        ]
        for worker in running:
            worker.wait_until_assigned()
        started = desk.start_canary("churn", "2", steps, "to be watched").after
        for worker in running:
            until_serving(worker, started.revision)
        background = stack.enter_context(ThreadPoolExecutor(1))
        done = []
        sending = background.submit(lambda: [lane.produce(RATE, rate=RATE) for _ in range(60) if not done])
        try:
            urls = [f"http://127.0.0.1:{worker.port}/metrics" for worker in running]
            said = stack.enter_context(watching(lane, folder, *urls))
            page = wait_until(lambda: ended(lane), lambda: f"the canary to end; last: {said()[-1:]}", ENDS_WITHIN_S)
            for worker in running:
                until_serving(worker, page.revision)
        finally:
            done.append(True)
            sending.result()
        lines = until_told(said, page)
        for worker in running:
            worker.terminate()
        assert [worker.wait() for worker in running] == [0] * workers
    return page, lines


def until_told(said, page):
    """What was said once the change to this page was: it is in force somewhat earlier."""

    def told():
        lines = said()
        return lines if any(line["changed"] and line["page"]["revision"] == page.revision for line in lines) else None

    return wait_until(told, lambda: f"the watcher to say so; last: {said()[-1:]}")


def ended(lane):
    page = open_store(str(lane.store), lane.store).rollout("churn")
    return page if page.strategy == "stable" else None


@pytest.mark.parametrize("worse", ["errors", "latency", "disagreement"])
def test_a_worse_canary_is_rolled_back_by_itself(changing_lane, tmp_path, worse):
    lane = changing_lane()
    page, lines = watched(lane, tmp_path, worse, [(25, 600), (100, 600)])
    assert (page.stable, page.previous) == ("1", None)
    line = page.history[-1]
    assert line.automatic
    assert line.who.startswith("rollout watch (")
    assert line.why.startswith(f"{worse}: ")
    (told,) = [line for line in lines if line["changed"]]
    assert (told["verdict"], told["reason"]) == ("roll_back", line.why)
    assert told["versions"]["2"]["rows"] > 0


def test_a_good_canary_becomes_stable_step_by_step(changing_lane, tmp_path):
    lane = changing_lane()
    page, lines = watched(lane, tmp_path, "nothing", [(25, 1), (50, 1), (100, 1)], workers=2)
    assert (page.stable, page.previous) == ("2", "1")
    assert [line.strategy for line in page.history[-4:]] == ["canary", "canary", "canary", "stable"]
    assert [line.automatic for line in page.history[-4:]] == [False, True, True, True]
    assert [line["verdict"] for line in lines if line["changed"]] == ["promote"] * 3
    found = {(answer["model_version"], answer["answered_by"]) for _, answer in answers(lane)}
    assert found >= {("1", "stable"), ("2", "canary"), ("2", "stable")}
