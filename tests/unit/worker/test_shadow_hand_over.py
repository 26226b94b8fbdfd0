"""The stream hands a batch to a shadow after its outputs were delivered, and goes on as it would without."""

from fake_stream import Rig
from fakes import ManualClock


class Recorder:
    """Stands in for a shadow, and notes deliveries and offers in the order they come."""

    def __init__(self, sink):
        self.seen, self._deliver = [], sink.deliver
        sink.deliver = self.deliver

    def deliver(self, predictions, dead_letters):
        self._deliver(predictions, dead_letters)
        self.seen.append(("delivered", predictions.values))

    def offer(self, answered):
        self.seen.append(("offered", answered.predictions.values))


def finished(*, shadowed):
    """What came of twenty records: their outcomes, the number of commits, and what was seen."""
    rig = Rig(ManualClock(), by_hand=True)  # no thread: the same in each run
    rig.model.answers = 1000
    recorder = Recorder(rig.sink)
    if shadowed:
        rig.worker._shadow = recorder
    rig.change("assigned", 0, 1)
    for _ in range(10):
        rig.broker.append(0)
        rig.broker.append(1)
        rig.turn()
    rig.settle()
    return rig.broker.outcomes, rig.sink.commits, recorder.seen


def test_each_batch_is_offered_once_and_right_after_its_delivery():
    _, _, seen = finished(shadowed=True)
    deliveries, offers = seen[0::2], seen[1::2]
    assert [values for _, values in deliveries] == [values for _, values in offers]
    assert {kind for kind, _ in deliveries} == {"delivered"}
    assert {kind for kind, _ in offers} == {"offered"}
    assert sum(len(values) for _, values in offers) == 20


def test_with_a_shadow_the_stream_does_what_it_does_without():
    assert finished(shadowed=True)[:2] == finished(shadowed=False)[:2]
