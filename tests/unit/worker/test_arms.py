"""Several versions at once: every record is answered by the one that its key and the page say, and in its place."""

import numpy as np
import pytest
from fakes import FakeRecord
from hypothesis import given
from hypothesis import strategies as st
from made_pages import ab_page, blue_green_page, canary_page, stable_page
from small_pipeline import BYTES_HEADER, EVENT_HEADER, SmallPipeline, body, event, model_of, read

from app.errors import Reason, Stage
from app.specs import InputSpec, NumberFeature
from app.worker.chain import ChainPolicy

STRICT = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=5),)),)
KEYS = st.one_of(st.none(), st.binary(max_size=4))
PAGES = st.one_of(
    st.builds(canary_page, st.just("1"), st.just("2"), st.integers(1, 10_000).map(lambda n: n / 100)),
    st.builds(
        lambda a, b: ab_page("1", {"left": ("2", a), "right": ("3", b)}, revision=7),
        st.floats(0.1, 9),
        st.floats(0.1, 9),
    ),
    st.builds(stable_page, st.sampled_from("123"), st.integers(1, 9)),
    st.builds(blue_green_page, st.just("2"), st.just("3")),
)


def constant(p):
    return lambda tensors: {"P": np.tile([[1 - p, p]], (len(tensors["X"]), 1))}


def three(page, **rest):
    """Versions 1, 2 and 3 answer 0.1, 0.2 and 0.3."""
    return SmallPipeline(*(model_of(version, constant(int(version) / 10)) for version in "123"), page=page, **rest)


def expected(page, keys):
    """(version, answered_by) of each key, by the page alone."""
    choice = page.choose(keys)
    arms = page.arms
    return [(arms[arm].version, arms[arm].name) for arm in (np.zeros(len(keys), int) if choice is None else choice)]


@given(PAGES, st.lists(KEYS, min_size=1, max_size=60))
def test_each_record_is_answered_by_the_arm_its_key_gives_and_in_its_order(page, keys):
    rig = three(page)
    records = [event(7.0, offset, key=key) for offset, key in enumerate(keys)]
    scored = rig.score(records)
    answers = read(scored.predictions.values)
    assert [answer["source_offset"] for answer in answers] == list(range(len(keys)))
    assert scored.predictions.keys == keys
    assert [(answer["model_version"], answer["answered_by"]) for answer in answers] == expected(page, keys)
    assert {answer["rollout_revision"] for answer in answers} == {page.revision}
    assert [answer["p"] for answer in answers] == [pytest.approx(int(v) / 10) for v, _ in expected(page, keys)]


KINDS = st.sampled_from(["good", "high", "bad_frame", "tombstone", "other_schema"])


def record_of(kind, offset, key):
    value = {
        "good": EVENT_HEADER + body("e", 4.0),
        "high": EVENT_HEADER + body("e", 8.0),  # version 2 takes up to 5
        "bad_frame": b"\x07",
        "tombstone": None,
        "other_schema": BYTES_HEADER + b"\x02z" + body("e", 4.0),
    }[kind]
    return FakeRecord(value, offset=offset, key=key)


@given(st.integers(1, 99), st.lists(st.tuples(KINDS, KEYS), min_size=1, max_size=60))
def test_whatever_becomes_of_a_record_its_own_version_is_named_and_counted(percent, rows):
    page = canary_page("1", "2", percent)
    rig = SmallPipeline(model_of("1", constant(0.1)), model_of("2", constant(0.2), STRICT), page=page)
    records = [record_of(kind, offset, key) for offset, (kind, key) in enumerate(rows)]
    scored = rig.score(records)
    versions = [version for version, _ in expected(page, [key for _, key in rows])]

    predicted = {answer["source_offset"]: answer["model_version"] for answer in read(scored.predictions.values)}
    letters = {}
    for letter in scored.dead_letters:
        headers = dict(letter.headers)
        letters[int(headers["__connect.errors.offset"])] = headers["inference.model_version"].decode()
    assert list(letters) == sorted(letters)
    for offset, (kind, _) in enumerate(rows):
        refused = kind == "bad_frame" or (kind == "high" and versions[offset] == "2")
        assert letters.get(offset) == (versions[offset] if refused else None)
        assert predicted.get(offset) == (None if refused or kind == "tombstone" else versions[offset])

    assert sum(outcomes.records for outcomes in scored.outcomes) == len(rows)
    assert sum(len(outcomes.timestamps_ms) for outcomes in scored.outcomes) == len(rows)
    for outcomes in scored.outcomes:
        mine = [kind for (kind, _), version in zip(rows, versions, strict=True) if version == outcomes.version]
        assert (outcomes.records, outcomes.skipped) == (len(mine), mine.count("tombstone"))
        assert len(outcomes.timestamps_ms) == len(mine)
        assert outcomes.predicted == list(predicted.values()).count(outcomes.version)
        assert outcomes.rejected[Stage.DECODE, Reason.BAD_FRAME] == mine.count("bad_frame")


def test_a_version_is_asked_only_about_its_own_rows_and_about_none_if_it_has_none():
    page = canary_page("1", "2", 50)
    rig = three(page)
    keys = [str(n).encode() for n in range(200)]
    rig.score([event(1.0, offset, key=key) for offset, key in enumerate(keys)])
    asked = {lane.version: [len(seen["X"]) for seen in lane.answerer.model.seen] for lane in rig.lanes.values()}
    canaries = int(page.choose(keys).sum())
    assert asked == {"1": [200 - canaries], "2": [canaries], "3": []}
    (only,) = rig.score([event(1.0, 0, key=None)]).scored.asked
    assert only.version == "1"


class Private(FakeRecord):
    """Nobody may see its key."""

    def key(self):
        pytest.fail("the key was looked at")


def test_with_one_arm_no_key_is_looked_at():
    rig = three(blue_green_page("1", "2"))
    (part,) = rig.prepare([Private(EVENT_HEADER + body("e", 4.0))] * 3).parts
    assert part.rows.tolist() == [0, 1, 2]


def test_an_oversized_prediction_of_one_arm_leaves_the_others_in_order():
    page = canary_page("1", "2", 50)
    rig = three(page, policy=ChainPolicy(max_output_bytes=120))
    keys = [str(n).encode() * (150 if n == 7 else 1) for n in range(20)]
    scored = rig.score([event(1.0, offset, key=key) for offset, key in enumerate(keys)])
    assert [answer["source_offset"] for answer in read(scored.predictions.values)] == [n for n in range(20) if n != 7]
    (letter,) = scored.dead_letters
    assert letter.reason == Reason.OVERSIZED
    version, _ = expected(page, keys)[7]
    assert dict(letter.headers)["inference.model_version"] == version.encode()


def test_two_arms_of_the_same_version_are_told_apart():
    rig = three(ab_page("1", {"a": ("2", 1), "b": ("2", 1)}))
    records = [event(1.0, offset) for offset in range(100)]
    scored = rig.score(records)
    assert {answer["answered_by"] for answer in read(scored.predictions.values)} == {"a", "b"}
    assert {outcomes.answered_by for outcomes in scored.outcomes} == {"a", "b"}
    assert {outcomes.version for outcomes in scored.outcomes} == {"2"}
