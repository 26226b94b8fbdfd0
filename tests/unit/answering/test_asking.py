"""Who answers while a version itself fails, and that nobody does unless the pipeline says so."""

import numpy as np
import pytest
from made_pages import ab_page, canary_page, stable_page
from small_pipeline import RETRY_S, SICK, SmallPipeline, event, model_of, read

from app.answering.asking import FallbackPolicy
from app.errors import ModelFailed, OutputRefused, Reason, Stage
from app.pipeline.infer import OutputPolicy
from app.specs import InputSpec, NumberFeature
from app.worker.chain import ChainPolicy

ALL = FallbackPolicy(previous=True, constant=True, then="dead_letter")
CONSTANT = {"label": 1, "p": 0.5}


class Moody:
    """A version that is at fault when told to be; otherwise it answers with its number in tenths."""

    def __init__(self, version, **rest):
        self.model = model_of(version, self, **rest)
        self.p = int(version) / 10

    def __call__(self, tensors):
        if self.model.at_fault:
            raise ModelFailed(f"version {self.model.version} is broken")
        return {"P": np.tile([[1 - self.p, self.p]], (len(tensors["X"]), 1))}

    @property
    def batches(self):
        return len(self.model.seen)


def moody(*versions, page, fallback, constant=None, outputs=None):
    """A pipeline of such versions, and the versions."""
    many = [Moody(version) for version in versions]
    policy = ChainPolicy(outputs or OutputPolicy(), fallback=fallback)
    return SmallPipeline(*(one.model for one in many), page=page, policy=policy, constant=constant), many


def answered(scored):
    return [(a["model_version"], a["answered_by"], pytest.approx(a["p"])) for a in read(scored.predictions.values)]


RECORDS = [event(1.0, offset) for offset in range(4)]
PAGE = stable_page("3", revision=5, previous="2")


def test_by_default_a_version_at_fault_stops_the_worker():
    rig, (third, second) = moody("3", "2", page=PAGE, fallback=FallbackPolicy())
    third.model.at_fault = True
    for _ in range(2):
        with pytest.raises(ModelFailed, match="at fault"):
            rig.score(RECORDS)
    assert second.batches == 0


def test_a_version_that_is_only_tried_out_never_stops_the_worker():
    page = canary_page("2", "3", 100, previous="1")
    rig, (_, second, third) = moody("1", "2", "3", page=page, fallback=FallbackPolicy())
    third.model.at_fault = True
    scored = rig.score(RECORDS)
    assert answered(scored) == [("2", "fallback", 0.2)] * 4
    second.model.at_fault = True
    with pytest.raises(ModelFailed, match="at fault"):  # nor does the version before stable answer unasked
        rig.score(RECORDS)


def test_the_version_before_answers_and_says_so():
    rig, (third, _) = moody("3", "2", page=PAGE, fallback=ALL)
    third.model.at_fault = True
    scored = rig.score(RECORDS)
    assert answered(scored) == [("2", "fallback", 0.2)] * 4
    (outcomes,) = scored.outcomes
    assert (outcomes.version, outcomes.answered_by, outcomes.predicted) == ("2", "fallback", 4)
    assert [(asked.version, asked.failed) for asked in scored.scored.asked] == [("3", True), ("2", False)]
    assert {answer["rollout_revision"] for answer in read(scored.predictions.values)} == {5}


def test_a_version_that_failed_is_not_asked_with_every_batch_and_comes_back():
    rig, (third, second) = moody("3", "2", page=PAGE, fallback=ALL)
    third.model.at_fault = True
    for _ in range(5):
        rig.score(RECORDS)
    assert (third.batches, second.batches) == (1, 5)
    rig.clock.advance(RETRY_S)
    assert answered(rig.score(RECORDS)) == [("2", "fallback", 0.2)] * 4
    assert third.batches == 2  # the probe
    third.model.at_fault = False
    assert answered(rig.score(RECORDS)) == [("2", "fallback", 0.2)] * 4
    rig.clock.advance(RETRY_S)
    assert answered(rig.score(RECORDS)) == answered(rig.score(RECORDS)) == [("3", "stable", 0.3)] * 4


def test_a_failing_canary_is_answered_by_stable_first_and_stable_is_not_disturbed():
    rig, (first, second, third) = moody("1", "2", "3", page=canary_page("2", "3", 50, previous="1"), fallback=ALL)
    third.model.at_fault = True
    records = [event(1.0, offset) for offset in range(60)]
    scored = rig.score(records)
    found = {who for *who, _ in map(list, answered(scored)) for who in [tuple(who)]}
    assert found == {("2", "stable"), ("2", "fallback")}
    assert [answer["source_offset"] for answer in read(scored.predictions.values)] == list(range(60))
    second.model.at_fault = True
    rig.clock.advance(RETRY_S)
    assert {who[:2] for who in answered(rig.score(records))} == {("1", "fallback")}
    assert first.batches == 2  # once for each arm


def test_when_all_versions_fail_the_manifests_constant_answers():
    rig, many = moody("3", "2", page=PAGE, fallback=ALL, constant=CONSTANT)
    for one in many:
        one.model.at_fault = True
    scored = rig.score(RECORDS)
    assert answered(scored) == [("3", "fallback", 0.5)] * 4
    assert [answer["label"] for answer in read(scored.predictions.values)] == [1] * 4
    (outcomes,) = scored.outcomes
    assert outcomes.results == {"1": 4}
    rig.score(RECORDS)
    assert [one.batches for one in many] == [1, 1]


