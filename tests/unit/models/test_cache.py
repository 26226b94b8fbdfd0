"""The result cache answers what the model answers: whatever was asked before, by whom, and whatever became of it."""

import numpy as np
import pytest
from cache_world import INPUTS, OUTPUTS, World, batch, formula, same
from fakes import FakeModel
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ModelFailed
from app.models.cache import ENTRY_OVERHEAD_BYTES, CachePolicy, LocalAnswers
from app.models.shared_answers import Unanswered
from app.specs import InputSpec, TensorFeature

# Few different rows, so that they come again; zeros of both signs, and N below zero is answered with NaN.
ROWS = st.tuples(st.sampled_from([0.0, -0.0, 1.5]), st.sampled_from([0.0, 0.25]), st.integers(-1, 2))
BATCHES = st.lists(ROWS, min_size=1, max_size=12)
SPOILT = st.sampled_from([
    None,
    Unanswered.FAILED,
    Unanswered.SKIPPED,
    lambda _value: None,
    lambda _value: b"",
    lambda _value: b"\x01garbage",
    lambda value: value and value[:-1],
    lambda value: value and b"\x02" + value[1:],
    lambda value: value and value[:1] + bytes(len(value) - 1),
    lambda value: value and value[:-9] + bytes([value[-9] ^ 1]) + value[-8:],
])  # fmt: skip


@st.composite
def histories(draw):
    """Batches: which worker, which version, what the store does instead of answering, how long after the last."""
    one = st.tuples(st.integers(0, 1), st.integers(1, 2), BATCHES, SPOILT, st.sampled_from([0.0, 40.0, 100.0]))
    return draw(st.lists(one, min_size=1, max_size=8))


@given(histories(), st.sampled_from([0, 300, 700, 67_108_864]), st.booleans())
def test_every_row_is_answered_as_by_its_version_of_the_model_alone(history, max_bytes, shared):
    world = World()
    policy = CachePolicy(max_bytes, ttl_s=90.0)
    workers = {
        (worker, version): world.cached(version, policy=policy, shared=shared)[0]
        for worker in (0, 1)
        for version in (1, 2)
    }
    for worker, version, rows, spoilt, passed_s in history:
        world.clock.advance(passed_s)
        world.store.next = [spoilt]
        tensors = batch(rows)
        assert same(workers[worker, version].run(tensors), formula(version)(tensors))
        told = world.told[-1]
        assert told.hits + told.misses + told.errors + told.skipped == len(rows)
        assert min(told.hits, told.misses, told.errors, told.skipped) >= 0


@given(st.lists(BATCHES, min_size=1, max_size=6))
def test_with_room_for_all_the_model_is_asked_about_a_finite_row_once(batches):
    cached, model = World().cached()
    for rows in batches:
        cached.run(batch(rows))
    # the first batch shows what answers look like, and is scored as it comes
    first, *later = model.seen
    asked = [row for seen in later for row in zip(map(bytes, seen["X"]), seen["N"][:, 0].tolist(), strict=True)]
    finite = [row for row in asked if row[1] >= 0]
    assert len(set(finite)) == len(finite)
    known = set(zip(map(bytes, first["X"]), first["N"][:, 0].tolist(), strict=True))
    assert not known & set(finite)


def test_a_row_that_comes_again_is_not_scored_again():
    world = World()
    cached, model = world.cached()
    cached.run(batch([(1, 0, 1), (2, 0, 1)]))
    cached.run(batch([(2, 0, 1), (1, 0, 1), (2, 0, 1)]))
    assert len(model.seen) == 1
    assert [(told.hits, told.misses) for told in world.told] == [(0, 2), (3, 0)]
    assert (world.told[0].model, world.told[0].version) == ("fake", "1")


def test_only_the_rows_that_nobody_knows_go_to_the_model_each_once_and_in_order():
    cached, model = World().cached()
    cached.run(batch([(2, 0, 1)]))
    cached.run(batch([(3, 0, 1), (2, 0, 1), (4, 0, 1), (3, 0, 1)]))
    assert model.seen[1]["X"][:, 0].tolist() == [3, 4]


def test_a_batch_of_new_rows_goes_to_the_model_as_it_is():
    cached, model = World().cached()
    cached.run(batch([(1, 0, 1)]))
    tensors = batch([(2, 0, 1), (3, 0, 1)])
    cached.run(tensors)
    assert model.seen[1] is tensors


