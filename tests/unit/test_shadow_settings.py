"""Where comparisons go: a topic of its own, and never one that leads records round."""

import pytest
from pydantic import ValidationError

from app.settings.reading import settings_of


def pipeline(name="churn", events="in", output="out", **more):
    topics = {"input_topics": [events], "output_topic": output, "dead_letter_topic": f"{output}.dead"}
    return {"name": name, "model": "churn", **topics, **more}


def settings(*pipelines):
    return settings_of({"kafka": {"bootstrap_servers": "b:1"}, "pipelines": list(pipelines)})


def test_a_shadow_has_the_output_topics_name_if_it_is_not_named():
    assert settings(pipeline()).pipelines[0].comparison_topic == "out.shadow"
    assert settings(pipeline(shadow_topic="beside")).pipelines[0].comparison_topic == "beside"


@pytest.mark.parametrize("topic", ["in", "out", "out.dead"])
def test_it_is_none_of_the_pipelines_other_topics(topic):
    with pytest.raises(ValidationError, match="another topic of the pipeline"):
        settings(pipeline(shadow_topic=topic))


@pytest.mark.parametrize("topic", ["", "a b", "x" * 250])
def test_it_is_a_topics_name(topic):
    with pytest.raises(ValidationError, match="shadow_topic"):
        settings(pipeline(shadow_topic=topic))


def test_comparisons_do_not_go_round():
    with pytest.raises(ValidationError, match="round for ever"):
        settings(pipeline(), pipeline("second", events="out.shadow", output="in"))


@pytest.mark.parametrize("size", [0, 268_435_455, -1])
def test_a_shadow_that_could_not_even_start_is_refused(size):
    with pytest.raises(ValidationError, match="shadow_memory_bytes"):
        settings(pipeline(shadow_memory_bytes=size))
