"""Whose rows a batch has, and whose answers it came to."""

from collections.abc import Sequence

from app.answering.answers import Answers, joined
from app.serving.in_force import InForce
from app.serving.question import Span, Waiting
from app.serving.refusals import Expired, NotFound

TOO_LATE = "not answered in the time that was given"


def spans_of(records: Sequence[Waiting], in_force: InForce, now: float) -> tuple[list[Span], bool]:
    """One for each request that has rows among these; and whether some were refused, of which more may be waiting.

    A request is refused whose time is over, or whose version does not answer any more. Those that are over, or whose
    caller is gone, have no span.
    """
    spans, at, refused = [], 0, False
    while at < len(records):
        waiting = records[at]
        many = min(len(waiting.question) - waiting.taken, len(records) - at)
        span = Span(waiting, waiting.taken, waiting.taken + many)
        waiting.taken += many
        at += many
        why = _refusal(waiting, in_force, now)
        if why is not None:
            waiting.refuse(why)
            refused = True
        if not waiting.done.done():
            spans.append(span)
    return spans, refused


def give(spans: Sequence[Span], answers: Answers) -> None:
    """To each its own. answers: to all of them, in their order. A request is over when its last rows have theirs."""
    at = 0
    for span in spans:
        waiting = span.waiting
        alone = span.many == len(answers)
        waiting.answers.append(answers if alone else answers.between(at, at + span.many))
        at += span.many
        if span.end == len(waiting.question) and not waiting.done.done():
            waiting.done.set_result(joined(waiting.answers))


def _refusal(waiting: Waiting, in_force: InForce, now: float) -> Exception | None:
    if waiting.deadline <= now:
        return Expired(TOO_LATE)
    if waiting.question.version is None:
        return None
    try:
        in_force.lane_index(waiting.question.version)
    except NotFound as exc:
        return exc
    return None
