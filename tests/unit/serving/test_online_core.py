"""Concurrent requests share batches, and each gets what the stream would have answered to its rows."""

import asyncio
from threading import Event

import numpy as np
import online_world
import pyarrow as pa
import pytest
import small_pipeline
from hypothesis import given
from hypothesis import strategies as st
from made_pages import ab_page, canary_page, stable_page
from online_world import OnlineWorld, rounds, run
from small_pipeline import SICK, SmallPipeline, event, model_of, read, schema, tenths

from app.answering.asking import FallbackPolicy
from app.answering.event_columns import EventColumns
from app.avro.columns import reader_columns
from app.errors import ModelFailed, Reason
from app.serving.core import SOONER_S
from app.serving.question import Question
from app.serving.refusals import BadRequest, Expired, NotFound, NotServing, Overloaded
from app.specs import InputSpec, NumberFeature


def rows(*numbers):
    return Question(instances=[{"id": "e", "x": x} for x in numbers])


def vectors(*numbers):
    return Question(vectors=[[x] for x in numbers])


def probabilities(answers):
    return answers.probabilities[:, 1].astype(float).round(6).tolist()


def test_a_row_gets_its_class_its_probabilities_and_who_answered():
    answers = run(OnlineWorld().core.ask(rows(7.0, 2.0)))
    assert answers.predictions.tolist() == [1, 0]
    np.testing.assert_allclose(answers.probabilities, [[0.3, 0.7], [0.8, 0.2]], atol=1e-6)
    np.testing.assert_allclose(answers.confidence, [0.7, 0.8], atol=1e-6)
    source = answers.source_of(1)
    assert (source.model, source.version, source.part, source.revision) == ("churn", "7", "stable", 1)
    assert not answers.rejected


def test_a_lone_request_does_not_wait():
    world = OnlineWorld(max_wait_s=3600.0)
    run(world.core.ask(rows(1.0)))  # the clock stands still: nobody could have waited
    assert world.sizes == [1]


def test_requests_at_the_same_time_are_one_batch_and_each_has_its_own_rows():
    world = OnlineWorld()

    async def at_once():
        return await asyncio.gather(*(world.core.ask(rows(x, 8.0 - x)) for x in (1.0, 2.0, 3.0)))

    assert [probabilities(answers) for answers in run(at_once())] == [[0.1, 0.7], [0.2, 0.6], [0.3, 0.5]]
    assert world.sizes == [6]
    assert len(world.models[0].seen) == 1


def test_rows_by_name_and_rows_by_position_share_a_batch():
    world = OnlineWorld()

    async def at_once():
        asked = (rows(1.0), vectors(2.0), rows(3.0), vectors(4.0, 5.0))
        return await asyncio.gather(*map(world.core.ask, asked))

    assert [probabilities(answers) for answers in run(at_once())] == [[0.1], [0.2], [0.3], [0.4, 0.5]]
    assert world.sizes == [5]


def test_an_array_is_as_good_as_lists():
    answers = run(OnlineWorld().core.ask(Question(vectors=np.array([[1.0], [2.0]]))))
    assert probabilities(answers) == [0.1, 0.2]


def test_rows_of_every_layout_share_a_batch_and_each_has_its_own_answers():
    world = OnlineWorld()

    async def at_once():
        asked = (
            Question(columns={"x": np.array([1.0, 2.0])}),
            rows(3.0),
            Question(columns={"x": [4, 5.0]}),
            Question(columns={"x": np.array([6.0])}),
            Question(vectors=np.array([[7.0]], np.float32)),
            Question(vectors=np.array([[1.5]], np.float32)),
            Question(columns={"id": ["e"], "x": np.array([8], np.int16)}),
        )
        return await asyncio.gather(*map(world.core.ask, asked))

    said = [probabilities(answers) for answers in run(at_once())]
    assert said == [[0.1, 0.2], [0.3], [0.4, 0.5], [0.6], [0.7], [0.15], [0.8]]
    assert world.sizes == [9]


def test_a_bad_row_of_a_column_is_refused_alone_under_its_own_number():
    world = OnlineWorld()

    async def at_once():
        bad = Question(columns={"x": np.array([1.0, 11.0, np.nan])})
        return await asyncio.gather(world.core.ask(Question(columns={"x": np.array([2.0])})), world.core.ask(bad))

    good, bad = run(at_once())
    assert probabilities(good) == [0.2]
    assert {row: why.message for row, why in bad.rejected.items()} == {
        1: "x is 11, allowed 0 to 10",
        2: "x is missing",
    }


