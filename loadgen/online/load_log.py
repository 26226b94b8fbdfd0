"""What became of every request of a run, in columns."""

from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.online.target import Reply


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Row i of every column is the same request, in the order they ended. Times in ms since the run's start.

    intended_ms: when it was meant to be sent; of a run without a pace, when it was. outcome: index into `words`.
    """

    intended_ms: NDArray[np.float64]
    sent_ms: NDArray[np.float64]
    ended_ms: NDArray[np.float64]
    outcome: NDArray[np.int64]
    words: tuple[str, ...]
    versions: dict[str, int]

    def is_word(self, word: str) -> NDArray[np.bool_]:
        """Rows with that outcome."""
        index = self.words.index(word) if word in self.words else -1
        found: NDArray[np.bool_] = self.outcome == index
        return found


class LoadLog:
    """Takes one line per request. What is due before `warmup_ms` is forgotten."""

    def __init__(self, warmup_ms: float = 0.0) -> None:
        self._warmup_ms = warmup_ms
        self._times = array("d")  # three numbers per request, not three objects: runs have millions
        self._outcomes = array("q")
        self._words: dict[str, int] = {}
        self._versions: Counter[str] = Counter()
        self.ended = 0

    def add(self, intended_ms: float, sent_ms: float, ended_ms: float, reply: Reply) -> None:
        """Write one request down."""
        self.ended += 1
        if intended_ms < self._warmup_ms:
            return
        self._times.extend((intended_ms, sent_ms, ended_ms))
        self._outcomes.append(self._words.setdefault(reply.outcome, len(self._words)))
        if reply.version is not None:
            self._versions[reply.version] += 1

    def outcomes(self) -> Outcomes:
        """Everything that was written down."""
        times = np.array(self._times).reshape(-1, 3)
        return Outcomes(
            intended_ms=times[:, 0],
            sent_ms=times[:, 1],
            ended_ms=times[:, 2],
            outcome=np.array(self._outcomes),
            words=tuple(self._words),
            versions=dict(sorted(self._versions.items())),
        )
