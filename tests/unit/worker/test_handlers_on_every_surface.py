"""The same rows by the steps of the stream, of requests and of files: one handler, one chain, the same answers."""

import asyncio
import pickle
from dataclasses import dataclass

import pyarrow as pa
import pytest
from fakes import ManualClock
from handler_world import BAD, GOLDEN, HandledPipeline, Odd, Plain, named, odd, raising
from hypothesis import given
from hypothesis import strategies as st
from made_pages import canary_page, stable_page
from small_pipeline import COLUMNS, RETRY_S, SICK, event, model_of, read
from test_handled_rows import GOOD, STEPS

from app.answering.asking import FallbackPolicy
from app.answering.lineup import lineup_of
from app.errors import BadSettings, HandlerFailed, HandlerInvalid, SchemaIncompatible
from app.handler import Handler, RejectRows
from app.pipeline.infer import OutputPolicy
from app.scoring.arrow_function import ArrowFunction
from app.scoring.file_lanes import file_lane
from app.scoring.keys import key_column
from app.scoring.scorer import Scorer
from app.scoring.steps import Steps
from app.serving.core import OnlineCore
from app.serving.online_policy import OnlinePolicy
from app.serving.question import Question
from app.worker.chain import ChainPolicy

ALWAYS = FallbackPolicy(previous=True, constant=True, then="dead_letter")
CONSTANT = {"label": 1, "p": 0.75}
KINDS = {
    "a generator", "one name too many", "a row too few", "a row too many", "ValueError", "SystemExit", "float64",
    "a verdict on row -1", "two columns", "NaN", "mutated input", "labels that are none", "probability NaN",
}  # fmt: skip
ODDITIES = [step for step in STEPS if step.id.partition(": ")[2] in KINDS]  # all of them are `test_handled_rows`'


class Unobserved:
    """An OnlineObserver that looks away."""

    def batch_scored(self, fact):
        pass

    def committed(self, fact):
        pass


@dataclass(frozen=True)
class Rows:
    """By row: (version, part, label, p) of the answered, (stage, reason) of the others."""

    answered: dict
    rejected: dict

    def is_as(self, other):
        """p: None where it is not told."""
        assert self.rejected == other.rejected
        assert self.answered.keys() == other.answered.keys()
        for row, (*who, p) in self.answered.items():
            *expected, p_there = other.answered[row]
            assert who == expected
            assert p is None or p == pytest.approx(p_there, abs=1e-6)
        return True


class Surfaces:
    """One page, one handler, in each of the three places where rows are answered; nothing else is theirs together."""

    def __init__(self, kind, *models, page=None, fallback=None, constant=None, outputs=None):
        models = models or (model_of("4"),)
        page, fallback, outputs = page or stable_page("4"), fallback or FallbackPolicy(), outputs or OutputPolicy()
        clock, policy = ManualClock(), ChainPolicy(outputs, fallback=fallback)
        self._stream, beside = (
            HandledPipeline(kind, *models, page=page, constant=constant, policy=policy) for _ in range(2)
        )
        self._core = OnlineCore("churn", COLUMNS, OnlinePolicy(outputs=outputs, fallback=fallback), clock, Unobserved())
        self._core.serve(lineup_of(page, beside.lanes))
        steps = Steps(named(kind), COLUMNS, "Event", outputs, fallback, RETRY_S)
        lanes = {model.version: file_lane(model, steps, clock, constant, GOLDEN) for model in models}
        self.files = Scorer(page, lanes, clock, steps)

    def stream(self, numbers):
        scored = self._stream.score([event(x, offset) for offset, x in enumerate(numbers)])
        rows = zip(scored.predictions.keys, read(scored.predictions.values), strict=True)
        return Rows(
            {int(key): (row["model_version"], row["answered_by"], row["label"], row["p"]) for key, row in rows},
            {int(letter.key): (letter.stage, letter.reason) for letter in scored.dead_letters},
        )

    def requests(self, numbers):
        keys = [str(row) for row in range(len(numbers))]
        question = Question(instances=[{"x": x} for x in numbers], keys=keys)
        answers = asyncio.run(self._core.ask(question))
        found = {}
        for row in range(len(numbers)):
            if row not in answers.rejected:
                label, source = int(answers.predictions[row]), answers.source_of(row)
                # requests are told how sure it is, not the field `p`; a constant is not told at all
                sure = None if answers.confidence is None else answers.confidence[row]
                found[row] = (source.version, source.part, label, None if sure is None else sure if label else 1 - sure)
        return Rows(found, {row: (why.stage, why.reason) for row, why in answers.rejected.items()})

    def score(self, numbers):
        table = columns_of(numbers)
        scored = self.files.score(table, key_column(table, "key"))
        return Rows(
            {
                row: (answer["model_version"], answer["answered_by"], answer["label"], answer["p"])
                for row, answer in zip(scored.rows.tolist(), scored.answers.to_pylist(), strict=True)
            },
            {item.row: (item.stage, item.reason) for item in scored.rejected},
        )

    def all(self, numbers):
        """What became of them, the same everywhere."""
        found = self.stream(numbers)
        assert self.score(numbers).is_as(found)
        assert self.requests(numbers).is_as(found)
        return found