def test_columns_larger_than_a_batch_are_answered_in_one_piece():
    world = OnlineWorld(max_rows=4)
    answers = run(world.core.ask(Question(columns={"x": np.arange(9.0)})))
    assert probabilities(answers) == [x / 10 for x in range(9)]
    assert world.sizes == [4, 4, 1]


def test_those_whom_a_busy_loop_takes_in_one_a_round_share_a_batch():
    world = OnlineWorld(max_wait_s=0.002)

    async def one_a_round():
        asked = []
        for x in (1.0, 2.0, 3.0):
            asked.append(asyncio.ensure_future(world.core.ask(rows(x))))
            await rounds(1)
            world.clock.advance(0.0001)  # what the loop is busy with
        return await asyncio.gather(*asked)

    assert [probabilities(answers) for answers in run(one_a_round())] == [[0.1], [0.2], [0.3]]
    assert world.sizes == [3]


def test_a_loop_that_is_always_busy_keeps_nobody_longer_than_allowed():
    world = OnlineWorld(max_wait_s=0.002)

    async def while_it_is_busy():
        asked = asyncio.ensure_future(world.core.ask(rows(1.0)))
        while not asked.done():
            await rounds(1)
            world.clock.advance(0.0005)

    run(while_it_is_busy())
    assert world.seen.batches[0].waited_s < 0.002 + 2 * 0.0005  # the rounds that the time ran out in


@pytest.mark.parametrize(("back_after_s", "sizes"), [(SOONER_S / 2, [1, 1, 2]), (2 * SOONER_S, [1, 1, 1, 1])])
def test_who_comes_sooner_than_an_answered_one_could_was_in_a_queue_and_the_next_one_is_waited_for(back_after_s, sizes):
    world = OnlineWorld(max_wait_s=0.002)

    async def one(x):
        with world.core.coming(queued=True):
            pass
        return await world.core.ask(rows(x))

    async def in_turn():
        await one(1.0)
        await one(2.0)  # by now the model is known to be quick, and asked on the loop
        world.clock.advance(back_after_s)
        first = asyncio.ensure_future(one(3.0))
        await rounds(4)
        return await asyncio.gather(first, one(4.0))

    world.clock.advance(1.0)
    assert [probabilities(answers) for answers in run(in_turn())] == [[0.3], [0.4]]
    assert world.sizes == sizes


def test_who_is_on_the_way_is_waited_for_until_they_are_there():
    world = OnlineWorld(max_wait_s=3600.0)

    async def slowly():
        with world.core.coming():
            await rounds(20)
        return await world.core.ask(rows(2.0))

    async def two():
        second = asyncio.ensure_future(slowly())
        await rounds()
        await asyncio.gather(world.core.ask(rows(1.0)), second)

    run(two())
    assert world.sizes == [2]


def test_who_turns_back_on_the_way_is_not_waited_for_any_longer():
    world = OnlineWorld(max_wait_s=3600.0)

    async def alone_after_all():
        with world.core.coming():
            first = asyncio.ensure_future(world.core.ask(rows(1.0)))
            await rounds()
        return await first

    assert probabilities(run(alone_after_all())) == [0.1]


def test_nobody_is_waited_for_longer_than_allowed():
    world = OnlineWorld(max_wait_s=0.001)

    async def while_one_never_comes():
        with world.core.coming():
            first = asyncio.ensure_future(world.core.ask(rows(1.0)))
            await rounds()
            assert not first.done()
            world.clock.advance(0.001)
            return await first

    assert probabilities(run(while_one_never_comes())) == [0.1]


def test_a_request_larger_than_a_batch_is_answered_in_one_piece():
    world = OnlineWorld(max_rows=4)
    answers = run(world.core.ask(rows(*range(10))))
    assert probabilities(answers) == [x / 10 for x in range(9)] + [pytest.approx(float("nan"), nan_ok=True)]
    assert world.sizes == [4, 4, 2]
    assert [(row, why.reason) for row, why in answers.rejected.items()] == [(9, Reason.BAD_OUTPUT)]


