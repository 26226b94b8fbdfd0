"""A request as the core has it: what is asked, and what has become of it so far."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.answering.answers import Answers
from app.answering.event_columns import Column, EventColumns

Array = npt.NDArray[Any]

ROW_BYTES = 256  # what a row counts for in the batcher: its bytes are bounded where they are read


@dataclass(frozen=True, slots=True)
class Question:
    """Rows to be answered: exactly one of `instances`, `columns` and `vectors`.

    instances: one mapping from field to value for each row. columns: one column for each field, all of one length.
    vectors: one sequence of numbers for each row, or an array (n, width). See `event_columns.EventColumns` for all, and
    `in_force.InForce` for whose manifest says what a vector's numbers are. keys: one for each row or None, what a
    rollout chooses the version by; the same text as the key of the event in Kafka. A row without a key is stable's.
    version: only this one is to answer, whatever the rollout says. within_s: from now on; None is for ever.
    """

    instances: Sequence[object] | None = None
    columns: Mapping[str, Column] | None = None
    vectors: Sequence[object] | Array | None = None
    keys: Sequence[str | None] | None = None
    version: str | None = None
    within_s: float | None = None

    @property
    def forms(self) -> int:
        """How many of the three were given."""
        return sum(form is not None for form in (self.instances, self.columns, self.vectors))

    def __len__(self) -> int:
        """How many rows."""
        if self.columns is not None:
            return len(next(iter(self.columns.values()), ()))
        rows = self.instances if self.instances is not None else self.vectors
        return 0 if rows is None else len(rows)


class Waiting:
    """A request inside. What the batcher asks of a row, its size and its time, is asked of this, once for each row.

    events: how its rows become events; bound when it is asked, so that a vector means then what it meant when it was
    sent, whichever versions answer.
    """

    __slots__ = ("answers", "arrived_ms", "deadline", "done", "events", "question", "taken", "timer", "trace")

    def __init__(
        self,
        question: Question,
        events: EventColumns,
        done: asyncio.Future[Answers],
        arrived_ms: int,
        deadline: float,
    ) -> None:
        self.question, self.events, self.done = question, events, done
        self.arrived_ms, self.deadline = arrived_ms, deadline
        self.taken = 0  # rows that are in a batch already
        self.answers: list[Answers] = []
        self.timer: asyncio.TimerHandle | None = None
        self.trace: object | None = None  # as RequestTracing.asking has it

    def __len__(self) -> int:
        return ROW_BYTES

    def timestamp(self) -> tuple[int, int]:
        """As a record's: when it came."""
        return (1, self.arrived_ms)

    def refuse(self, why: BaseException) -> None:
        """It has its end, unless it had one before."""
        if not self.done.done():
            # a future takes no StopIteration, and an end of the process is not its caller's
            fit = isinstance(why, Exception) and not isinstance(why, StopIteration)
            self.done.set_exception(why if fit else RuntimeError(f"the batch ended with {type(why).__name__}"))


class Span(NamedTuple):
    """Rows `start` to `end` of a request, which are in this batch."""

    waiting: Waiting
    start: int
    end: int

    @property
    def many(self) -> int:
        """Of its rows."""
        return self.end - self.start


def nothing() -> Answers:
    """The answers to no rows."""
    return Answers(np.zeros(0, np.int64), None, None, np.zeros(0, np.int64), (), {})
