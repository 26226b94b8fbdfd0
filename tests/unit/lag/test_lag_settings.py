"""Which groups are watched follows from the worker's own settings; what makes no sense is refused by name."""

import pytest
from pydantic import ValidationError

from app.errors import BadSettings
from app.lag.desired_replicas import ScalingPolicy
from app.lag.lag_settings import LagSettings, ScalingSettings
from app.settings.reading import settings_of
from app.wiring.lag import watched_groups


def pipeline(name="churn", **more):
    topics = {"input_topics": [f"{name}.in"], "output_topic": f"{name}.out", "dead_letter_topic": f"{name}.dead"}
    return {"name": name, "model": "m", **topics, **more}


def watched(*pipelines, **sections):
    groups = watched_groups(settings_of({"pipelines": list(pipelines), **sections}))
    return {group.group_id: (group.reads, group.start_from, group.scaled) for group in groups}


def test_the_group_of_a_pipeline_is_the_workers():
    assert watched(pipeline(), kafka={"group_id": "w", "start_from": "latest"}) == {
        "w": ((("churn.in",),), "latest", True)
    }


def test_several_pipelines_have_a_group_each():
    assert watched(pipeline("a"), pipeline("b"), kafka={"group_id": "w"}).keys() == {"w-a", "w-b"}


def test_two_pipelines_of_one_group_are_two_consumers_of_it():
    found = watched(pipeline("a", group_id="g"), pipeline("b", group_id="g"))
    assert found == {"g": ((("a.in",), ("b.in",)), "earliest", True)}


def test_monitor_audit_and_others_are_watched_if_asked_for():
    found = watched(
        pipeline(monitoring={"summary_topic": "sums", "sample_topic": "some"}),
        kafka={"group_id": "w"},
        monitor={"outcomes": {"churn": {"topic": "truth", "record": "R", "label": "l"}}},
        lag={"monitor": True, "audit": True, "groups": {"billing": {"topics": ["x", "y"], "start_from": "latest"}}},
    )
    assert found == {
        "w": ((("churn.in",),), "earliest", True),
        "inference-monitor": ((("sums", "some", "truth"),), "earliest", False),
        "w-audit": ((("churn.out",),), "earliest", False),
        "billing": ((("x", "y"),), "latest", False),
    }


@pytest.mark.parametrize(
    ("audit", "read"),
    [
        ({}, ("a.out", "b.out")),
        ({"features": ["*"]}, ("a.out", "b.out", "a.in", "b.in")),
        ({"features": ["plan"], "pipelines": ["b"]}, ("b.out", "b.in")),
    ],
)
def test_of_the_audit_trail_what_it_reads_is_watched_with_the_events_if_features_are_kept(audit, read):
    found = watched(pipeline("a"), pipeline("b"), kafka={"group_id": "w"}, audit=audit, lag={"audit": True})
    assert found["w-audit"] == ((read,), "earliest", False)


def test_a_monitor_with_nothing_to_read_is_refused():
    with pytest.raises(BadSettings, match=r"lag\.monitor: no pipeline has a monitoring\.summary_topic"):
        watched(pipeline(), lag={"monitor": True})


def test_a_group_is_watched_once():
    with pytest.raises(BadSettings, match="lag: w: a group that is watched already"):
        watched(pipeline(), kafka={"group_id": "w"}, lag={"groups": {"w": {"topics": ["churn.in"]}}})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"poll_s": 0}, "poll_s"),
        ({"poll_s": float("nan")}, "poll_s"),
        ({"poll_s": 30}, "keep_s 20 is less than two looks of poll_s 30"),
        ({"count_records": -1}, "count_records"),
        ({"groups": {"a b": {"topics": ["x"]}}}, "groups"),
        ({"groups": {"a": {"topics": []}}}, "topics"),
        ({"groups": {"a": {"topics": ["x/y"]}}}, "topics"),
        ({"groups": {"a": {"topics": ["x"], "start_from": "fail"}}}, "start_from"),
        ({"polls": 5}, "polls"),
        ({"scaling": {"min_replicas": 5, "max_replicas": 4}}, "min_replicas"),
        ({"scaling": {"capacity_per_process": 0}}, "capacity_per_process"),
        ({"scaling": {"utilization": 1.0, "dead_band": 0.5}}, "dead_band"),
        ({"scaling": {"reaction_s": 200}}, "reaction_s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong, named):
    with pytest.raises(ValidationError, match=named):
        LagSettings(**wrong)


def test_the_policy_has_the_settings_defaults_and_no_others():
    assert ScalingSettings().policy() == ScalingPolicy()
    assert ScalingSettings.model_fields.keys() == set(ScalingPolicy.__dataclass_fields__)