def test_a_bad_row_is_refused_alone_by_name_and_its_neighbours_are_answered():
    world = OnlineWorld()

    async def at_once():
        bad = Question(instances=[{"x": 1.0}, {"x": 11.0}, {"x": "1"}, {"y": 1}, {}, 5])
        return await asyncio.gather(world.core.ask(bad), world.core.ask(rows(2.0, SICK)))

    bad, good = run(at_once())
    assert {row: (why.row, why.reason, why.message) for row, why in bad.rejected.items()} == {
        1: (1, Reason.OUT_OF_RANGE, "x is 11, allowed 0 to 10"),
        2: (2, Reason.BAD_SHAPE, "x is '1', expected a number"),
        3: (3, Reason.BAD_SHAPE, "y is no field of the events, which have id, x"),
        4: (4, Reason.MISSING_VALUE, "x is missing"),
        5: (5, Reason.BAD_SHAPE, "features is 5, expected an object with fields"),
    }
    assert probabilities(bad)[0] == 0.1
    assert probabilities(good)[0] == 0.2
    assert [(row, why.reason) for row, why in good.rejected.items()] == [(1, Reason.BAD_OUTPUT)]


def test_a_request_of_bad_rows_alone_is_answered_with_their_reasons():
    answers = run(OnlineWorld().core.ask(rows(11.0, -1.0)))
    assert list(answers.rejected) == [0, 1]
    assert len(answers) == 2


def test_no_rows_have_no_answers():
    world = OnlineWorld()
    assert len(run(world.core.ask(Question(instances=[])))) == 0
    assert world.sizes == []


KEYS = st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=12)
PAGES = st.sampled_from(
    [
        stable_page("7"),
        canary_page("7", "8", 50, 3),
        ab_page("7", {"left": ("8", 1), "right": ("9", 3)}, 4),
    ]
)


@given(KEYS, PAGES, st.integers(1, 5))
def test_the_same_key_and_features_get_the_same_answer_as_in_the_stream(keys, page, max_rows):
    models = [model_of(version, lambda tensors, by=by: tenths({"X": tensors["X"] * by})) for version, by in
              (("7", 1.0), ("8", 0.5), ("9", 0.25))]  # fmt: skip
    stream = SmallPipeline(*models, page=page)
    events = [event(float(i % 9), i, key=None if key is None else key.encode()) for i, key in enumerate(keys)]
    streamed = read(stream.score(events).predictions.values)

    world = OnlineWorld(*models, page=page, max_rows=max_rows)

    async def one_by_one_at_once():
        asked = (Question(instances=[{"x": float(i % 9)}], keys=[key]) for i, key in enumerate(keys))
        return await asyncio.gather(*map(world.core.ask, asked))

    alone = run(one_by_one_at_once())
    together = run(world.core.ask(Question(vectors=[[i % 9] for i in range(len(keys))], keys=keys)))
    for i, prediction in enumerate(streamed):
        for answers, row in ((alone[i], 0), (together, i)):
            source = answers.source_of(row)
            expected = (prediction["model_version"], prediction["answered_by"], prediction["rollout_revision"])
            assert (source.version, source.part, source.revision) == expected
            assert answers.predictions[row] == prediction["label"]
            assert answers.probabilities[row, 1] == prediction["p"]


def test_a_version_can_be_asked_for_by_name_whatever_the_rollout_says():
    world = OnlineWorld(model_of("7"), model_of("8"), page=canary_page("7", "8", 1, 3))
    answers = run(world.core.ask(Question(vectors=[[1.0], [2.0]], version="8")))
    assert {answers.source_of(row).version for row in (0, 1)} == {"8"}


def test_a_version_that_goes_while_it_is_waited_for_answers_nothing_else():
    world = OnlineWorld(model_of("7"), model_of("8"), page=canary_page("7", "8", 1, 3), max_wait_s=60.0)

    async def too_late():
        with world.core.coming():
            asked = asyncio.ensure_future(world.core.ask(Question(vectors=[[1.0]], version="8")))
            other = asyncio.ensure_future(world.core.ask(vectors(2.0)))
            await rounds()
            world.use(stable_page("7", 4))
        with pytest.raises(NotFound, match="version '8' is not answering; answering: 7"):
            await asked
        return await other

    assert probabilities(run(too_late())) == [0.2]


def test_who_gives_up_leaves_the_batch_before_it_is_asked_about():
    world = OnlineWorld(max_wait_s=3600.0)

    async def one_of_two():
        with world.core.coming():
            asked = [asyncio.ensure_future(world.core.ask(rows(x, x))) for x in (1.0, 2.0)]
            await rounds()
            asked[0].cancel()
            await rounds()
        return await asked[1]

    assert probabilities(run(one_of_two())) == [0.2, 0.2]
    assert world.sizes == [2]


