"""What other workers know: keys that tell rows and versions apart, values that are checked before they are believed."""

import numpy as np
import pytest
import xxhash
from cache_world import FakeStore, World, batch, formula, same

from app.models import shared_answers
from app.models.row_layout import RowLayout
from app.models.shared_answers import SharedAnswers, Unanswered, scope_of

LAYOUT = RowLayout(("X",), (np.dtype(np.float32),), ((2,),))


def warm(world, version=1):
    """A worker that has seen what answers look like."""
    cached, model = world.cached(version, shared=True)
    cached.run(batch([(77, 0, 0)]))
    return cached, model


def test_what_one_worker_scored_another_does_not():
    world = World()
    (one, _), (other, model) = warm(world), warm(world)
    tensors = batch([(1, 0, 1), (2, 0, 1)])
    one.run(tensors)
    assert same(other.run(tensors), formula(1)(tensors))
    assert len(model.seen) == 1
    assert (world.told[-1].hits, world.told[-1].misses) == (2, 0)


def test_a_batch_is_one_question_about_distinct_rows_not_known_here():
    world = World()
    cached, _ = warm(world)
    cached.run(batch([(77, 0, 0), (1, 0, 1), (2, 0, 1), (1, 0, 1)]))
    assert [len(keys) for keys in world.store.asked] == [2]
    cached.run(batch([(1, 0, 1), (2, 0, 1)]))
    assert len(world.store.asked) == 1


def test_what_the_store_knew_is_known_here_from_then_on_and_not_written_again():
    world = World()
    (one, _), (other, _) = warm(world), warm(world)
    one.run(batch([(1, 0, 1)]))
    puts = len(world.store.puts)
    for _ in range(3):
        other.run(batch([(1, 0, 1)]))
    assert len(world.store.puts) == puts
    assert len(world.store.asked) == 2


def test_versions_share_nothing():
    world = World()
    (one, _), (other, model) = warm(world, 1), warm(world, 2)
    tensors = batch([(1, 0, 1)])
    one.run(tensors)
    assert same(other.run(tensors), formula(2)(tensors))
    assert len(model.seen) == 2


def test_a_value_of_another_version_under_our_key_is_not_believed():
    world = World()
    warm(world, 2)
    warm(world, 1)
    theirs = dict(world.store.kept)
    tensors = batch([(77, 0, 0)])
    fresh, _ = world.cached(1, shared=True)
    fresh.run(batch([(5, 0, 0)]))
    (key_of_two, value_of_two), (key_of_one, _) = theirs.items()
    world.store.kept[key_of_one] = value_of_two
    assert key_of_one != key_of_two
    assert same(fresh.run(tensors), formula(1)(tensors))
    assert world.told[-1].errors == 1


@pytest.mark.parametrize("reason", list(Unanswered))
def test_a_store_that_says_nothing_costs_a_score_and_is_counted(reason):
    world = World()
    cached, _ = warm(world)
    world.store.next = [reason]
    tensors = batch([(77, 0, 0), (1, 0, 1), (1, 0, 1)])
    assert same(cached.run(tensors), formula(1)(tensors))
    told = world.told[-1]
    assert (told.hits, told.misses) == (1, 0)
    assert (told.errors, told.skipped) == ((2, 0) if reason is Unanswered.FAILED else (0, 2))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _value: b"",
        lambda value: value[:-1],
        lambda value: value + b"\0",
        lambda value: b"\x00" + value[1:],
        lambda value: value[:1] + b"\xff" + value[2:],
        lambda value: value[:-9] + bytes([value[-9] ^ 1]) + value[-8:],
        lambda value: value[:-1] + bytes([value[-1] ^ 1]),
        lambda value: bytes(len(value)),
    ],
    ids=["empty", "short", "long", "other format", "other row", "other answer", "other check", "zeros"],
)
def test_a_value_that_is_not_this_rows_is_an_error_and_is_replaced(spoil):
    world = World()
    (one, _), (other, model) = warm(world), warm(world)
    tensors = batch([(1, 0, 1), (2, 0, 1)])
    one.run(tensors)
    first = world.store.asked[-1][0]
    good = world.store.kept[first]
    world.store.kept[first] = spoil(good)
    assert same(other.run(tensors), formula(1)(tensors))
    assert (world.told[-1].hits, world.told[-1].errors) == (1, 1)
    assert len(model.seen[-1]["X"]) == 1
    assert world.store.kept[first] == good


def test_rows_whose_hashes_collide_do_not_get_each_others_answers(monkeypatch):
    monkeypatch.setattr(xxhash, "xxh3_128_digest", lambda _row: b"the same")
    world = World()
    (one, _), (other, _) = warm(world), warm(world)
    for worker in (one, other):
        tensors = batch([(1, 0, 1), (2, 0, 1), (3, 0.25, 1)])
        assert same(worker.run(tensors), formula(1)(tensors))


def test_values_of_another_format_are_not_believed(monkeypatch):
    answers, rows = SharedAnswers(FakeStore(), b"s" * 16, 4), np.zeros((1, 8), np.uint8)
    monkeypatch.setattr(shared_answers, "FORMAT", 2)
    answers.keep(rows, np.ones((1, 4), np.uint8))
    assert answers.look_up(rows).known.all()
    monkeypatch.undo()
    found = answers.look_up(rows)
    assert found.errors.all()
    assert not found.known.any()


def test_keys_say_whose_they_are():
    store = FakeStore()
    SharedAnswers(store, b"s" * 16, 4).keep(np.zeros((1, 8), np.uint8), np.zeros((1, 4), np.uint8))
    (key,) = store.kept
    assert key.startswith(shared_answers.PREFIX + b"s" * 16)
    assert len(key) == 42


@pytest.mark.parametrize(
    "other",
    [
        ({"model.onnx": "b"}, LAYOUT, LAYOUT),
        ({"model.onnx": "a", "weights": "c"}, LAYOUT, LAYOUT),
        ({"model.onnx": "a"}, RowLayout(("Y",), LAYOUT.dtypes, LAYOUT.shapes), LAYOUT),
        ({"model.onnx": "a"}, LAYOUT, RowLayout(("X",), (np.dtype(np.float64),), ((1,),))),
        ({"model.onnx": "a"}, LAYOUT, RowLayout(("X",), (np.dtype(np.float32),), ((2, 1),))),
    ],
    ids=["graph", "weights beside it", "input", "dtype", "shape"],
)
def test_whatever_an_answer_depends_on_is_in_the_key(other):
    assert scope_of(*other) != scope_of({"model.onnx": "a"}, LAYOUT, LAYOUT)
