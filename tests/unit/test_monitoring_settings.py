"""Summaries and the sample: off unless a topic is named, and never into a topic that leads back."""

import pytest
from pydantic import ValidationError

from app.settings.reading import settings_of


def pipeline(name="churn", events="in", output="out", **monitoring):
    topics = {"input_topics": [events], "output_topic": output, "dead_letter_topic": f"{output}.dead"}
    return {"name": name, "model": "churn", **topics, "monitoring": monitoring}


def settings(*pipelines):
    return settings_of({"pipelines": list(pipelines)})


def test_nothing_is_told_of_unless_it_is_asked_for():
    monitoring = settings(pipeline()).pipelines[0].monitoring
    assert monitoring.topics == ()
    assert (monitoring.bucket_s, monitoring.interval_s, monitoring.low_confidence) == (10, 1.0, 0.6)
    assert monitoring.sample_share == 1.0


def test_both_topics_may_be_named():
    monitoring = settings(pipeline(summary_topic="sums", sample_topic="some")).pipelines[0].monitoring
    assert monitoring.topics == ("sums", "some")


@pytest.mark.parametrize("name", ["summary_topic", "sample_topic"])
@pytest.mark.parametrize("topic", ["in", "out", "out.dead", "out.shadow"])
def test_it_is_none_of_the_pipelines_other_topics(name, topic):
    with pytest.raises(ValidationError, match=rf"monitoring\.{name}: {topic} is another topic of the pipeline"):
        settings(pipeline(**{name: topic}))


def test_the_sample_is_not_among_the_summaries():
    with pytest.raises(ValidationError, match=r"monitoring\.sample_topic: sums is another topic"):
        settings(pipeline(summary_topic="sums", sample_topic="sums"))


def test_a_sample_does_not_go_round():
    with pytest.raises(ValidationError, match="round for ever"):
        settings(pipeline(sample_topic="some"), pipeline("second", events="some", output="in"))


def test_two_pipelines_may_share_a_summary_topic():
    given = settings(pipeline(summary_topic="sums"), pipeline("b", "in.b", "out.b", summary_topic="sums"))
    assert [one.monitoring.summary_topic for one in given.pipelines] == ["sums", "sums"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("summary_topic", topic) for topic in ("", "a b", "x" * 250)),
        *(("sample_topic", topic) for topic in ("", "a/b")),
        *(("bucket_s", seconds) for seconds in (0, -1, 3601, 0.5, float("nan"))),
        *(("interval_s", seconds) for seconds in (0, -1, 61, float("inf"), float("nan"))),
        *(("low_confidence", share) for share in (-0.1, 1.1, float("nan"))),
        *(("sample_share", share) for share in (0, -1, 1.01, float("nan"), "half")),
        ("sample_tpoic", "x"),
    ],
)
def test_a_bad_value_is_named(name, value):
    with pytest.raises(ValidationError, match=name):
        settings(pipeline(**{name: value}))
