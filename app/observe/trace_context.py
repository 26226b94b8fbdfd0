"""W3C Trace Context: where in somebody else's trace a record or a request belongs.

What is read comes from strangers. A `traceparent` that is not exactly one of the Recommendation
(https://www.w3.org/TR/trace-context/) is no context, and a `tracestate` that is not is left out; neither is an error.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.records import Headers, Record, headers_of

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
SAMPLED = 1  # the one flag that is about us
LONGEST_PARENT = 512  # bytes; a later version may have more than the 55 of version 00
LONGEST_STATE = 512  # bytes that everybody has to pass on; who sends more may lose it
MOST_MEMBERS = 32  # of a state

_VERSION_00 = 55  # bytes
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]*)?")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/]{0,255}(?:@[a-z][a-z0-9_\-*/]{0,13})?=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_SAMPLED_DIGITS = frozenset(b"13579bdf")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of somebody else's, as it was sent. state: "" for none."""

    trace_id: int
    span_id: int
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether who sent it records it."""
        return bool(self.flags & SAMPLED)

    def headers(self) -> list[tuple[str, bytes]]:
        """The same for whoever comes after us; of the flags what we know."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags & SAMPLED:02x}"
        found = [(TRACEPARENT, parent.encode())]
        return [*found, (TRACESTATE, self.state.encode())] if self.state else found


def context_of(traceparent: bytes, tracestates: Iterable[bytes] = ()) -> TraceContext | None:
    """What these say; None if the first is no `traceparent`. tracestates: of one sender, in order."""
    found = _PARENT.fullmatch(traceparent) if len(traceparent) <= LONGEST_PARENT else None
    if found is None:
        return None
    version, trace_id, span_id = found[1], int(found[2], 16), int(found[3], 16)
    too_long = version == b"00" and len(traceparent) != _VERSION_00
    if version == b"ff" or too_long or not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, int(found[4], 16), _state(tracestates))


def context_in(headers: Headers) -> TraceContext | None:
    """The context in the headers of a record; two of them are none."""
    parents = [value for name, value in headers if name == TRACEPARENT]
    if len(parents) != 1 or parents[0] is None:
        return None
    return context_of(parents[0], (value for name, value in headers if name == TRACESTATE and value))


def sampled_rows(records: Sequence[Record], read: int, most: int, turn: int) -> dict[int, TraceContext]:
    """The contexts of records that their senders have sampled: row → context, at most `most`, in order of rows.

    The client makes a list of a record's headers when it is asked for them, so no more than `read` records are asked:
    all of a small batch, and of a larger one every so many-th. turn: where that begins; another each time, so that no
    row is never asked.
    """
    n = len(records)
    found: dict[int, TraceContext] = {}
    if not n or not read:
        return found
    step = -(-n // read)
    first = turn % step
    sent = [headers_of(record) for record in records[first::step]]
    if not any(sent):
        return found
    # a look before the reading proper, over all headers at once: almost no record comes further
    candidates = [
        index
        for index, headers in enumerate(sent)
        for name, value in headers
        if name == TRACEPARENT and value and len(value) >= _VERSION_00 and value[54] in _SAMPLED_DIGITS
    ]
    for index in candidates:
        context = context_in(sent[index])
        if context is not None and context.sampled and len(found) < most:
            found[first + index * step] = context
    return found


def _state(values: Iterable[bytes]) -> str:
    """The members of the state, or "" if that is none."""
    try:
        text = b",".join(values).decode("ascii")
    except UnicodeDecodeError:
        return ""
    members = [member.strip(" \t") for member in text.split(",")] if len(text) <= LONGEST_STATE else []
    members = [member for member in members if member]
    keys = [member.partition("=")[0] for member in members]
    sound = len(members) <= MOST_MEMBERS and len(set(keys)) == len(keys)
    return ",".join(members) if sound and all(_MEMBER.fullmatch(member) for member in members) else ""
