"""A handler that fails, whatever it does, costs the rows it fails on or stops the worker, and never a record."""

import asyncio
from collections.abc import Mapping
from threading import Thread

import numpy as np
import pytest
from fakes import FakeModel, ManualClock
from handler_world import BAD, GOLDEN, HandledPipeline, Mute, Odd, Plain, odd, raising, start
from hypothesis import given
from hypothesis import strategies as st
from made_pages import canary_page, stable_page
from small_pipeline import COLUMNS, INPUTS, RETRY_S, SICK, event, model_of, read, tenths
from test_shadow_scoring import WRITER, rows_of_numbers

from app.answering.asking import FallbackPolicy
from app.errors import HandlerFailed, HandlerInvalid, ModelFailed, OutputRefused, Reason, Stage
from app.handler import Handler, RejectRows
from app.pipeline.infer import OutputPolicy
from app.specs import ProbabilitiesOutput, ValueOutput
from app.worker.chain import ChainPolicy
from app.worker.shadow_scoring import ShadowScorer
from app.worker.side_by_side import answer_of

GOOD = [1.0, 2.0, 4.0, 5.0, 6.0, 8.0]


class Trap(Mapping):
    """A mapping that raises when it is looked at."""

    def __len__(self):
        return 1

    def __iter__(self):
        raise SystemExit(3)

    def __getitem__(self, name):
        raise SystemExit(3)


class OddVerdict(RejectRows):
    """Has no rows at all."""

    def __init__(self):
        pass


async def _nothing():
    await asyncio.sleep(0)


def _generated(given):
    yield given


ANY_STEP = {
    "nothing": (lambda g, good: None, Reason.BAD_SHAPE, "a NoneType was returned"),
    "a list": (lambda g, good: [good], Reason.BAD_SHAPE, "a list was returned"),
    "a generator": (lambda g, good: _generated(g), Reason.BAD_SHAPE, "a generator was returned"),
    "a coroutine": (lambda g, good: _nothing(), Reason.BAD_SHAPE, "a coroutine was returned"),
    "no names": (lambda g, good: {}, Reason.BAD_SHAPE, "nothing was returned"),
    "one name too many": (lambda g, good: good | {"Y": good}, Reason.BAD_SHAPE, "Y was returned"),
    "names that are no text": (lambda g, good: {1: 2}, Reason.BAD_SHAPE, "1 was returned"),
    "lists for arrays": (lambda g, good: {k: v.tolist() for k, v in good.items()}, Reason.BAD_SHAPE, "is a list"),
    "masked arrays": (
        lambda g, good: {k: np.ma.masked_array(v, mask=True) for k, v in good.items()},
        Reason.BAD_SHAPE,
        "is a MaskedArray",
    ),
    "objects": (lambda g, good: {k: v.astype(object) for k, v in good.items()}, Reason.BAD_SHAPE, "is object"),
    "text": (lambda g, good: {k: v.astype(str) for k, v in good.items()}, Reason.BAD_SHAPE, "is <U"),
    "complex numbers": (lambda g, good: {k: v.astype(complex) for k, v in good.items()}, Reason.BAD_SHAPE, "complex"),
    "a row too few": (lambda g, good: {k: v[1:] for k, v in good.items()}, Reason.BAD_SHAPE, "has the shape"),
    "a row too many": (
        lambda g, good: {k: np.concatenate([v, v[:1]]) for k, v in good.items()},
        Reason.BAD_SHAPE,
        "has the shape",
    ),
    "a scalar": (lambda g, good: {k: v[0, ...].sum() for k, v in good.items()}, Reason.BAD_SHAPE, "is a "),
    "one axis too many": (
        lambda g, good: {k: v[..., None] for k, v in good.items()},
        Reason.BAD_SHAPE,
        "has the shape",
    ),
    "ValueError": (raising(ValueError("too odd")), Reason.MODEL_ERROR, "raised ValueError: too odd"),
    "SystemExit": (raising(SystemExit(0)), Reason.MODEL_ERROR, "raised SystemExit: 0"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), Reason.MODEL_ERROR, "raised KeyboardInterrupt"),
    "StopIteration": (raising(StopIteration()), Reason.MODEL_ERROR, "raised StopIteration"),
    "MemoryError": (raising(MemoryError()), Reason.MODEL_ERROR, "raised MemoryError"),
    "our own fatal error": (raising(ModelFailed("mine")), Reason.MODEL_ERROR, "raised app.errors.ModelFailed: mine"),
    "an error without words": (raising(Mute()), Reason.MODEL_ERROR, "Mute"),
    "a trap": (lambda g, good: Trap(), Reason.MODEL_ERROR, "raised SystemExit: 3"),
    "a verdict on no row": (raising(RejectRows([], "expired", "x")), Reason.BAD_SHAPE, "names the rows []"),
    "a verdict on a row of others": (
        raising(RejectRows([99], "expired", "x")),
        Reason.BAD_SHAPE,
        "names the rows [99]",
    ),
    "a verdict on row -1": (raising(RejectRows([-1], "expired", "x")), Reason.BAD_SHAPE, "names the rows [-1]"),
    "a verdict on row 0.5": (raising(RejectRows([0.5], "expired", "x")), Reason.BAD_SHAPE, "names the rows [0.5]"),
    "a mask of other rows": (raising(RejectRows([True] * 99, "expired", "x")), Reason.BAD_SHAPE, "names the rows"),
    "a verdict on names": (raising(RejectRows(["a"], "expired", "x")), Reason.BAD_SHAPE, "names the rows list"),
    "a verdict without words": (raising(RejectRows([0], "expired", None)), Reason.BAD_SHAPE, "and a text"),
    "a verdict on nothing": (raising(OddVerdict()), Reason.BAD_SHAPE, "OddVerdict cannot be read"),
}