def test_when_nobody_answers_the_rows_are_dead_lettered_as_model_errors():
    rig, many = moody("3", "2", page=PAGE, fallback=ALL)
    for one in many:
        one.model.at_fault = True
    for _ in range(2):  # the second time nobody is asked
        scored = rig.score(RECORDS)
        assert scored.predictions.values == []
        assert [(letter.stage, letter.reason) for letter in scored.dead_letters] == [
            (Stage.MODEL, Reason.MODEL_ERROR)
        ] * 4
        headers = dict(scored.dead_letters[0].headers)
        assert headers["inference.model_version"] == b"3"
        assert b"at fault" in headers["__connect.errors.exception.message"]
        assert sum(outcomes.dead_lettered for outcomes in scored.outcomes) == 4


def test_when_nobody_answers_and_that_is_to_stop_it_stops_even_while_nobody_is_asked():
    policy = FallbackPolicy(previous=True, constant=True, then="stop")
    rig, many = moody("3", "2", page=PAGE, fallback=policy)
    for one in many:
        one.model.at_fault = True
    for _ in range(2):
        with pytest.raises(ModelFailed, match="at fault"):
            rig.score(RECORDS)


def test_a_constant_alone_needs_no_other_version():
    rig, (third,) = moody("3", page=stable_page("3"), fallback=FallbackPolicy(constant=True), constant=CONSTANT)
    third.model.at_fault = True
    assert answered(rig.score(RECORDS)) == [("3", "fallback", 0.5)] * 4


def test_without_the_version_before_the_chain_is_shorter():
    rig, (third,) = moody("3", page=PAGE, fallback=ALL, constant=CONSTANT)
    third.model.at_fault = True
    assert answered(rig.score(RECORDS)) == [("3", "fallback", 0.5)] * 4


def test_the_version_before_makes_its_own_features_and_rejects_by_them():
    strict = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=5),)),)
    third, second = Moody("3"), Moody("2", inputs=strict)
    rig = SmallPipeline(third.model, second.model, page=PAGE, policy=ChainPolicy(fallback=ALL))
    third.model.at_fault = True
    scored = rig.score([event(x, offset) for offset, x in enumerate([1.0, 11.0, 8.0, 2.0])])
    assert [answer["source_offset"] for answer in read(scored.predictions.values)] == [0, 3]
    letters = [(letter.reason, dict(letter.headers)["inference.model_version"]) for letter in scored.dead_letters]
    assert letters == [(Reason.OUT_OF_RANGE, b"3"), (Reason.OUT_OF_RANGE, b"2")]
    np.testing.assert_array_equal(second.model.seen[0]["X"][:, 0], [1.0, 2.0])


def test_a_row_that_a_sound_version_fails_on_is_no_reason_to_ask_another():
    rig, (third, second) = moody("3", "2", page=PAGE, fallback=ALL)

    def allergic(tensors):
        if (tensors["X"] == 3.0).any():
            raise ModelFailed("cannot do 3")
        return {"P": np.tile([[0.7, 0.3]], (len(tensors["X"]), 1))}

    third.model.answer = allergic
    scored = rig.score([event(1.0, 0), event(3.0, 1), event(2.0, 2)])
    assert [answer["source_offset"] for answer in read(scored.predictions.values)] == [0, 2]
    assert [letter.reason for letter in scored.dead_letters] == [Reason.MODEL_ERROR]
    assert second.batches == 0


def test_bad_outputs_that_are_to_stop_the_worker_stop_it_whatever_the_fallback():
    policy = ChainPolicy(OutputPolicy("stop"), fallback=ALL)
    rig = SmallPipeline(model_of("3"), model_of("2"), page=PAGE, policy=policy)
    with pytest.raises(OutputRefused, match="bad_output is stop"):
        rig.score([event(SICK, 0)])


TRIED_OUT = {
    "canary": canary_page("2", "3", 100),
    "arms": ab_page("2", {"left": ("3", 1), "right": ("3", 1)}),
}


def nan(tensors):
    return {"P": np.full((len(tensors["X"]), 2), np.nan)}


@pytest.mark.parametrize("what", ["canary", "arms"])
def test_a_bad_output_of_what_is_only_tried_out_stops_no_worker_and_counts_against_it(what):
    policy = ChainPolicy(OutputPolicy("stop"))
    rig = SmallPipeline(model_of("2"), model_of("3", nan), page=TRIED_OUT[what], policy=policy)
    for _ in range(2):  # the second time it is not asked
        scored = rig.score(RECORDS)
        assert {who[:2] for who in answered(scored)} == {("2", "fallback")}
        blamed = [asked for asked in scored.scored.asked if asked.version == "3"]
        assert sum(asked.rows_failed for asked in blamed) == len(RECORDS)
    with pytest.raises(OutputRefused, match=r"version 2 answered .*bad_output is stop"):
        rig.score([event(SICK, 0)])  # stable's own, in the canary's place


def test_a_bad_output_of_the_version_before_stops_no_worker_while_it_stands_in():
    policy = ChainPolicy(OutputPolicy("stop"), fallback=ALL)
    third, second = Moody("3"), model_of("2", nan)
    rig = SmallPipeline(third.model, second, page=PAGE, policy=policy, constant=CONSTANT)
    third.model.at_fault = True
    assert answered(rig.score(RECORDS)) == [("3", "fallback", 0.5)] * 4


def test_an_arm_of_an_experiment_that_fails_is_answered_by_stable():
    page = ab_page("1", {"left": ("2", 1), "right": ("3", 1)})
    rig, (_, second, _) = moody("1", "2", "3", page=page, fallback=ALL)
    second.model.at_fault = True
    records = [event(1.0, offset) for offset in range(60)]
    assert {who[:2] for who in answered(rig.score(records))} == {("1", "fallback"), ("3", "right")}
