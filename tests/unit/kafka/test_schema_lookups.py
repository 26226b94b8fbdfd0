"""A slow registry costs its own partitions time, nobody else's."""

import threading

import pytest
from fakes import FakeSchemas, ManualClock

from app.errors import DecodeFailed, SchemaRegistryUnavailable
from app.kafka import schema_lookups
from app.kafka.schema_lookups import IMPATIENT_FOR_S, PATIENCE_S, BackgroundLookups

KNOWN, OTHER, UNKNOWN = b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x02", b"\x00\x00\x00\x00\x03"


class SlowSchemas(FakeSchemas):
    """Answers only while the gate is open."""

    def __init__(self):
        super().__init__({KNOWN: "known", OTHER: "other"})
        self.gate = threading.Event()

    def by_header(self, header):
        assert self.gate.wait(30)
        return super().by_header(header)


@pytest.fixture
def slow():
    schemas = SlowSchemas()
    yield schemas
    schemas.gate.set()


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch):
    monkeypatch.setattr(schema_lookups, "PATIENCE_S", 0.05)


def until_answered(lookups, header):
    for _ in range(1000):
        try:
            return lookups.by_header(header)
        except SchemaRegistryUnavailable:
            threading.Event().wait(0.01)
    raise AssertionError("never answered")


def test_what_the_registry_answers_is_given_at_once(slow):
    slow.gate.set()
    lookups = BackgroundLookups(slow, ManualClock())
    assert until_answered(lookups, KNOWN) == "known"
    with pytest.raises(DecodeFailed):
        until_answered(lookups, UNKNOWN)


def test_a_look_up_that_takes_long_is_pending_and_its_answer_is_kept(slow):
    lookups = BackgroundLookups(slow, ManualClock())
    for _ in range(3):
        with pytest.raises(SchemaRegistryUnavailable, match="0000000001 is still being looked up"):
            lookups.by_header(KNOWN)
    slow.gate.set()
    assert until_answered(lookups, KNOWN) == "known"
    assert slow.asked == [KNOWN]


def test_after_waiting_in_vain_nobody_waits_for_a_while(slow, monkeypatch):
    waits = []
    clock = ManualClock()
    lookups = BackgroundLookups(slow, clock)
    real = schema_lookups.Future.result
    monkeypatch.setattr(
        schema_lookups.Future, "result", lambda self, timeout=None: (waits.append(timeout), real(self, timeout))[1]
    )
    for header in (KNOWN, OTHER):
        with pytest.raises(SchemaRegistryUnavailable):
            lookups.by_header(header)
    clock.advance(PATIENCE_S + IMPATIENT_FOR_S)
    with pytest.raises(SchemaRegistryUnavailable):
        lookups.by_header(OTHER)
    assert waits == [0.05, 0, 0.05]


def test_an_outage_is_asked_about_again():
    schemas = FakeSchemas({KNOWN: "known"})
    schemas.down = True
    lookups = BackgroundLookups(schemas, ManualClock())
    with pytest.raises(SchemaRegistryUnavailable):
        lookups.by_header(KNOWN)
    schemas.down = False
    assert until_answered(lookups, KNOWN) == "known"


def test_made_up_ids_fill_no_memory(slow, monkeypatch):
    monkeypatch.setattr(schema_lookups, "MOST_UNDER_WAY", 5)
    lookups = BackgroundLookups(slow, ManualClock())
    for number in range(5):
        with pytest.raises(SchemaRegistryUnavailable, match="still being looked up"):
            lookups.by_header(bytes([0, 0, 0, 1, number]))
    with pytest.raises(SchemaRegistryUnavailable, match="5 schemas are being looked up already"):
        lookups.by_header(KNOWN)
    slow.gate.set()
    assert until_answered(lookups, KNOWN) == "known"
