"""What an event had, beside what was predicted from it."""

from itertools import pairwise

import pytest
from audit_world import FIRST, objects_in, pipeline_rows, prediction, schema
from fakes import NOW_MS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.features import with_features
from app.audit.files import encode
from app.audit.masking import Mask, check_names
from app.audit.policy import AuditSettings
from app.audit.rows import kept_fields
from app.audit.trail import FEATURES, Claim, Trail, day_of, file_path, parsed_path
from app.errors import BadSettings
from app.records import TopicPartition, origin_of

EVENTS = "churn.events"
KEY = b"c-1"
SECRET = b"0123456789abcdef"


def events(offsets, customer="c-1", **more):
    """Records as an events topic has them; what a field says tells where it was."""
    return [prediction(offset, customer, probability=offset / 4, **more) for offset in offsets]


def kept(folder, records, *, partition=0, mask=None, only=("probability", "plan")):
    """A trail of features with these records in one more file."""
    trail = Trail(objects_in(folder), "churn", FEATURES)
    rows = pipeline_rows(mask=mask, only=frozenset(only))
    source = TopicPartition(EVENTS, partition)
    first, last = records[0].offset(), records[-1].offset()
    path = file_path(trail.folder, source, day_of(20_000), first, last)
    trail.fill(Claim(first, last + 1, path), encode([rows.rows_of(records, origin_of(records, NOW_MS))]))
    return trail


def answer(offset, partition=0, topic=EVENTS, pipeline="churn"):
    return {"pipeline": pipeline, "source_topic": topic, "source_partition": partition, "source_offset": offset}


def features_of(found):
    return [row["features"] for row in found]


def test_an_answer_has_the_kept_fields_of_its_own_event(tmp_path):
    for start in (0, 3):
        trail = kept(tmp_path, events(range(start, start + 3), plan="premium"))
    found = with_features([answer(4), answer(1)], {"churn": trail}, KEY)
    assert features_of(found) == [{"probability": 1.0, "plan": "premium"}, {"probability": 0.25, "plan": "premium"}]


@pytest.mark.parametrize(
    "asked",
    [answer(9), answer(1, partition=1), answer(1, topic="other"), answer(1, pipeline="other"), {"pipeline": "churn"},
     answer(None), answer("1")],
    ids=["offset", "partition", "topic", "pipeline", "no provenance", "a masked offset", "a hashed offset"],
)  # fmt: skip
def test_of_an_event_that_is_not_there_an_answer_has_none(asked, tmp_path):
    trail = kept(tmp_path, events(range(3)))
    assert features_of(with_features([asked], {"churn": trail}, KEY)) == [None]


def test_the_event_of_another_key_at_that_offset_is_not_told(tmp_path):
    trail = kept(tmp_path, events(range(3), customer="c-2"))
    assert features_of(with_features([answer(1)], {"churn": trail}, KEY)) == [None]


def test_an_event_that_could_not_be_read_has_no_values(tmp_path):
    records = events(range(2))
    records[1]._value = b"junk"
    trail = kept(tmp_path, records)
    assert features_of(with_features([answer(1)], {"churn": trail}, KEY)) == [{"probability": None, "plan": None}]


def test_features_are_masked_like_any_other_field(tmp_path):
    mask = Mask({"audit_key": "hash", "plan": "drop", "probability": "hash"}, SECRET)
    trail = kept(tmp_path, events(range(2)), mask=mask)
    found = with_features([answer(1)], {"churn": trail}, mask.key(KEY))
    assert features_of(found) == [{"probability": mask.key(b"0.25").decode()}]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cuts=st.sets(st.integers(1, 19), max_size=5),
    asked=st.lists(st.integers(0, 24), max_size=8),
)
def test_however_events_are_cut_into_files_each_is_found(tmp_path_factory, cuts, asked):
    folder = tmp_path_factory.mktemp("trail")
    edges = [0, *sorted(cuts), 20]
    for start, stop in pairwise(edges):
        trail = kept(folder, events(range(start, stop)), only=("probability",))
    found = with_features([answer(offset) for offset in asked], {"churn": trail}, KEY)
    assert features_of(found) == [{"probability": offset / 4} if offset < 20 else None for offset in asked]


def test_files_of_features_are_beside_those_of_predictions_and_never_among_them(tmp_path):
    trail = kept(tmp_path, events(range(3)))
    (file,) = trail.files()
    assert file.path == f"features=churn/date=2024-10-04/{EVENTS}-0-{0:020}-{2:020}.parquet"
    assert parsed_path(file.path) is not None
    assert Trail(trail.objects, "churn").files() == []


def test_which_fields_are_kept_is_named_or_all():
    assert AuditSettings(features=("plan", "other")).features_of(["plan", "age"]) == {"plan"}
    assert AuditSettings(features=("*",)).features_of(["plan", "age"]) == {"plan", "age"}
    assert AuditSettings().features_of(["plan"]) == set()


def test_a_mask_of_a_feature_that_is_not_kept_is_refused():
    with pytest.raises(BadSettings, match="plan: no such field"):
        check_names({"plan": "hash"}, [kept_fields(schema(FIRST), frozenset({"probability"}))])