def columns_of(numbers):
    """As a file has them: keys as the events', and no column `id`, which no handler here looks at."""
    return pa.RecordBatch.from_pydict(
        {"key": [str(row) for row in range(len(numbers))], "x": pa.array(numbers, pa.float64())}
    )


@pytest.mark.parametrize(("step", "stage", "act", "reason", "message"), ODDITIES)
def test_rows_that_a_handler_fails_on_are_rejected_for_the_same_reason(step, stage, act, reason, message):
    rig = Surfaces(odd(**{step: act}))
    rig.all(GOOD)
    found = rig.all([1.0, 2.0, BAD, 4.0, BAD, 8.0])
    assert found.rejected == {2: (stage, reason), 4: (stage, reason)}
    assert found.answered.keys() == {0, 1, 3, 5}


@pytest.mark.parametrize("then", ["stop", "dead_letter"])
@pytest.mark.parametrize("step", ["before", "after"])
def test_a_handler_at_fault_rejects_nobody_unless_its_pipeline_says_so(step, then, monkeypatch):
    rig = Surfaces(odd(**{step: raising(ValueError("always"))}), fallback=FallbackPolicy(then=then))
    rig.all(GOOD)
    monkeypatch.setattr(Odd, "always", True)
    if then == "dead_letter":
        assert rig.all(GOOD).rejected.keys() == set(range(len(GOOD)))
        return
    for surface in (rig.stream, rig.requests, rig.score):
        with pytest.raises(HandlerFailed, match="the handler is at fault, not the records"):
            surface(GOOD)


def test_each_version_has_a_handler_of_its_own_and_a_key_meets_the_same_one():
    class Versioned(Plain):
        def postprocess(self, outputs):
            made = super().postprocess(outputs)
            return made if self.context.version == "1" else {"label": 1 - made["label"], "p": 1 - made["p"]}

    page = canary_page("1", "2", 50, 3)
    numbers = [float(row % 8) for row in range(64)]
    found = Surfaces(Versioned, model_of("1"), model_of("2"), page=page).all(numbers)
    chosen = page.choose([str(row).encode() for row in range(64)])
    for row, (version, part, _, p) in found.answered.items():
        assert (version, part) == (("1", "stable"), ("2", "canary"))[chosen[row]]
        assert p == pytest.approx(numbers[row] / 10 if version == "1" else 1 - numbers[row] / 10)


class AtFaultIn(Plain):
    """Fails on everything, once `armed`, in these versions."""

    examples = ({"x": 1.0},)
    versions, armed = frozenset(), False

    def preprocess(self, batch):
        if AtFaultIn.armed and self.context.version in AtFaultIn.versions:
            raise RuntimeError("at fault")
        return super().preprocess(batch)


CHAIN = {
    "a candidate": ({"3"}, {"stable": ("2", "stable"), "canary": ("2", "fallback")}),
    "stable": ({"2"}, {"stable": ("1", "fallback"), "canary": ("3", "canary")}),
    "both": ({"2", "3"}, {"stable": ("1", "fallback"), "canary": ("1", "fallback")}),
    "all": ({"1", "2", "3"}, {"stable": ("2", "fallback"), "canary": ("3", "fallback")}),  # the constant of each
}


@pytest.mark.parametrize("failing", CHAIN)
def test_the_fallback_chain_is_the_same_and_says_who_answered(failing, monkeypatch):
    versions, expected = CHAIN[failing]
    page = canary_page("2", "3", 50, 3, previous="1")
    rig = Surfaces(AtFaultIn, *(model_of(version) for version in "231"), page=page, fallback=ALWAYS, constant=CONSTANT)
    numbers = GOOD * 8
    assert {who[:2] for who in rig.all(numbers).answered.values()} == {("2", "stable"), ("3", "canary")}
    monkeypatch.setattr(AtFaultIn, "versions", frozenset(versions))
    monkeypatch.setattr(AtFaultIn, "armed", True)
    found = rig.all(numbers)
    arms = page.choose([str(row).encode() for row in range(len(numbers))])
    assert {row: who[:2] for row, who in found.answered.items()} == {
        row: expected[("stable", "canary")[arm]] for row, arm in enumerate(arms)
    }
    if failing == "all":
        assert {(label, p) for _, _, label, p in found.answered.values()} == {(1, 0.75)}
    assert not found.rejected


