"""A shadow on the real broker: the primary answers exactly as without it, whatever the candidate does to itself."""

import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import fastavro
import pytest
from made_pages import put, shadow_page, stable_page
from rig import SCHEMAS, answers, read_all
from test_hot_swap import settings_of, until_serving
from worker_process import running_worker, wait_until

from loadgen.wire import SINGLE_OBJECT

ODD = "tests.integration.odd_shadow"
EVENTS, RATE = 1_500, 750
ROWS = "inference_shadow_rows_total"
LATENCY = "inference_end_to_end_latency_seconds_bucket"
ROUNDS, MOST_ROUNDS = 2, 8  # the latter where the machine is busy
# The bound on what a shadow may cost: 99 % of the records are finished, in the best round beside it, no later than in
# the worst round without it, which is the noise of this sitting; or, where there was none, at most so much later than
# in the best. The faults of the shadow come in each round. The histogram's buckets are up to a factor of 2.5 apart.
LATER_S, TIMES = 0.025, 2.5
MIB = 2**20


def comparisons(lane):
    """(message, comparison as a dict) of everything in the shadow topic."""
    schema = fastavro.schema.load_schema(SCHEMAS / "shadow_comparison.avsc")
    return [
        (message, fastavro.schemaless_reader(BytesIO(message.value()[SINGLE_OBJECT.header_size :]), schema, None))
        for message in read_all(lane.kafka, lane.shadow_topic)
    ]


@pytest.fixture
def shadowed_lane(changing_lane, topics):
    """A churn lane with a shadow topic."""
    lane = changing_lane()
    object.__setattr__(lane, "shadow_topic", topics("churn.shadow", 3))
    return lane


def settings_for(lane, **pipeline):
    return settings_of(lane, pipeline={"shadow_topic": lane.shadow_topic, **pipeline})


def results(worker):
    """Result → rows so far."""
    return {key[0]: int(count) for key, count in worker.metrics().of(ROWS, "result").items()}


def errors(worker):
    return {key[0] for key in worker.metrics().of("inference_shadow_errors_total", "error")}


def until_counted(worker, rows):
    worker.wait_until(lambda: sum(results(worker).values()) == rows, lambda: f"{rows} rows, now {results(worker)}")


def until_told(lane, counted):
    """Comparisons are counted when they are queued; a shadow that ends does not wait for its queue."""
    told = sum(count for result, count in counted.items() if result != "dropped")
    wait_until(lambda: len(comparisons(lane)) == told, f"{told} comparisons")


def shadow_pids(worker):
    """The shadow processes of this worker."""
    tasks = Path(f"/proc/{worker.pid}/task").iterdir()
    pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return {int(pid) for pid in pids}


def runs(pid):
    """Whether there is such a process, and it is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def buckets(worker):
    return {float(le[0]): count for le, count in worker.metrics().of(LATENCY, "le").items()}


def quantile(before, after, share):
    """Upper bound of the bucket that this share of the records in between lies in, or below."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    wanted = counts[float("inf")] * share
    return next(bound for bound, count in counts.items() if count >= wanted)


def load(lane, worker, until):
    """Events at a steady rate, until so many are finished; the latency of 99 % of them."""
    before = buckets(worker)
    lane.produce(EVENTS, rate=RATE)
    worker.wait_for_records(until)
    return quantile(before, buckets(worker), 0.99)


def test_a_good_shadow_is_compared_row_by_row_and_the_answers_stay_stables(shadowed_lane, tmp_path):
    lane = shadowed_lane
    put(lane.store, shadow_page("1", "2", percent=50))
    with running_worker(settings_for(lane), tmp_path) as worker:
        worker.wait_until_assigned()
        worker.wait_until(lambda: worker.said("shadow_ready"), "the shadow to be ready")
        page = shadow_page("1", "2", percent=50)
        for turn in range(MOST_ROUNDS):
            lane.produce(2_000, rate=500, poison=0.01, seed=turn)
            worker.wait_for_records(2_000 * (turn + 1))
            keys = [message.key() for message, _ in answers(lane)]
            until_counted(worker, int(page.shadowed(keys).sum()))
            if results(worker).get("agreed", 0) > 500:  # on a busy machine most of a round may be dropped
                break
        by_key = {message.key(): answer for message, answer in answers(lane)}
        found, unwanted = results(worker), errors(worker)
        differences = worker.metrics().total("inference_shadow_difference_count")
        until_told(lane, found)
        assert worker.stop() == 0
    lane.verified()
    told = comparisons(lane)
    assert unwanted == set()
    assert found.keys() <= {"agreed", "disagreed", "dropped"}
    assert found["agreed"] > 500
    assert Counter(comparison["result"] for _, comparison in told) == {
        result: count for result, count in found.items() if result != "dropped"
    }
    assert differences == len(told)
    places = {(answer["source_topic"], answer["source_partition"], answer["source_offset"]): answer
              for _, answer in answers(lane)}  # fmt: skip
    for message, comparison in told:
        answer = places[comparison["source_topic"], comparison["source_partition"], comparison["source_offset"]]
        assert message.key() == answer["customer_id"].encode()
        assert by_key[message.key()]["model_version"] == comparison["stable_version"] == "1"
        assert comparison["candidate_version"] == "2"
        assert comparison["stable_class"] == str(answer["prediction"])
        assert comparison["stable_numbers"][1] == pytest.approx(answer["probability"])
        same = comparison["stable_class"] == comparison["candidate_class"]
        assert comparison["result"] == ("agreed" if same else "disagreed")
        apart = abs(comparison["stable_numbers"][1] - comparison["candidate_numbers"][1])
        assert comparison["max_difference"] == pytest.approx(apart)


