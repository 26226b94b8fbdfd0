"""Rows of several requests that are laid out alike become events together."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from app.answering.event_columns import Column, EventColumns, Made
from app.serving.question import Span

Array = npt.NDArray[Any]


def alike(spans: Sequence[Span]) -> Iterator[tuple[EventColumns, list[int]]]:
    """(how their rows become events, which spans they are), for spans whose rows can be put together."""
    found: dict[tuple[EventColumns, Hashable], list[int]] = {}
    for at, span in enumerate(spans):
        found.setdefault((span.waiting.events, _layout(span)), []).append(at)
    for (events, _), which in found.items():
        yield events, which


def events_of(events: EventColumns, spans: Sequence[Span]) -> Made:
    """Of the rows of all these spans, which are alike, in their order."""
    first = spans[0].waiting.question
    if first.columns is not None:
        names = first.columns
        return events.of_columns({name: _joined([_columns(span)[name] for span in spans], spans) for name in names})
    if first.vectors is not None:
        return events.of_vectors(_vectors(events, spans))
    rows = _joined([cast("Column", span.waiting.question.instances) for span in spans], spans)
    return events.of_instances(cast("Sequence[object]", rows))


def _layout(span: Span) -> Hashable:
    question = span.waiting.question
    if question.columns is not None:
        return tuple((name, _form(column)) for name, column in question.columns.items())
    return question.instances is not None or _form(cast("Column", question.vectors))


def _form(rows: Column) -> Hashable:
    return (rows.dtype.str, rows.shape[1:]) if isinstance(rows, np.ndarray) else None


def _columns(span: Span) -> Mapping[str, Column]:
    return cast("Mapping[str, Column]", span.waiting.question.columns)


def _vectors(events: EventColumns, spans: Sequence[Span]) -> Column:
    given = [cast("Column", span.waiting.question.vectors) for span in spans]
    first = given[0]
    if isinstance(first, np.ndarray) and first.shape[1:] != (events.width,):
        # all are refused for their shape, however long they are: as many rows of it, which take no memory
        return np.broadcast_to(first.dtype.type(0), (sum(span.many for span in spans), *first.shape[1:]))
    return _joined(given, spans)


def _joined(given: Sequence[Column], spans: Sequence[Span]) -> Column:
    """The rows of each span, one after the other; no copy if there is one."""
    parts = [rows[span.start : span.end] for rows, span in zip(given, spans, strict=True)]
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(cast("list[Array]", parts))
    return list(chain.from_iterable(parts))
