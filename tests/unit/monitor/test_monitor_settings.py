import pytest
from pydantic import ValidationError

from app.monitor.monitor_settings import MonitorSettings


def test_the_defaults_are_consistent():
    settings = MonitorSettings()
    assert settings.windows.window_s == 60
    assert settings.outcomes == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0},
        {"window_s": 600},
        {"grace_s": float("nan")},
        {"group_id": "a b"},
        {"unknown": 1},
        {"publish_topic": ""},
        {"outcomes": {"churn": {"topic": "t"}}},
        {"outcomes": {"churn": {"topic": "t t", "record": "R", "label": "l"}}},
        {"drift": {"significance": 0}},
        {"drift": {"significance": 1}},
        {"drift": {"min_rows": 1}},
        {"stalled_s": -1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        MonitorSettings(**wrong)
