"""Trace contexts come from strangers: what is one is read, what is none is no error."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observe.trace_context import TraceContext, context_in, context_of, sampled_rows

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # pragma: allowlist secret
SENT = f"00-{TRACE}-{SPAN}-01".encode()
contexts = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 1),
    st.lists(st.from_regex(r"[a-z][a-z0-9]{0,9}=[0-9A-Za-z]{1,9}", fullmatch=True), max_size=5).map(
        lambda members: ",".join({member.partition("=")[0]: member for member in members}.values())
    ),
)


@dataclass
class Event:
    """A record, as far as its headers go."""

    sent: object = None
    asked: int = 0

    def headers(self):
        self.asked += 1
        if isinstance(self.sent, Exception):
            raise self.sent
        return self.sent

    def set_headers(self, value):
        self.sent = value


def test_a_context_is_read_as_the_recommendation_has_it():
    found = context_of(SENT, [b"vendor=opaque, other=1 "])
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), 1, "vendor=opaque,other=1")
    assert found.sampled


@given(contexts)
def test_what_is_sent_on_is_what_was_read(context):
    assert context_in(context.headers()) == context


@given(st.binary(max_size=600), st.lists(st.binary(max_size=600), max_size=3))
def test_no_bytes_at_all_are_an_error(parent, states):
    found = context_of(parent, states)
    assert found is None or context_in(found.headers()) is not None


@given(st.integers(0, len(SENT) - 1), st.integers(0, 255))
def test_one_wrong_byte_gives_a_sound_context_or_none(at, byte):
    found = context_of(SENT[:at] + bytes([byte]) + SENT[at + 1 :])
    if found is not None:
        assert found.trace_id > 0 < found.span_id
        assert context_in(found.headers()).trace_id == found.trace_id


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        SENT[:-1],
        SENT + b"-00",
        SENT.upper(),
        SENT.replace(b"00-", b"ff-", 1),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        b" " + SENT,
        SENT + b"\n",
        b"01" + SENT[2:] + b"-" + b"x" * 600,
        "00-\u0664bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01".encode(),
    ],
)
def test_what_is_no_traceparent_is_no_context(parent):
    assert context_of(parent) is None


def test_a_later_version_is_read_as_far_as_it_is_known():
    assert context_of(b"cc" + SENT[2:] + b"-what-the-future-will-be-like").sampled


@pytest.mark.parametrize(
    "state",
    [
        [b"no-equals-sign"],
        [b"UPPER=1"],
        [b"a=1,a=2"],
        [b"a=\xff"],
        [b"a=" + b"x" * 600],
        [",".join(f"k{number}=1" for number in range(33)).encode()],
        [b"a=1\r\nset-cookie: b"],
    ],
)
def test_a_bad_tracestate_is_left_out_and_the_context_stays(state):
    found = context_of(SENT, state)
    assert found is not None
    assert found.state == ""


def test_two_traceparents_are_none():
    assert context_in([("traceparent", SENT), ("traceparent", SENT)]) is None


def test_only_what_its_sender_has_sampled_is_found():
    others = [None, [], [("x", None)], [("traceparent", None)], [("traceparent", SENT[:-1] + b"0")]]
    records = [Event(sent) for sent in [*others, [("a", b"1"), ("traceparent", SENT)]]]
    assert list(sampled_rows(records, read=64, most=32, turn=0)) == [5]


def test_headers_the_client_cannot_read_are_no_context():
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    records = [Event(broken), Event(SystemError("error return without exception set")), Event([("traceparent", SENT)])]
    assert list(sampled_rows(records, read=64, most=32, turn=0)) == [2]


@given(st.integers(0, 300), st.integers(0, 80), st.integers(1, 40), st.integers(0, 1000))
def test_no_more_records_are_asked_and_found_than_was_said(n, read, most, turn):
    records = [Event([("traceparent", SENT)]) for _ in range(n)]
    found = sampled_rows(records, read, most, turn)
    assert sum(record.asked for record in records) <= read
    assert len(found) <= most
    if n <= read:
        assert len(found) == min(n, most)


@given(st.integers(1, 200), st.integers(1, 40))
def test_no_row_is_never_asked(n, read):
    records = [Event() for _ in range(n)]
    for turn in range(-(-n // read)):
        sampled_rows(records, read, 32, turn)
    assert all(record.asked == 1 for record in records)