def _writes_to_the_batch(batch, good):
    batch.column("x").to_numpy(zero_copy_only=False)[:] = 0
    return good


def _writes_to_the_answers(outputs, good):
    outputs["P"][:] = 0
    return good


def _where_bad(x, value):
    """x, but for the bad event; and everywhere once the handler is at fault."""
    return np.where((x == BAD) | Odd.always, np.asarray(value, x.dtype), x)


def _where_bad_p(good, name, value):
    column = good[name]
    return np.where((good["p"] == np.float32(BAD / 10)) | Odd.always, np.asarray(value, column.dtype), column)


PREPROCESS = ANY_STEP | {
    "float64": (lambda g, good: {"X": good["X"].astype(np.float64)}, Reason.BAD_SHAPE, "is float64, the model takes"),
    "other byte order": (lambda g, good: {"X": good["X"].astype(">f4")}, Reason.BAD_SHAPE, "the model takes float32"),
    "two columns": (lambda g, good: {"X": np.repeat(good["X"], 2, 1)}, Reason.BAD_SHAPE, "has the shape"),
    "mutated input": (_writes_to_the_batch, Reason.MODEL_ERROR, "read-only"),
    "NaN": (lambda g, good: {"X": _where_bad(good["X"], np.nan)}, Reason.NOT_FINITE, "input 'X' what is not finite"),
    "infinity": (lambda g, good: {"X": _where_bad(good["X"], np.inf)}, Reason.NOT_FINITE, "not finite"),
}
POSTPROCESS = ANY_STEP | {
    "labels as floats": (lambda g, good: good | {"label": good["p"]}, Reason.BAD_SHAPE, "class labels"),
    "labels beyond int64": (
        lambda g, good: good | {"label": good["label"].astype(np.uint64)},
        Reason.BAD_SHAPE,
        "class labels",
    ),
    "labels that are none": (
        lambda g, good: good | {"label": _where_bad_p(good, "label", 7)},
        Reason.BAD_OUTPUT,
        "label=",
    ),
    "probability as int": (lambda g, good: good | {"p": good["label"]}, Reason.BAD_SHAPE, "floats (probability)"),
    "probability 1.5": (lambda g, good: good | {"p": _where_bad_p(good, "p", 1.5)}, Reason.BAD_OUTPUT, "p=1.5"),
    "probability NaN": (lambda g, good: good | {"p": _where_bad_p(good, "p", np.nan)}, Reason.BAD_OUTPUT, "p=nan"),
    "probability -inf": (lambda g, good: good | {"p": _where_bad_p(good, "p", -np.inf)}, Reason.BAD_OUTPUT, "p=-inf"),
    "mutated input": (_writes_to_the_answers, Reason.MODEL_ERROR, "read-only"),
}


