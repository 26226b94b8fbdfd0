"""The sending loop, against a clock that only moves when it is waited for."""

import pytest

from loadgen.errors import BadOption
from loadgen.event_stream import Chunk
from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import Pace
from loadgen.producing import LEAD_MS, Extent, produce

START_MS = 1_760_000_000_000.0


class ManualClock:
    def __init__(self):
        self.at_ms = START_MS

    def now_ms(self):
        return self.at_ms

    def sleep_until(self, at_ms):
        self.at_ms = max(self.at_ms, at_ms)


class FakeStream:
    def chunk(self, first, event_times_ms):
        values = [str(time).encode() for time in event_times_ms.tolist()]
        keys = [str(first + row).encode() for row in range(len(values))]
        return Chunk(keys=keys, values=values, poison={})


class FakeSender:
    """Notes when each event was sent; `stall_ms` is how long each call takes."""

    def __init__(self, clock, stall_ms=0.0):
        self.clock, self.stall_ms = clock, stall_ms
        self.sent, self.finished = [], False

    def send(self, chunk, first, stop):
        for row in range(first, stop):
            self.sent.append((self.clock.now_ms(), int(chunk.values[row]), int(chunk.keys[row])))
        self.clock.at_ms += self.stall_ms

    def poll(self):
        pass

    def finish(self):
        self.finished = True


def sent(pace, extent, stall_ms=0.0):
    clock = ManualClock()
    sender = FakeSender(clock, stall_ms)
    produced = produce(
        topic="t",
        stream=FakeStream(),
        sender=sender,
        pace=pace,
        extent=extent,
        clock=clock,
        progress=lambda events: None,
    )
    assert sender.finished
    assert [number for _, _, number in sender.sent] == list(range(produced.events))
    return produced, sender.sent


def test_events_leave_at_their_intended_times():
    produced, events = sent(Pace(rate=250), Extent(events=1000))
    assert produced.events == 1000
    assert produced.start_ms == START_MS + LEAD_MS
    intended = [produced.start_ms + 4 * number for number in range(1000)]
    assert [event_time for _, event_time, _ in events] == intended
    assert [at for at, _, _ in events] == intended
    assert produced.behind_max_ms == 0


def test_a_slow_broker_delays_events_but_never_their_intended_times():
    smooth, on_time = sent(Pace(rate=1000), Extent(events=2000))
    stalled, late = sent(Pace(rate=1000), Extent(events=2000), stall_ms=700.0)
    assert [event_time for _, event_time, _ in late] == [event_time for _, event_time, _ in on_time]
    assert stalled.behind_max_ms >= 699
    assert smooth.behind_max_ms == 0


def test_a_duration_ends_a_paced_run():
    produced, _ = sent(Pace(rate=100), Extent(duration_s=2.5))
    assert produced.events == 250
    assert sent(Pace(rate=100), Extent(events=10, duration_s=2.5))[0].events == 10


def test_unpaced_events_carry_the_time_they_were_made():
    produced, events = sent(Pace(), Extent(events=10_000), stall_ms=3.0)
    assert produced.events == 10_000
    assert all(at == event_time for at, event_time, _ in events)
    assert len({at for at, _, _ in events}) == 3


def test_a_duration_ends_an_unpaced_run():
    produced, _ = sent(Pace(), Extent(duration_s=0.1), stall_ms=30.0)
    assert produced.events == 4 * 4096


@pytest.mark.parametrize(
    "make",
    [
        Extent,
        lambda: Extent(events=0),
        lambda: Extent(duration_s=float("inf")),
        lambda: Extent(events=10**9).paced_total(Pace(rate=0.001)),
        lambda: KafkaOptions.parse("h:1", ["nonsense"]),
    ],
)
def test_an_impossible_run_is_refused(make):
    with pytest.raises(BadOption):
        make()


def test_client_properties_of_the_command_line_win():
    options = KafkaOptions.parse("h:1", ["linger.ms=7", "sasl.password=a=b"])
    properties = options.properties({"linger.ms": 5, "acks": "all"})
    assert properties == {
        "bootstrap.servers": "h:1",
        "linger.ms": "7",
        "acks": "all",
        "log_level": 2,
        "sasl.password": "a=b",  # pragma: allowlist secret
    }
