"""One batch of several requests' rows through the stream's own steps: events, versions, features, answers.

Called on the loop or on the scoring thread, never on both at once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.answering.answers import Answers, answers_of
from app.answering.asking import Asking, Reply
from app.answering.parts import Part, part_of, parts_of
from app.errors import ModelFailed
from app.facts import BatchScored, Outcomes
from app.records import Batch, Columns, IntArray, Rejection
from app.serving.alike import alike, events_of
from app.serving.in_force import InForce
from app.serving.question import Span, Waiting


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers to a batch's rows, in the order of its spans, and what the observer is told of it."""

    answers: Answers
    fact: BatchScored
    outcomes: tuple[Outcomes, ...]


Ended = tuple[Sequence[Span], Scored | Exception]


def scored_spans(batch: Batch[Waiting], spans: Sequence[Span], in_force: InForce, asking: Asking) -> list[Ended]:
    """What all spans together came to, in one entry: their answers, or what they failed with.

    A batch that fails by anything but the model is asked again request by request, with an entry for each: a row that
    nobody foresaw fails its own request, and no other.
    """
    try:
        return [(spans, _scored(batch, spans, in_force, asking))]
    except Exception as exc:  # noqa: BLE001 - whatever a row does to us, only its own request may fail
        if len(spans) == 1 or isinstance(exc, ModelFailed):
            return [(spans, exc)]
    return [ended for span in spans for ended in scored_spans(batch, [span], in_force, asking)]


def _scored(batch: Batch[Waiting], spans: Sequence[Span], in_force: InForce, asking: Asking) -> Scored:
    started = time.perf_counter()
    n = sum(span.many for span in spans)
    stamps = np.repeat(np.array([span.waiting.arrived_ms for span in spans], np.int64), [span.many for span in spans])
    choice = _choice(in_force, spans, n)
    parts = [
        part
        for columns, rows, refused in _columns(spans)
        for part in _parts(in_force, choice, columns, rows, refused, stamps)
    ]
    replies = [asking.ask(part) for part in parts]
    return Scored(
        answers_of(replies, n),
        BatchScored(
            rows=n,
            cause=batch.cause,
            waited_s=batch.waited_s,
            scored_s=time.perf_counter() - started,
            asked=tuple(asked for reply in replies for asked in reply.asked),
            runs=[n],
        ),
        tuple(_outcomes(reply) for reply in replies),
    )


def _choice(in_force: InForce, spans: Sequence[Span], n: int) -> IntArray | None:
    """(n,) index into the lanes, None if the first answers all."""
    lineup = in_force.lineup
    pinned = any(span.waiting.question.version is not None for span in spans)
    if len(lineup.lanes) == 1 and not pinned:
        return None
    keys: list[bytes | None] = []
    for span in spans:
        given = span.waiting.question.keys
        keys += (
            [None] * span.many
            if given is None
            else [None if key is None else key.encode("utf-8", "surrogatepass") for key in given[span.start : span.end]]
        )
    choice = lineup.page.choose(keys)
    if not pinned:
        return choice
    choice = np.zeros(n, np.int64) if choice is None else choice
    at = 0
    for span in spans:
        if span.waiting.question.version is not None:
            choice[at : at + span.many] = in_force.lane_index(span.waiting.question.version)
        at += span.many
    return choice


def _columns(spans: Sequence[Span]) -> Iterator[tuple[Columns, IntArray, Mapping[int, Rejection]]]:
    """Events of the rows that are laid out alike: columns, which rows of the batch they are, refused."""
    starts = np.cumsum([0, *(span.many for span in spans)])
    for events, which in alike(spans):
        rows = np.concatenate([np.arange(starts[at], starts[at + 1]) for at in which])
        made = events_of(events, [spans[at] for at in which])
        refused = {
            int(rows[row]): Rejection(int(rows[row]), why.stage, why.reason, why.error, why.message)
            for row, why in made.refused.items()
        }
        yield Columns(made.columns.table, rows[made.columns.rows]), rows, refused


def _parts(
    in_force: InForce,
    choice: IntArray | None,
    columns: Columns,
    rows: IntArray,
    refused: Mapping[int, Rejection],
    stamps: IntArray,
) -> Sequence[Part]:
    """rows: of the batch that these columns are of; the others are somebody else's."""
    rejected = list(refused.values())
    lanes = in_force.lineup.lanes
    if choice is None:
        return (part_of(lanes[0], columns, rejected, 0, stamps[rows]),)
    own = np.full(len(choice), -1)
    own[rows] = choice[rows]
    return parts_of(lanes, own, columns, rejected, stamps)


def _outcomes(reply: Reply) -> Outcomes:
    part, inference, answerer = reply.part, reply.inference, reply.lane.answerer
    rejected: dict[Any, int] = {}
    for item in (*part.rejected, *inference.rejected):
        rejected[item.stage, item.reason] = rejected.get((item.stage, item.reason), 0) + 1
    return Outcomes(
        model=answerer.model.name,
        version=answerer.model.version,
        predicted=len(inference.rows),
        skipped=0,
        results=inference.results,
        rejected=rejected,
        timestamps_ms=part.timestamps_ms,
        confidence=inference.confidence,
        answered_by=answerer.answered_by,
    )