@pytest.fixture(autouse=True)
def _well_at_first(monkeypatch):
    monkeypatch.setattr(Odd, "always", False)


def records_of(*numbers):
    return [event(x, offset) for offset, x in enumerate(numbers)]


def letters_of(scored):
    return [(int(letter.key), letter.stage, letter.reason) for letter in scored.dead_letters]


def message_of(letter):
    return dict(letter.headers)["__connect.errors.exception.message"].decode()


def predicted(scored):
    return [(int(key), row["label"], pytest.approx(row["p"])) for key, row in rows_of(scored)]


def rows_of(scored):
    return zip(scored.predictions.keys, read(scored.predictions.values), strict=True)


STEPS = [
    *[pytest.param("before", Stage.FEATURES, *what, id=f"preprocess: {name}") for name, what in PREPROCESS.items()],
    *[pytest.param("after", Stage.OUTPUT, *what, id=f"postprocess: {name}") for name, what in POSTPROCESS.items()],
]


@pytest.mark.parametrize(("step", "stage", "act", "reason", "message"), STEPS)
def test_rows_a_handler_fails_on_are_dead_letters_alone_and_say_why(step, stage, act, reason, message):
    rig = HandledPipeline(odd(**{step: act}))
    rig.score(records_of(*GOOD))
    scored = rig.score(records_of(1.0, 2.0, BAD, 4.0, BAD, 8.0))
    assert letters_of(scored) == [(2, stage, reason), (4, stage, reason)]
    assert message in message_of(scored.dead_letters[0])
    assert predicted(scored) == [(0, 0, 0.1), (1, 0, 0.2), (3, 0, 0.4), (5, 1, 0.8)]


@pytest.mark.parametrize(("step", "stage", "act", "reason", "message"), STEPS)
def test_a_handler_that_fails_on_known_good_rows_too_stops_the_worker_and_rejects_nothing(
    step, stage, act, reason, message, monkeypatch
):
    rig = HandledPipeline(odd(**{step: act}))
    rig.score(records_of(*GOOD))
    monkeypatch.setattr(Odd, "always", True)
    with pytest.raises(HandlerFailed, match="the handler is at fault, not the records"):
        rig.score(records_of(*GOOD))
    monkeypatch.setattr(Odd, "always", False)
    rig.clock.advance(RETRY_S)
    assert len(rig.score(records_of(*GOOD)).predictions.values) == len(GOOD)


def test_before_the_first_good_batch_nothing_is_known_and_the_rows_are_rejected(monkeypatch):
    rig = HandledPipeline(odd(before=raising(ValueError("always"))))
    monkeypatch.setattr(Odd, "always", True)
    scored = rig.score(records_of(1.0, 2.0))
    assert letters_of(scored) == [(row, Stage.FEATURES, Reason.MODEL_ERROR) for row in range(2)]


def test_examples_are_known_to_be_good_from_the_first_batch_on(monkeypatch):
    made = odd(before=raising(ValueError("always")))
    made.examples = ({"x": 1.0}, {"x": 2.0})
    rig = HandledPipeline(made)
    monkeypatch.setattr(Odd, "always", True)
    with pytest.raises(HandlerFailed, match="known good rows fail too: preprocess raised ValueError: always"):
        rig.score(records_of(4.0))


