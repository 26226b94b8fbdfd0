"""The live page of a real worker on a real broker, in a real browser, and the same in a terminal."""

import json
import re
import subprocess
import sys

from browsing import WAIT_MS, opened_page
from made_pages import canary_page, put, stable_page
from playwright.sync_api import expect
from test_hot_swap import settings_of, until_serving
from worker_process import running_worker

LIVE = 60


def tile(page, name):
    return page.locator("#tiles > div").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")


def top(worker):
    """What `top --once --json` prints."""
    command = [sys.executable, "-m", "app", "top", "--once", "--json", "--url", f"http://127.0.0.1:{worker.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIVE, check=True)
    return json.loads(done.stdout)


def letters_of(page):
    """(partition, offset) of the dead letters listed."""
    found = page.locator("#letters .where").all_inner_texts()
    return [tuple(map(int, re.search(r"\[(\d+)\] @ (\d+)", text).groups())) for text in found]


def test_page_and_terminal_agree_with_metrics_and_topics(changing_lane, browser, tmp_path):
    lane = changing_lane()
    put(lane.store, stable_page("1"))

    with running_worker(settings_of(lane), tmp_path) as worker:
        worker.wait_until_assigned()
        put(lane.store, canary_page("1", "2", 25, 2, salt="spring"))
        until_serving(worker, 2)
        with opened_page(browser, f"http://127.0.0.1:{worker.port}/") as page:
            expect(page.get_by_role("status")).to_have_text("Live")
            lane.produce(5_000, poison=0.01)
            verdict = lane.verified()
            worker.wait_for_records(5_000)

            expect(tile(page, "Throughput").last).to_have_text("4,950 predicted", timeout=WAIT_MS)
            expect(tile(page, "Lag, records").first).to_have_text("0", timeout=WAIT_MS)
            expect(tile(page, "Dead letters").last).to_contain_text("50 in all")
            versions = page.get_by_role("region", name="Versions of churn").get_by_role("row")
            expect(versions).to_have_count(3)
            expect(versions.nth(2)).to_contain_text("canary")
            listed = letters_of(page)
            assert len(listed) == 20
            assert page.errors == []

            snapshot = top(worker)
            worker.terminate()
            expect(page.get_by_role("status")).to_have_text(re.compile("The worker has ended|cannot be reached"))
        assert worker.wait() == 0

    assert verdict.predictions == snapshot["throughput"]["total"]["predicted"] == 4_950
    reasons = {}
    for one in snapshot["dead_letters"]["reasons"]:
        reasons[one["reason"]] = reasons.get(one["reason"], 0) + one["count"]
    assert reasons == verdict.dead_letters
    told = {(one["partition"], one["offset"]) for one in snapshot["dead_letters"]["last"]}
    assert told == set(listed)
    assert snapshot["lag"]["records"] == 0
    assert snapshot["delivery"]["transactions"]["committed"] >= 1
    answered = {one["part"]: one for one in snapshot["pipelines"][0]["versions"]}
    assert answered.keys() == {"stable", "canary"}


def test_nobody_who_looked_is_missed_and_nobody_who_looks_slows_the_drain(lane, browser, tmp_path):
    one = lane()
    settings = one.settings()
    settings["worker"]["processes"] = 2

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_ready()
        one.produce(2_000, poison=0.01)
        worker.wait_for_records(2_000)
        with opened_page(browser, f"http://127.0.0.1:{worker.port}/") as page:
            rows = page.get_by_role("region", name="Processes").last.get_by_role("row")
            expect(rows).to_have_count(3, timeout=WAIT_MS)
            expect(rows.nth(1)).to_contain_text("at work")
            expect(rows.nth(2)).to_contain_text("at work")
            expect(tile(page, "Throughput").last).to_have_text("1,980 predicted", timeout=WAIT_MS)
            expect(page.locator("#letters li")).to_have_count(20, timeout=WAIT_MS)
            assert page.errors == []
            assert worker.stop() == 0
