"""A shadow topic is asked for and listed where one is named, and nowhere else."""

from dataclasses import replace

from app.kafka.permissions import PipelineUse, permissions

USE = PipelineUse("churn", ("churn.events",), "churn.predictions", "churn.dead-letters", "workers", None, True)


def test_without_a_shadow_topic_nothing_is_added():
    assert [str(needed) for needed in permissions(USE)] == [
        "Read on Topic churn.events",
        "Write on Topic churn.predictions",
        "Write on Topic churn.dead-letters",
        "Read on Group workers",
    ]


def test_a_shadow_topic_is_written_and_nothing_else():
    shadowed = replace(USE, shadow="churn.shadow")
    added = {str(needed) for needed in permissions(shadowed)} - {str(needed) for needed in permissions(USE)}
    assert added == {"Write on Topic churn.shadow"}
    assert shadowed.topics == (*USE.topics, "churn.shadow")