@pytest.mark.parametrize("mask", [True, False], ids=["mask", "positions"])
@pytest.mark.parametrize(("step", "stage"), [("preprocess", Stage.FEATURES), ("postprocess", Stage.OUTPUT)])
def test_a_handler_rejects_rows_by_its_own_reasons(mask, step, stage):
    class Picky(Plain):
        def preprocess(self, batch):
            return self._judged("preprocess", super().preprocess(batch), lambda made: made["X"][:, 0] / 10)

        def postprocess(self, outputs):
            return self._judged("postprocess", super().postprocess(outputs), lambda made: made["p"])

        def _judged(self, which, made, number):
            if which == step:
                numbers = number(made)
                for low, reason in ((0.75, Reason.OUT_OF_RANGE), (0.35, "expired")):
                    unwanted = numbers >= low
                    if unwanted.any() and len(numbers) > 1:
                        raise RejectRows(unwanted if mask else np.flatnonzero(unwanted), reason, f"above {low}")
            return made

    scored = HandledPipeline(Picky).score(records_of(1.0, 8.0, 4.0, 2.0, 8.0))
    assert letters_of(scored) == [
        (1, stage, Reason.OUT_OF_RANGE), (2, stage, Reason.EXPIRED), (4, stage, Reason.OUT_OF_RANGE),
    ]  # fmt: skip
    assert message_of(scored.dead_letters[0]) == "above 0.75"
    assert predicted(scored) == [(0, 0, 0.1), (3, 0, 0.2)]


def test_a_batch_that_is_rejected_as_a_whole_leaves_dead_letters_only():
    scored = HandledPipeline(odd(before=raising(RejectRows([0], "expired", "late")))).score(records_of(BAD, BAD, BAD))
    assert letters_of(scored) == [(row, Stage.FEATURES, Reason.EXPIRED) for row in range(3)]
    assert scored.predictions.values == []


def test_a_reason_that_is_not_on_the_list_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="'because' is not a valid Reason"):
        RejectRows([0], "because", "so")


def test_an_answer_of_the_model_that_is_not_finite_never_reaches_the_handler():
    scored = HandledPipeline(Plain).score(records_of(1.0, SICK))
    assert letters_of(scored) == [(1, Stage.OUTPUT, Reason.BAD_OUTPUT)]


def test_bad_fields_stop_the_worker_if_they_are_to():
    policy = ChainPolicy(OutputPolicy("stop"))
    rig = HandledPipeline(odd(after=lambda given, good: good | {"p": good["p"] + 2}), policy=policy)
    with pytest.raises(OutputRefused, match=r"the handler gave .* and bad_output is stop"):
        rig.score(records_of(1.0, BAD))


def test_a_buffer_that_is_filled_again_spoils_no_batch_before():
    class Frugal(Plain):
        def initialize(self, context):
            self.buffer = np.zeros((64, 1), np.float32)

        def preprocess(self, batch):
            made = self.buffer[: batch.num_rows]
            made[:] = super().preprocess(batch)["X"]
            return {"X": made}

    rig = HandledPipeline(Frugal)
    first, second = (rig.prepare(records_of(x, x)) for x in (1.0, 8.0))
    scored = [rig.chain.finish(rig.chain.answer(prepared)) for prepared in (first, second)]
    assert [predicted(one)[0] for one in scored] == [(0, 0, 0.1), (0, 1, 0.8)]


def test_one_thread_at_a_time_is_inside():
    class Watched(Plain):
        inside = most = 0

        def preprocess(self, batch):
            Watched.inside += 1
            Watched.most = max(Watched.most, Watched.inside)
            if batch.num_rows == 2:
                beside = Thread(target=self.again)
                beside.start()
                beside.join(0.05)
                assert beside.is_alive()
                threads.append(beside)
            Watched.inside -= 1
            return super().preprocess(batch)

        def again(self):
            rig.prepare(records_of(5.0))

    threads = []
    rig = HandledPipeline(Watched)
    assert len(rig.score(records_of(1.0, 2.0)).predictions.values) == 2
    (beside,) = threads
    beside.join()
    assert Watched.most == 1


