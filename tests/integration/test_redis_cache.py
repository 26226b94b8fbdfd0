"""The shared result cache on a real Redis: two workers share, and nothing that befalls Redis befalls an answer."""

import threading
import time

import numpy as np
import pytest
from rig import answers, committed, ends, events_of, read_all, write
from worker_process import running_worker

from app.clock import SystemClock
from app.models.cache import CachedModel, CachePolicy, Sharing
from app.models.redis_cache import RedisPolicy, RedisStore
from app.specs import InputSpec, TensorFeature, ValueOutput
from deploy.local.redis_server import RedisServer

BUDGET_S = 0.1  # this machine may be busy with everything else
# What a thread that is ready to go on may wait for its turn on a machine that runs everything else beside this. A
# suspended Redis answers never, and each batch that waited for it would be above.
LATE_S = 2.0
WAIT_S = 120.0
ROWS = 256
WORD = "c4n4ry-redis"


class Doubling:
    """A model whose answer tells the row; `asked` counts the rows it was asked about."""

    name, version, digest = "doubling", "1", "0123456789abcdef"
    event_schema, prediction_schema = "Event", "Prediction"
    inputs = (InputSpec(name="X", features=(TensorFeature(field="x", length=8),)),)
    outputs = (ValueOutput(name="v"),)

    def __init__(self):
        self.asked = 0

    def run(self, tensors):
        self.asked += len(tensors["X"])
        return {"v": tensors["X"].sum(axis=1) * 2}

    def check(self):
        pass


def batch(first, rows=ROWS):
    """Rows that nobody else has: those of `first`, counted from it."""
    return {"X": np.repeat(np.arange(first, first + rows, dtype=np.float32), 8).reshape(rows, 8)}


class Worker:
    """A cached model with a store of its own; `told` has its look-ups. Nothing is kept in the process itself."""

    def __init__(self, url, *, username=None, password=None, max_bytes=0, version="1", ttl_s=300.0):
        self.told, self.model, self.longest_s, self.notices = [], Doubling(), 0.0, []
        where = RedisPolicy(url, username=username, password=password, budget_s=BUDGET_S, ttl_s=ttl_s)
        self.store = RedisStore(where, SystemClock(), self.notices.append)
        policy, sharing = CachePolicy(max_bytes), Sharing(self.store, {"model.onnx": f"sha256:{version}"})
        self.cached = CachedModel(self.model, policy, SystemClock(), self.told.append, sharing)
        self.answers(batch(-ROWS))  # shows what answers look like

    def answers(self, tensors):
        """Ask, and check every answer; gives back the fact about the look-up."""
        started = time.monotonic()
        found = self.cached.run(tensors)["v"]
        self.longest_s = max(self.longest_s, time.monotonic() - started)
        assert found.tolist() == (tensors["X"][:, 0] * 16).tolist()
        return self.told[-1]

    def until(self, tensors, reached):
        """Ask until the fact about a look-up is as wished."""
        deadline = time.monotonic() + WAIT_S
        while not reached(fact := self.answers(tensors)):
            assert time.monotonic() < deadline, (fact, self.notices)
            threading.Event().wait(0.01)
        return fact


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def worker(redis):
    made = []

    def make(**options):
        made.append(Worker(redis.url, **options))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def test_what_one_worker_scored_another_does_not(worker):
    one, other = worker(), worker()
    number, fact, deadline = 0, None, time.monotonic() + WAIT_S
    while fact is None or fact.errors or fact.skipped:  # a busy machine: with rows that neither has asked about
        number += 1
        one.until(batch(number * ROWS), lambda fact: fact.hits == ROWS)
        other.until(batch(10**6 + number * ROWS), lambda fact: not fact.skipped and not fact.errors)
        asked = other.model.asked
        fact = other.answers(batch(number * ROWS))
        assert time.monotonic() < deadline, fact
    assert fact.hits == ROWS
    assert other.model.asked == asked > 0


def test_versions_do_not_share(worker):
    one, other = worker(version="1"), worker(version="2")
    one.until(batch(0), lambda fact: fact.hits == ROWS)
    assert other.until(batch(0), lambda fact: not fact.skipped and not fact.errors).misses == ROWS


def test_redis_is_told_when_to_forget_each_answer(worker):
    one = worker(ttl_s=1000.0)
    one.until(batch(0), lambda fact: fact.hits == ROWS)
    client = one.store._writes._client
    left_ms = [client.pttl(key) for key in client.keys("inference:*")]
    assert len(left_ms) >= ROWS
    assert 900_000 < min(left_ms) <= max(left_ms) <= 1_000_000


def test_what_others_wrote_under_our_keys_is_replaced(redis, worker):
    one = worker()
    one.until(batch(0), lambda fact: fact.hits == ROWS)
    client = one.store._writes._client
    for number, key in enumerate(client.keys("inference:*")):
        client.delete(key)
        if number % 3 == 0:
            client.set(key, b"garbage")
        elif number % 3 == 1:
            client.rpush(key, b"a", b"list")
        else:
            client.hset(key, "a", "hash")
    fact = one.until(batch(0), lambda fact: not fact.skipped)
    assert fact.hits == 0
    one.until(batch(0), lambda fact: fact.hits == ROWS)