def test_whose_time_is_over_leaves_the_batch_before_it_is_asked_about():
    world = OnlineWorld(max_wait_s=3600.0)

    async def one_of_two():
        with world.core.coming():
            late = asyncio.ensure_future(world.core.ask(Question(vectors=[[1.0]], within_s=10.0)))
            other = asyncio.ensure_future(world.core.ask(vectors(2.0)))
            await rounds()
            world.clock.advance(10.0)
        with pytest.raises(Expired):
            await late
        return await other

    assert probabilities(run(one_of_two())) == [0.2]
    assert world.sizes == [1]


def test_time_also_passes_for_who_waits_while_a_slow_model_is_asked():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    world = OnlineWorld(model_of("7", slow))

    async def second_waits():
        first = asyncio.ensure_future(world.core.ask(vectors(1.0)))
        await rounds()
        with pytest.raises(Expired):
            await world.core.ask(Question(vectors=[[2.0]], within_s=0.01))
        release.set()
        return await first

    assert probabilities(run(second_waits())) == [0.1]
    assert world.sizes == [1]


def test_while_a_slow_model_is_asked_the_next_batch_fills():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    world = OnlineWorld(model_of("7", slow))

    async def many():
        first = asyncio.ensure_future(world.core.ask(vectors(1.0)))
        await rounds()
        others = [asyncio.ensure_future(world.core.ask(vectors(float(x)))) for x in range(2, 9)]
        await rounds()
        release.set()
        return await asyncio.gather(first, *others)

    assert [probabilities(answers) for answers in run(many())] == [[x / 10] for x in range(1, 9)]
    assert world.sizes == [1, 7]


def test_more_than_may_wait_is_refused_with_when_to_come_back():
    world = OnlineWorld(most_waiting_rows=3, max_wait_s=3600.0)

    async def crowd():
        with world.core.coming():
            waiting = asyncio.ensure_future(world.core.ask(rows(1.0, 2.0, 3.0)))
            await rounds()
            with pytest.raises(Overloaded, match="3 rows are waiting, at most 3 may") as refusal:
                await world.core.ask(rows(4.0))
        await waiting
        return refusal.value.retry_after_s, await world.core.ask(rows(4.0))

    retry_after_s, answers = run(crowd())
    assert retry_after_s > 0
    assert probabilities(answers) == [0.4]