def test_each_version_has_its_own_handler_and_knows_which_it_serves():
    class Signed(Plain):
        def postprocess(self, outputs):
            made = super().postprocess(outputs)
            return made | {"p": np.full(len(made["p"]), int(self.context.version) / 10)}

    rig = HandledPipeline(Signed, model_of("4"), model_of("5"), page=canary_page("4", "5", 50, 2))
    scored = rig.score([event(1.0, offset) for offset in range(40)])
    found = {(row["model_version"], row["answered_by"], row["p"]) for _, row in rows_of(scored)}
    assert found == {("4", "stable", 0.4), ("5", "canary", 0.5)}


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("previous", [True, False])
def test_a_handler_at_fault_is_its_version_failing_and_the_fallback_answers(step, previous, monkeypatch):
    class Broken(odd(**{step: raising(ValueError("broken"))})):
        @property
        def always(self):
            return Broken.on and self.context.version == "5"

        on = False

        def preprocess(self, batch):
            good = Plain.preprocess(self, batch)
            return self.before(batch, good) if self.always else good

        def postprocess(self, outputs):
            good = Plain.postprocess(self, outputs)
            return self.after(outputs, good) if self.always else good

    page = stable_page("5", revision=2, previous="4")
    policy = ChainPolicy(fallback=FallbackPolicy(previous=previous, then="dead_letter"))
    rig = HandledPipeline(Broken, model_of("5"), model_of("4"), page=page, policy=policy)
    assert {row["model_version"] for _, row in rows_of(rig.score(records_of(1.0, 2.0)))} == {"5"}
    Broken.on = True
    scored = rig.score(records_of(1.0, 2.0))
    if previous:
        assert {(row["model_version"], row["answered_by"]) for _, row in rows_of(scored)} == {("4", "fallback")}
    else:
        assert letters_of(scored) == [(row, Stage.MODEL, Reason.MODEL_ERROR) for row in range(2)]


@pytest.mark.parametrize("step", ["preprocess", "postprocess"])
def test_a_step_that_is_not_overridden_is_the_manifests(step):
    one_side = type("OneSide", (Plain,), {step: getattr(Plain.__mro__[1], step)})
    plan, outputs = start(one_side)
    assert (type(plan).__name__ == "FeaturePlan") == (step == "preprocess")
    assert (outputs is None) == (step == "postprocess")
    scored = HandledPipeline(one_side).score(records_of(1.0, 8.0))
    assert predicted(scored) == [(0, 0, 0.1), (1, 1, 0.8)]


def test_a_class_that_inherits_nothing_will_do():
    free = type("Free", (), {name: getattr(Plain, name) for name in ("initialize", "preprocess", "postprocess")})

    class Unrelated(free):
        preprocess = lambda self, batch: {"X": np.full((batch.num_rows, 1), 2, np.float32)}  # noqa: E731

        def postprocess(self, outputs):
            return {"label": np.zeros(len(outputs["P"]), int), "p": outputs["P"][:, 0]}

    assert predicted(HandledPipeline(Unrelated).score(records_of(1.0))) == [(0, 0, 0.8)]


P, Q = 0.75, 0.25
SAID = {
    "class": ("label", np.array(["yes", "no"])),
    "positive": ("yes", np.array([True, False])),
    "probability": ("p", np.array([P, Q])),
    "probabilities": ("ps", np.array([[Q, P], [P, Q]])),
}


@pytest.mark.parametrize("quantity", SAID)
def test_metrics_and_comparisons_are_told_the_class_whatever_field_says_it(quantity):
    name, column = SAID[quantity]
    output = ProbabilitiesOutput(name="P", classes=("no", "yes"), fields={name: quantity})
    model = FakeModel(INPUTS, (output,), tenths)
    steps = {
        "postprocess": lambda self, outputs: {name: column},
        "preprocess": Handler.preprocess,
    }
    _, outputs = start(type("Made", (Plain,), steps), model)
    inference = outputs.infer(model, {"X": GOLDEN["X"]}, np.arange(2), OutputPolicy())
    assert inference.results == {"no": 1, "yes": 1}
    assert inference.winner.tolist() == [1, 0]
    assert (inference.confidence is None) == (quantity in {"class", "positive"})
    if inference.confidence is not None:
        assert inference.confidence.tolist() == [P, P]
    assert answer_of(inference, (output,)).classes().tolist() == ["yes", "no"]