def test_rows_that_differ_in_one_input_only_are_different_rows():
    cached, model = World().cached()
    cached.run(batch([(1, 0, 1)]))
    cached.run(batch([(1, 0, 2)]))
    assert len(model.seen) == 2


def test_zero_and_minus_zero_are_two_rows():
    cached, model = World().cached()
    cached.run(batch([(0.0, 0, 1)]))
    cached.run(batch([(-0.0, 0, 1)]))
    assert len(model.seen) == 2


def test_an_answer_is_kept_for_its_time_and_no_longer():
    world = World()
    cached, model = world.cached(policy=CachePolicy(ttl_s=60))
    tensors = batch([(1, 0, 1)])
    cached.run(tensors)
    world.clock.advance(59.9)
    cached.run(tensors)
    assert len(model.seen) == 1
    world.clock.advance(0.2)
    cached.run(tensors)
    assert len(model.seen) == 2


def test_an_answer_that_is_not_finite_is_not_kept():
    world = World()
    cached, model = world.cached(shared=True)
    for _ in range(3):
        cached.run(batch([(1, 0, -1), (2, 0, 1)]))
    assert [len(seen["X"]) for seen in model.seen] == [2, 1, 1]
    assert len(world.store.kept) == 1


def test_what_the_caller_does_to_an_answer_changes_nothing_for_the_next():
    cached, _ = World().cached()
    tensors = batch([(1, 0.25, 1)])
    for _ in range(3):
        answer = cached.run(tensors)
        assert same(answer, formula(1)(tensors))
        for array in answer.values():
            array[:] = 99


def test_tensors_of_another_layout_are_the_models_to_refuse():
    cached, model = World().cached(model=FakeModel(INPUTS, OUTPUTS, lambda tensors: {"v": np.zeros(len(tensors))}))
    good = batch([(1, 0, 1)])
    cached.run(good)
    asked = len(model.seen)
    strange = [
        {"X": good["X"]},
        {**good, "Y": good["X"]},
        {**good, "X": good["X"].astype(np.float64)},
        {**good, "X": good["X"].view(np.int32)},
        {**good, "X": good["X"].reshape(1, 1, 2)},
        {**good, "X": good["X"][0]},
        {**good, "N": np.zeros((2, 1), np.int64)},
        {"X": good["X"][:0], "N": good["N"][:0]},
        {"X": np.float32(1), "N": good["N"]},
        {},
    ]
    for tensors in strange:
        cached.run(tensors)
        assert model.seen[-1] is tensors
    assert len(model.seen) == asked + len(strange)


def test_rows_that_do_not_lie_together_are_rows_all_the_same():
    cached, model = World().cached()
    together = batch([(1, 0, 1), (2, 0, 1)])
    apart = {"X": np.asfortranarray(together["X"]), "N": np.repeat(together["N"], 2, axis=0)[::2]}
    cached.run(together)
    assert same(cached.run(apart), formula(1)(together))
    assert len(model.seen) == 1


def test_a_row_may_have_a_shape():
    image = InputSpec(name="I", features=(TensorFeature(field="i", length=6),), shape=(1, 2, 3))
    cached, model = World().cached(model=FakeModel((image,), OUTPUTS, lambda t: {"v": t["I"].sum(axis=(1, 2, 3))}))
    images = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
    cached.run({"I": images})
    assert cached.run({"I": images[::-1]})["v"].tolist() == [51, 15]
    assert len(model.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"v": np.zeros(3)},
        {"v": np.array(["a", "b"])},
        {"v": np.array([None, None], object)},
        {"v": np.float64(1.0)},
        {"v": np.zeros((2, 0))},
        {},
    ],
)
def test_an_answer_that_cannot_be_kept_is_given_as_it_is(answer):
    cached, model = World().cached(model=FakeModel(INPUTS, OUTPUTS, lambda _tensors: answer))
    for _ in range(2):
        assert cached.run(batch([(1, 0, 1), (2, 0, 1)])) is answer
    assert len(model.seen) == 2


