"""The main job: every event has its outcome, in both wire formats and both delivery modes."""

import pytest
from rig import committed, ends, poison_kind, read_all
from worker_process import running_worker

from loadgen.poison import REASONS

EVENTS, POISON = 10_000, 100
FEATURES = {"out_of_range", "not_finite"}  # the stage that rejects these kinds; the others do not decode


@pytest.fixture(params=["single_object", "confluent"])
def wired_lane(request, lane):
    """A lane in each wire format."""
    if request.param == "confluent":
        return lane(registry_url=request.getfixturevalue("schema_registry"))
    return lane()


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_every_event_is_predicted_or_dead_lettered_and_all_offsets_are_committed(wired_lane, mode, tmp_path):
    lane = wired_lane
    settings = lane.settings(delivery={"mode": mode}, schemas={"auto_register": True})
    lane.produce(EVENTS, poison=POISON / EVENTS)

    with running_worker(settings, tmp_path) as worker:
        verdict = lane.verified(at_least_once=mode == "at_least_once", min_accuracy=0.75)
        assert worker.stop() == 0

    assert (verdict.inputs, verdict.predictions) == (EVENTS, EVENTS - POISON)
    assert sum(verdict.dead_letters.values()) == POISON
    assert verdict.score.checked >= 400
    group = settings["kafka"]["group_id"]
    assert committed(lane.kafka, group, lane.inputs[0]) == ends(lane.kafka, lane.inputs[0])
    _dead_letters_are_the_poison_unchanged(lane)


def _dead_letters_are_the_poison_unchanged(lane):
    """Ten kinds, ten each; reasons and stages are right, and nothing of the event is changed."""
    (topic,) = lane.inputs
    poison = {(event.partition(), event.offset()): event for event in read_all(lane.kafka, topic) if poison_kind(event)}
    seen = []
    for letter in read_all(lane.kafka, lane.dead_letters):
        headers = {name: value.decode() for name, value in letter.headers()}
        place = int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])
        event = poison.pop(place)
        kind = poison_kind(event)
        seen.append(kind)
        assert (letter.key(), letter.value()) == (event.key(), event.value())
        assert letter.timestamp() == event.timestamp()
        assert letter.headers()[: len(event.headers())] == event.headers()
        assert letter.partition() == event.partition()
        assert headers["__connect.errors.topic"] == topic
        assert headers["inference.reason"] == REASONS[kind]
        assert headers["__connect.errors.stage"] == ("features" if kind in FEATURES else "decode")
        assert headers["__connect.errors.exception.class.name"]
        assert headers["__connect.errors.exception.message"]
        assert (headers["inference.model"], headers["inference.model_version"]) == ("churn", "1")
    assert not poison
    assert {kind: seen.count(kind) for kind in seen} == dict.fromkeys(REASONS.keys() - {"bad_shape"}, POISON // 10)