def test_a_manifest_whose_fields_do_not_tell_the_class_takes_no_handler_of_its_outputs():
    output = ProbabilitiesOutput(name="P", classes=(0, 1), fields={"sure": "confidence"})
    with pytest.raises(HandlerInvalid, match="no field of the manifest's output 'P' tells the class"):
        start(Plain, FakeModel(INPUTS, (output,), tenths))


@pytest.mark.parametrize(("clip", "values", "predicted_rows"), [(True, [0.0, 4.0, 9.0], 3), (False, [4.0], 1)])
def test_values_out_of_bounds_are_clipped_if_the_policy_says_so(clip, values, predicted_rows):
    output = ValueOutput(name="P", min=0, max=9)
    model = FakeModel(INPUTS, (output,), lambda tensors: {"P": tensors["X"][:, 0]})
    shift = {"postprocess": lambda self, outputs: {"value": outputs["P"] * 2 - 4}, "preprocess": Handler.preprocess}
    _, outputs = start(type("Made", (Plain,), shift), model, {"X": np.array([[4.0]], np.float32)})
    tensors = {"X": np.array([[1.0], [4.0], [8.0]], np.float32)}
    inference = outputs.infer(model, tensors, np.arange(3), OutputPolicy("clip" if clip else "dead_letter"))
    assert inference.fields["value"].tolist() == values
    assert len(inference.rows) == predicted_rows == 3 - len(inference.rejected)


def test_a_shadows_candidate_has_a_handler_too():
    class Doubtful(Plain):
        def preprocess(self, batch):
            made = super().preprocess(batch)
            if (made["X"] == BAD).any():
                raise ValueError("three")
            return made

        def postprocess(self, outputs):
            made = super().postprocess(outputs)
            return {"label": 1 - made["label"], "p": 1 - made["p"]}

    model = model_of("2")
    published = []
    scorer = ShadowScorer(
        model,
        COLUMNS,
        WRITER,
        lambda values, keys: published.extend(values) or 0,
        ManualClock(),
        start(Doubtful, model),
    )
    compared = scorer.score(rows_of_numbers([2.0, BAD, 5.0]))
    assert (compared.agreed, compared.disagreed, compared.failed) == (0, 2, 1)
    assert len(published) == 3


OUTCOMES = ("good", "raises", "rejects", "nan", "raises late", "rejects late", "bad late")


@given(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=40))
def test_each_record_has_one_outcome_whatever_its_neighbours_do(kinds):
    numbers = dict(zip(OUTCOMES, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], strict=True))

    class Mixed(Plain):
        examples = ({"x": 1.0},)

        def preprocess(self, batch):
            made = super().preprocess(batch)["X"]
            if (made == 2).any():
                raise ValueError("two")
            if (made == 3).any():
                raise RejectRows((made == 3)[:, 0], Reason.EXPIRED, "three")
            made[made == 4] = np.nan
            return {"X": made}

        def postprocess(self, outputs):
            made = super().postprocess(outputs)
            tenths = np.rint(made["p"] * 10)
            if (tenths == 5).any():
                raise SystemExit(5)
            if (tenths == 6).any():
                raise RejectRows(tenths == 6, "unknown_category", "six")
            return made | {"p": np.where(tenths == 7, np.nan, made["p"])}

    expected = {
        "raises": (Stage.FEATURES, Reason.MODEL_ERROR), "rejects": (Stage.FEATURES, Reason.EXPIRED),
        "nan": (Stage.FEATURES, Reason.NOT_FINITE), "raises late": (Stage.OUTPUT, Reason.MODEL_ERROR),
        "rejects late": (Stage.OUTPUT, Reason.UNKNOWN_CATEGORY), "bad late": (Stage.OUTPUT, Reason.BAD_OUTPUT),
    }  # fmt: skip
    scored = HandledPipeline(Mixed).score(records_of(*(numbers[kind] for kind in kinds)))
    assert letters_of(scored) == [(row, *expected[kind]) for row, kind in enumerate(kinds) if kind != "good"]
    assert predicted(scored) == [(row, 0, 0.1) for row, kind in enumerate(kinds) if kind == "good"]
    (outcomes,) = scored.outcomes
    assert outcomes.records == len(kinds)
    assert sum(outcomes.results.values()) == outcomes.predicted