@pytest.mark.parametrize(
    ("question", "refusal", "message"),
    [
        (Question(), BadRequest, "a question has instances, columns or vectors, one of the three"),
        (
            Question(instances=[{}], vectors=[[1]]),
            BadRequest,
            "a question has instances, columns or vectors, one of the three",
        ),
        (Question(vectors=[[1.0]], keys=["a", "b"]), BadRequest, "keys has 2 entries for 1 rows"),
        (Question(vectors=[[1.0]] * 11), BadRequest, "11 rows in one request, at most 10 are taken"),
        (Question(vectors=[[1.0]], version="9"), NotFound, "version '9' is not answering; answering: 7"),
        (Question(vectors=[[1.0]], within_s=0.0), Expired, "over before it began"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_name(question, refusal, message):
    world = OnlineWorld(most_request_rows=10)
    with pytest.raises(refusal, match=message):
        run(world.core.ask(question))
    assert world.sizes == []


def test_nothing_is_answered_before_a_version_is_there():
    world = OnlineWorld()
    world.core._in_force = None
    assert not world.core.ready
    with pytest.raises(NotServing, match="model 'churn' is not ready"):
        run(world.core.ask(rows(1.0)))


def test_a_model_at_fault_is_told_to_everybody_in_its_batch_and_asked_again_later():
    model = model_of("7")
    world = OnlineWorld(model)

    def broken(_tensors):
        raise ModelFailed("broken")

    async def then_mended():
        model.answer, model.at_fault = broken, True
        failed = await asyncio.gather(world.core.ask(rows(1.0)), world.core.ask(rows(2.0)), return_exceptions=True)
        model.answer, model.at_fault = tenths, False
        world.clock.advance(3600.0)
        return failed, await world.core.ask(rows(3.0))

    failed, answers = run(then_mended())
    assert [type(exc) for exc in failed] == [ModelFailed, ModelFailed]
    assert probabilities(answers) == [0.3]


def test_stable_answers_for_a_canary_that_fails():
    def broken(_tensors):
        raise ModelFailed("broken")

    canary = model_of("8", broken)
    canary.at_fault = True
    world = OnlineWorld(model_of("7"), canary, page=canary_page("7", "8", 100, 3), fallback=FallbackPolicy())
    answers = run(world.core.ask(Question(vectors=[[1.0]], keys=["k"])))
    assert (answers.source_of(0).version, answers.source_of(0).part) == ("7", "fallback")


def test_what_is_there_is_answered_before_the_end_and_nothing_is_taken_any_more():
    world = OnlineWorld(max_wait_s=3600.0)

    async def end():
        with world.core.coming():
            waiting = asyncio.ensure_future(world.core.ask(rows(1.0)))
            await rounds()
            await world.core.drain(10.0)
        with pytest.raises(NotServing, match="about to end"):
            await world.core.ask(rows(2.0))
        return await waiting

    assert probabilities(run(end())) == [0.1]


def test_a_new_page_answers_from_the_next_batch_on():
    world = OnlineWorld(model_of("7"), model_of("8"))
    assert run(world.core.ask(rows(1.0))).source_of(0).version == "7"
    world.use(stable_page("8", 2))
    assert run(world.core.ask(rows(1.0))).source_of(0).version == "8"


def test_what_was_answered_is_counted_as_in_the_stream():
    world = OnlineWorld()
    run(world.core.ask(rows(7.0, 2.0, 11.0)))
    (commit,) = world.seen.commits
    (outcomes,) = commit.outcomes
    assert (outcomes.predicted, outcomes.dead_lettered, dict(outcomes.results)) == (2, 1, {"0": 1, "1": 1})
    assert world.core.answered_rows == 2
    assert len(commit.latencies_s()) == 3


@given(
    st.lists(st.tuples(st.lists(st.floats(-2, 12), min_size=1, max_size=5), st.booleans()), min_size=1, max_size=8),
    st.integers(1, 7),
)
def test_batching_loses_repeats_and_mixes_up_nothing(requests, max_rows):
    world = OnlineWorld(max_rows=max_rows)

    async def at_once():
        asked = [rows(*numbers) if named else vectors(*numbers) for numbers, named in requests]
        return await asyncio.gather(*map(world.core.ask, asked))

    for (numbers, _), answers in zip(requests, run(at_once()), strict=True):
        assert len(answers) == len(numbers)
        for row, x in enumerate(numbers):
            if 0 <= x <= 10 and np.float32(x) != SICK:
                assert answers.probabilities[row, 1] == np.float32(x) / np.float32(10)
            else:
                assert row in answers.rejected


# --------------------------------------------------------------------------- one client's row and everybody else's

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def asked_beside(strange, neighbour):
    """What becomes of the neighbour; the strange one has an answer, a reason or a failure of its own."""
    world = OnlineWorld()

    async def at_once():
        return await asyncio.gather(world.core.ask(strange), world.core.ask(neighbour), return_exceptions=True)

    return run(at_once())


@given(st.lists(JSON, min_size=1, max_size=3), st.booleans())
def test_whatever_json_somebody_sends_their_neighbours_are_answered(rows_sent, named):
    strange = Question(instances=rows_sent) if named else Question(vectors=rows_sent)
    _, good = asked_beside(strange, vectors(7.0))
    assert probabilities(good) == [0.7]


@pytest.mark.parametrize(
    "strange",
    [
        Question(vectors=[[4611686018427387905, 0.5]]),
        Question(vectors=[[2**63], [-1]]),
        Question(vectors=[[deep(1000)]]),
        Question(vectors=[deep(1000)]),
        Question(instances=[{"x": deep(1000)}]),
        Question(instances=[deep(1000)]),
        Question(instances=[{"x": {"a": deep(1000)}}]),
    ],
    ids=[
        "a large and a small one",
        "two large rows",
        "deep in a vector",
        "a deep vector",
        "a deep field",
        "a deep row",
        "a deep object",
    ],
)
def test_a_row_that_nobody_thought_of_is_refused_alone(strange):
    bad, good = asked_beside(strange, vectors(7.0))
    assert probabilities(good) == [0.7]
    assert len(bad.rejected) == len(strange)


def test_numbers_that_have_no_type_in_common_are_numbers_all_the_same():
    wide = (InputSpec(name="X", features=tuple(NumberFeature(field=name) for name in ("x", "y"))),)
    columns = EventColumns(pa.schema([("x", pa.float64()), ("y", pa.float64())]), wide)
    made = columns.of_vectors([[2**62 + 1, 0.5], [2**63, -1]])
    assert made.columns.table.to_pylist() == [{"x": 2.0**62, "y": 0.5}, {"x": 2.0**63, "y": -1.0}]
    assert not made.refused


def test_what_fails_a_batch_without_a_name_fails_its_own_request_only():
    def frail(tensors):
        if (tensors["X"] == 3.0).any():
            raise StopIteration
        return tenths(tensors)

    world = OnlineWorld(model_of("7", answer=frail))

    async def at_once():
        return await asyncio.gather(*(world.core.ask(rows(x)) for x in (1.0, 3.0, 2.0)), return_exceptions=True)

    first, bad, last = run(at_once())
    assert [probabilities(first), probabilities(last)] == [[0.1], [0.2]]
    assert isinstance(bad, RuntimeError)


def test_the_end_of_a_model_by_force_is_told_and_the_next_request_is_answered():
    calls = []

    def once(tensors):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit(3)
        return tenths(tensors)

    world = OnlineWorld(model_of("7", answer=once))

    async def two():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        first = asyncio.ensure_future(world.core.ask(rows(1.0)))
        with pytest.raises(RuntimeError, match="the batch ended with SystemExit"):
            await first
        return await world.core.ask(rows(2.0))

    try:
        assert probabilities(run(two())) == [0.2]
    except SystemExit:
        assert len(calls) == 1  # on the loop itself it ends the process, as it says


# ------------------------------------------------------------------------------------ vectors of several versions


def two_fields(version, *order):
    inputs = (InputSpec(name="X", features=tuple(NumberFeature(field=name, min=0, max=10) for name in order)),)
    at = order.index("x")
    return model_of(version, lambda tensors: tenths({"X": tensors["X"][:, at : at + 1]}), inputs)


@pytest.fixture
def reordered(monkeypatch):
    event = reader_columns(schema("Event", ("id", "string"), ("x", ["null", "double"]), ("y", ["null", "double"])))
    monkeypatch.setattr(small_pipeline, "COLUMNS", event)
    monkeypatch.setattr(online_world, "COLUMNS", event)
    return OnlineWorld(two_fields("1", "x", "y"), two_fields("2", "y", "x"), page=canary_page("1", "2", 50))


def test_a_vector_for_a_named_version_is_laid_out_as_that_version_has_it(reordered):
    for version, vector in (("1", [9, 1]), ("2", [1, 9])):
        answers = run(reordered.core.ask(Question(vectors=[[8, 1] if vector[0] == 9 else [1, 8]], version=version)))
        assert probabilities(answers) == [0.8], version


def test_a_vector_without_a_version_is_stables_and_means_the_same_to_whoever_answers(reordered):
    keys = [str(number) for number in range(20)]
    answers = run(reordered.core.ask(Question(vectors=[[8, 1]] * 20, keys=keys)))
    assert {answers.source_of(row).version for row in range(20)} == {"1", "2"}
    assert probabilities(answers) == [0.8] * 20


def test_a_vector_keeps_its_meaning_when_another_version_becomes_stable_before_its_turn(reordered):
    async def switched():
        asked = asyncio.ensure_future(reordered.core.ask(Question(vectors=[[8, 1]])))
        await asyncio.sleep(0)  # it is inside
        reordered.use(stable_page("2", 2))
        return await asked

    answers = run(switched())
    assert (probabilities(answers), answers.source_of(0).version) == ([0.8], "2")


def test_vectors_that_a_version_on_trial_cannot_be_fed_from_are_refused_by_name(reordered):
    world = OnlineWorld(two_fields("1", "x"), two_fields("2", "y", "x"), page=canary_page("1", "2", 50))
    with pytest.raises(BadRequest, match="version 2 takes y, which a list in the order of version 1 does not have"):
        run(world.core.ask(Question(vectors=[[8]], keys=["a"])))
    assert probabilities(run(world.core.ask(Question(vectors=[[8]])))) == [0.8]


def test_vectors_of_a_wrong_width_that_share_a_batch_are_refused_each_for_its_own():
    world = OnlineWorld(max_wait_s=0.05)

    async def both():
        wide = (np.zeros((rows, 1000), np.float32) for rows in (1, 2))
        return await asyncio.gather(*(world.core.ask(Question(vectors=rows)) for rows in wide))

    assert [sorted(answers.rejected) for answers in run(both())] == [[0], [0, 1]]


def test_who_leaves_is_not_ready_and_answers_all_the_same():
    world = OnlineWorld()
    world.core.leave()
    assert not world.core.ready
    assert probabilities(run(world.core.ask(rows(1.0)))) == [0.1]
