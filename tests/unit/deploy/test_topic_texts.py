"""How the topics of docker-compose.yml are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.docker.topics import Topic, TopicsRefused, topic_of

NAMES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{2,40}", fullmatch=True)
PROPERTIES = st.dictionaries(
    st.from_regex(r"[a-z.]{1,20}", fullmatch=True), st.from_regex(r"[a-z0-9.=-]{1,20}", fullmatch=True), max_size=3
)


def test_a_name_alone_is_a_topic_with_the_brokers_defaults():
    assert topic_of("churn.events") == Topic("churn.events", {})


@given(NAMES, PROPERTIES)
def test_what_is_written_is_what_is_read(name, properties):
    text = name + ":" * bool(properties) + ",".join(f"{key}={value}" for key, value in properties.items())

    assert topic_of(text) == Topic(name, properties)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", ":a=b", "two words", "churn/events", "t:retention.ms", "t:=1", "t:a=", "t:a=1,,b=2",
     "x" * 250, "caf\u00e9", "a\nb"],
)  # fmt: skip
def test_what_is_no_topic_is_refused_by_what_it_says(text):
    with pytest.raises(TopicsRefused, match="is not a topic"):
        topic_of(text)


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(text):
    try:
        topic = topic_of(text)
    except TopicsRefused:
        return
    assert text.startswith(topic.name)