def alike(alone_s, beside_s):
    """Whether the best time beside a shadow could be one without: other tests take both cores now and then."""
    return min(beside_s) <= max(*alone_s, min(alone_s) + LATER_S, min(alone_s) * TIMES)


@pytest.mark.parametrize("how", ["raise", "fail", "hang", "nan", "memory", "crash", "gone"])
def test_a_shadow_at_fault_costs_the_primary_nothing(shadowed_lane, how, tmp_path, record_property):
    lane = shadowed_lane
    put(lane.store, stable_page("1"))
    settings = settings_for(lane, shadow_memory_bytes=384 * MIB)
    with running_worker(settings, tmp_path, module=ODD, ODD_SHADOW=how) as worker:
        worker.wait_until_assigned()
        load(lane, worker, EVENTS)  # the first batches of a worker are its slowest
        alone_s, beside_s = [], []
        for turn in range(MOST_ROUNDS):
            alone_s.append(load(lane, worker, (2 + 2 * turn) * EVENTS))
            ready, lost = len(worker.said("shadow_ready")), len(worker.said("shadow_lost"))
            put(lane.store, shadow_page("1", "2", 2 + 2 * turn))
            until_serving(worker, 2 + 2 * turn)
            if how != "gone":
                worker.wait_until(
                    lambda before=ready: len(worker.said("shadow_ready")) > before, "a shadow to be ready"
                )
            beside_s.append(load(lane, worker, (3 + 2 * turn) * EVENTS))
            until_counted(worker, EVENTS * (1 + turn))
            if how in {"fail", "nan"}:
                until_told(lane, results(worker))
            if how == "gone":  # its start alone can take longer than the load
                worker.wait_until(lambda before=lost: len(worker.said("shadow_lost")) > before, "a shadow to be lost")
            put(lane.store, stable_page("1", 3 + 2 * turn))
            until_serving(worker, 3 + 2 * turn)
            wait_until(lambda: not shadow_pids(worker), "the shadow to end with its page")
            rounds = turn + 1
            if rounds >= ROUNDS and alike(alone_s, beside_s):
                break
        found, named = results(worker), errors(worker)
        rebalances = worker.metrics().of("inference_rebalances_total", "kind").keys()
        assert worker.stop() == 0

    assert lane.verified(sample=300).inputs == (1 + 2 * rounds) * EVENTS
    assert {answer["model_version"] for _, answer in answers(lane)} == {"1"}
    assert rebalances == {("assigned",)}
    assert found.keys() <= {"failed", "dropped"}
    expected = {
        "raise": {"ShadowFailed"}, "hang": {"ShadowHung"}, "crash": {"ShadowCrashed"}, "gone": {"ShadowCrashed"},
        "fail": set(), "nan": set(),
    }  # fmt: skip
    if how in expected:
        assert named - {"ShadowGivenUp"} == expected[how]
    if how != "gone":
        assert found["failed"] > 0
    told = Counter(comparison["result"] for _, comparison in comparisons(lane))
    assert told.keys() <= {"failed"}
    if how in {"fail", "nan"}:
        assert told["failed"] == found["failed"]
    figures = f"{how}: 99 % within {alone_s} s alone, {beside_s} s beside it; {found}; {sorted(named)}"
    record_property("figures", figures)
    assert alike(alone_s, beside_s), figures


def test_a_shadow_ends_with_its_worker_even_if_both_can_do_nothing_about_it(shadowed_lane, tmp_path):
    lane = shadowed_lane
    put(lane.store, shadow_page("1", "2"))
    with running_worker(settings_for(lane), tmp_path, module=ODD, ODD_SHADOW="hang") as worker:
        worker.wait_until_assigned()
        worker.wait_until(lambda: worker.said("shadow_ready"), "the shadow to be ready")
        (pid,) = shadow_pids(worker)
        lane.produce(100)
        time.sleep(1)  # it hangs now, if it ever does: the test holds either way
        worker.kill()
        wait_until(lambda: not runs(pid), "the shadow to end", within_s=10)


def test_without_its_topic_a_shadow_is_refused_by_name_and_the_worker_goes_on(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, shadow_page("1", "2"))
    with running_worker(settings_of(lane), tmp_path, module=ODD, ODD_SHADOW="nothing") as worker:
        worker.wait_until_assigned()
        worker.wait_until(lambda: "ShadowGivenUp" in errors(worker), "the shadow to be given up")
        lane.produce(500)
        worker.wait_for_records(500)
        until_counted(worker, 500)
        assert results(worker) == {"dropped": 500}
        assert errors(worker) == {"BrokerRefused", "ShadowGivenUp"}
        assert f"shadow topic {lane.output}.shadow" in worker.said("shadow_lost")[0]["reason"]
        assert worker.stop() == 0
    lane.verified(sample=0)