@given(st.lists(st.one_of(st.floats(0, 8), st.sampled_from([BAD, SICK, None, float("nan"), -1.0])), max_size=30))
def test_whatever_the_rows_their_outcomes_are_the_same(numbers):
    class Choosy(Plain):
        def preprocess(self, batch):
            made = super().preprocess(batch)
            if (made["X"] == BAD).any():
                raise RejectRows((made["X"] == BAD)[:, 0], "expired", "it is three")
            if (made["X"] < 0).any():
                return {"X": made["X"][1:]}
            return made

    if numbers:
        found = Surfaces(Choosy).all(numbers)
        assert sorted([*found.answered, *found.rejected]) == list(range(len(numbers)))


def test_a_function_that_was_sent_to_another_process_answers_by_its_handler():
    class Load:
        """Stands for the order to load from a store; both ends of this test are one process."""

        def __call__(self):
            return Surfaces(Plain).files

    function = ArrowFunction(Load(), "key", ("key",))
    rows = function(columns_of([1.0, 8.0, None])).to_pylist()
    assert [row["label"] for row in rows] == [0, 1, None]
    assert [row["rejected_reason"] for row in rows] == [None, None, "not_finite"]
    steps = Steps(named(Plain), COLUMNS)
    assert pickle.loads(pickle.dumps(steps)) == steps
    assert hash(pickle.loads(pickle.dumps(steps))) == hash(steps)


# ------------------------------------------------------------------------------------------ of files alone


def test_a_handler_is_given_all_columns_that_events_have_and_those_a_file_lacks_are_null():
    seen = []

    class Looks(Plain):
        def preprocess(self, batch):
            seen.append(batch)
            return super().preprocess(batch)

    Surfaces(Looks).score([1.0])
    assert seen[-1].schema == COLUMNS
    assert seen[-1].column("id").to_pylist() == [None]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1, 8], pa.int16()), [0.1, 0.8]),
        (pa.array(["1", " 8 "]), [0.1, 0.8]),
        (pa.array(["1", "8"]).dictionary_encode(), [0.1, 0.8]),
        (pa.array([1, 8], pa.float32()), [0.1, 0.8]),
        (pa.array([None, 8.0]), [None, 0.8]),
        (pa.array(["one", "8"]), [None, 0.8]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_columns_of_other_types_become_those_of_events_or_reject_their_row(column, said):
    scored = Surfaces(Plain).files.score(pa.RecordBatch.from_pydict({"x": column}))
    found = [None] * 2
    for row, p in zip(scored.rows.tolist(), scored.answers["p"].to_pylist(), strict=True):
        found[row] = p
    assert found == [None if p is None else pytest.approx(p) for p in said]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"y": [1.0]}, "none of the events' columns: id, x"),
        ({"x": pa.array([[1.0]])}, "the column 'x' is list<item: double>, events have double"),
        ({"x": pa.array([{"a": 1.0}])}, "the column 'x' is struct<a: double>, events have double"),
    ],
)
def test_columns_that_never_become_events_are_named(columns, said):
    table, files = pa.RecordBatch.from_pydict(columns), Surfaces(Plain).files
    with pytest.raises(SchemaIncompatible, match=said):
        files.check(table.schema)
    with pytest.raises(SchemaIncompatible, match=said):
        files.score(table)


def test_without_a_preprocess_of_its_own_columns_are_those_of_the_manifest():
    class OutputsOnly(Plain):
        preprocess = Handler.preprocess

    files = Surfaces(OutputsOnly).files
    assert files.fields == ["x"]
    assert files.fields_in(["x", "z"]) == ["x"]
    assert files.score(columns_of([8.0])).answers["label"].to_pylist() == [1]


def test_a_version_of_other_events_is_refused_as_the_worker_does():
    steps = Steps(named(Plain), COLUMNS, "OtherEvent")
    with pytest.raises(SchemaIncompatible, match="is for the event schema Event, the others for OtherEvent"):
        file_lane(model_of("4"), steps, ManualClock(), None, GOLDEN)


def test_a_handler_that_cannot_be_had_is_named():
    with pytest.raises(HandlerInvalid, match="'nowhere_at_all:Any' cannot be imported"):
        file_lane(model_of("4"), Steps("nowhere_at_all:Any", COLUMNS), ManualClock(), None, GOLDEN)


def test_a_handler_without_events_is_a_bad_setting():
    with pytest.raises(BadSettings, match="no events are named"):
        Steps("some:Any")