def test_a_model_that_answers_in_another_layout_than_before_answers_for_the_whole_batch():
    def answer(tensors):
        rows = len(tensors["X"])
        return {"v": np.zeros(rows, np.float32 if (tensors["X"] == 9).any() else np.float64)}

    cached, _ = World().cached(model=FakeModel(INPUTS, OUTPUTS, answer))
    cached.run(batch([(1, 0, 1)]))
    odd = cached.run(batch([(1, 0, 1), (9, 0, 1)]))["v"]
    assert (odd.dtype, len(odd)) == (np.dtype(np.float32), 2)


def test_a_failure_of_the_model_is_the_callers_and_leaves_nothing_behind():
    failing = [True]

    def answer(tensors):
        if failing[0] and (tensors["X"] == 9).any():
            raise ModelFailed("nine")
        return formula(1)(tensors)

    world = World()
    cached, _ = world.cached(model=FakeModel(INPUTS, OUTPUTS, answer), shared=True)
    cached.run(batch([(1, 0, 1)]))
    with pytest.raises(ModelFailed, match="nine"):
        cached.run(batch([(2, 0, 1), (9, 0, 1)]))
    assert len(world.store.kept) == 1
    failing[0] = False
    tensors = batch([(9, 0, 1), (2, 0, 1), (1, 0, 1)])
    assert same(cached.run(tensors), formula(1)(tensors))
    assert (world.told[-1].hits, world.told[-1].misses) == (1, 2)


def test_what_a_model_at_fault_has_said_is_forgotten():
    cached, model = World().cached()
    cached.run(batch([(1, 0, 1)]))
    cached.check()
    model.at_fault = True
    with pytest.raises(ModelFailed):
        cached.check()
    cached.run(batch([(1, 0, 1)]))
    assert len(model.seen) == 2


def test_it_says_who_it_is_as_the_model_does():
    cached, model = World().cached()
    for what in ("name", "version", "digest", "event_schema", "prediction_schema", "inputs", "outputs"):
        assert getattr(cached, what) == getattr(model, what)


def rows_of(numbers):
    return [number.to_bytes(4, "big") for number in numbers], np.array(numbers, np.uint32).view(np.uint8).reshape(-1, 4)


def held(local, numbers):
    known, answers = local.look_up(rows_of(numbers)[0])
    assert answers.tobytes() == np.array([n for n, there in zip(numbers, known, strict=True) if there], "u4").tobytes()
    return [n for n, there in zip(numbers, known, strict=True) if there]


def local_answers(rows, clock, ttl_s=60.0):
    return LocalAnswers(CachePolicy(rows * (ENTRY_OVERHEAD_BYTES + 16), ttl_s), 4, 4, clock)


def test_the_answers_used_last_are_those_that_stay():
    local = local_answers(4, World().clock)
    local.keep(*rows_of([1, 2, 3, 4]))
    assert held(local, [1, 2]) == [1, 2]
    local.keep(*rows_of([5, 6]))
    assert held(local, [1, 2, 3, 4, 5, 6]) == [1, 2, 5, 6]


def test_of_a_batch_too_large_to_be_kept_the_last_rows_are():
    local = local_answers(3, World().clock)
    local.keep(*rows_of(list(range(10))))
    assert held(local, list(range(10))) == [7, 8, 9]


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12, unique=True), max_size=8), st.integers(0, 9))
def test_there_are_never_more_answers_than_there_is_room_for(batches, room):
    local = local_answers(room, World().clock)
    assert local.max_rows == room
    for numbers in batches:
        local.keep(*rows_of(numbers))
        assert len(local) <= room
        assert held(local, numbers[-room:] if room else numbers) == (numbers[-room:] if room else [])


@given(st.data())
def test_it_holds_what_a_list_in_order_of_use_would_hold(data):
    """Against the plainest model of a least-recently-used store with times."""
    clock = World().clock
    local, order, at = local_answers(6, clock, ttl_s=10.0), [], {}
    for numbers in data.draw(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), max_size=10)):
        clock.advance(data.draw(st.sampled_from([0.0, 4.0, 11.0])))
        there = [n for n in numbers if n in order]
        order = [n for n in order if n not in there] + there
        expected = [n for n in numbers if n in order and at[n] > clock.monotonic() - 10]
        assert held(local, numbers) == expected
        new = [n for n in numbers if n not in expected]
        local.keep(*rows_of(new))
        order = order[max(0, len(order) + len(new) - 6) :]
        order = [n for n in order if n not in new] + new
        at |= dict.fromkeys(new, clock.monotonic())
        assert len(local) == len(order)