def test_a_full_redis_is_no_failure(tmp_path):
    with RedisServer(tmp_path / "small", max_bytes=2_000_000) as redis:
        one = Worker(redis.url)
        one.until(batch(0), lambda fact: fact.hits == ROWS)
        for first in range(0, 40_000, ROWS):
            one.answers(batch(first))
        one.until(batch(0), lambda fact: fact.hits == ROWS)
        one.store.close()


@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_redis_that_does_not_let_us_in_is_not_asked(tmp_path, given):
    with RedisServer(tmp_path / "locked", password=WORD) as redis:
        one = Worker(redis.url, password=given)
        fact = one.until(batch(0), lambda _fact: one.notices)
        assert fact.hits == 0
        assert "Authentication" in one.notices[0]
        friend = Worker(redis.url, password=WORD)
        friend.until(batch(0), lambda fact: fact.hits == ROWS)
        one.store.close()
        friend.store.close()


def test_the_permissions_that_the_page_names_are_enough(redis, worker):
    admin = worker().store._writes._client
    rules = ("on", f">{WORD}", "~inference:*", "-@all", "+mget", "+eval", "+set", "+ping")
    admin.execute_command("ACL", "SETUSER", "cache", *rules)
    worker(username="cache", password=WORD).until(batch(0), lambda fact: fact.hits == ROWS)


def loaded(worker, done):
    """Ask for the same few batches again and again until told to stop."""
    number = 0
    while not done.is_set():
        worker.answers(batch(number % 5 * ROWS))
        number += 1


@pytest.fixture
def two_under_load(worker):
    """Two workers that are asked all the time, each on a thread of its own; their failures fail the test."""
    workers, done, failed = (worker(), worker()), threading.Event(), []

    def run(one):
        try:
            loaded(one, done)
        except BaseException as exc:
            failed.append(exc)
            raise

    longest_s = 0.0

    def look_at_the_machine():
        """How long a thread that only sleeps is kept from going on: nothing that Redis or we could help."""
        nonlocal longest_s
        last_s = time.monotonic()
        while not done.wait(0.01):
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s

    threads = [threading.Thread(target=run, args=(one,)) for one in workers]
    threads.append(threading.Thread(target=look_at_the_machine))
    for thread in threads:
        thread.start()
    yield workers
    done.set()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert max(one.longest_s for one in workers) < BUDGET_S + LATE_S + longest_s


def both(workers, reached):
    """Wait until the last look-up of each worker is as wished."""
    deadline = time.monotonic() + WAIT_S
    while not all(reached(one.told[-1]) for one in workers):
        assert time.monotonic() < deadline, [(one.told[-1], one.notices) for one in workers]
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    ("away", "back"),
    [(RedisServer.kill, RedisServer.start), (RedisServer.stop, RedisServer.start), ("suspend", "resume")],
    ids=["killed", "stopped", "suspended"],
)
def test_a_redis_that_goes_and_comes_back_in_mid_load_costs_no_answer_and_no_time(redis, two_under_load, away, back):
    def do(what):
        getattr(redis.process, what)() if isinstance(what, str) else what(redis)

    for _ in range(2):
        both(two_under_load, lambda fact: fact.hits == ROWS)
        do(away)
        both(two_under_load, lambda fact: fact.skipped == ROWS)
        do(back)
        both(two_under_load, lambda fact: fact.hits == ROWS)
    for one in two_under_load:
        assert sum(fact.errors > 0 for fact in one.told) < len(one.told) / 2


def test_a_worker_loses_nothing_and_answers_the_same_while_its_redis_is_killed_and_suspended(lane, redis, tmp_path):
    """The same events over and over; what a row is answered does not depend on who answered it."""
    one = lane(partitions=2)
    (topic,) = one.inputs
    events, rounds = events_of(one.event_stream(), 2_000, partitions=2), 0
    cache = {"enabled": True, "max_bytes": 0, "redis_url": redis.url, "budget_s": BUDGET_S}
    settings = one.settings(models={"cache": cache})

    with running_worker(settings, tmp_path) as worker:

        def looked_up(result):
            return worker.metrics().total("inference_cache_lookups_total", result=result)

        def until(result):
            """Send all events again, until the cache has had another such result."""
            nonlocal rounds
            before, deadline = looked_up(result), time.monotonic() + WAIT_S
            while looked_up(result) <= before:
                assert time.monotonic() < deadline, result
                write(one.kafka, topic, events)
                rounds += 1
                worker.wait_for_records(rounds * len(events))

        until("hit")
        redis.kill()
        until("skipped")
        redis.start()
        until("hit")
        redis.process.suspend()
        until("skipped")
        redis.process.resume()
        until("hit")
        assert worker.get("/readyz") == (200, "ok")
        assert worker.stop() == 0

    assert read_all(one.kafka, one.dead_letters) == []
    assert committed(one.kafka, settings["kafka"]["group_id"], topic) == ends(one.kafka, topic)
    found = answers(one)
    assert len(found) == rounds * len(events)
    by_event = {}
    for _, prediction in found:  # each round wrote the same events to a partition in the same order
        event = prediction["source_partition"], prediction["source_offset"] % (len(events) // 2)
        by_event.setdefault(event, []).append(prediction["probability"])
    assert {len(given) for given in by_event.values()} == {rounds}
    assert max(max(given) - min(given) for given in by_event.values()) < 1e-5
