"""Which customer, or digit, an event is about: always a new one, or one of a population with favourites."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption

BLOCK = 4096
STREAM = 0x5E  # sets these draws apart from the formula's, which use [seed, block]
MAX_POPULATION = 10_000_000  # the cumulative weights are held in memory: 80 MB


@dataclass(frozen=True, slots=True)
class Skew:
    """How popular each number is.

    population 0: event i is about number i, once. Else numbers 0 to population - 1, number k with a weight of
    1 / (k + 1) ** exponent (Zipf's law; exponent 0 is uniform).
    """

    population: int = 0
    exponent: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.population <= MAX_POPULATION:
            raise BadOption(f"--keys: 0 to {MAX_POPULATION}")
        if not 0 <= self.exponent <= 10:
            raise BadOption("--key-skew: 0 (uniform) to 10")
        if self.exponent and not self.population:
            raise BadOption("--key-skew needs --keys, the number of different keys")


class KeyNumbers:
    """The number each event is about; a pure function of (seed, event index)."""

    def __init__(self, skew: Skew, seed: int) -> None:
        self._skew = skew
        self._seed = seed
        weights = np.arange(1, skew.population + 1, dtype=np.float64) ** -skew.exponent
        self._cumulative = np.cumsum(weights) / weights.sum() if skew.population else weights
        self._block: tuple[int, NDArray[np.int64]] | None = None

    def numbers(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the numbers of events first to first + count - 1."""
        if not self._skew.population:
            return np.arange(first, first + count, dtype=np.int64)
        parts = []
        for block in range(first // BLOCK, (first + count - 1) // BLOCK + 1):
            start, stop = max(first - block * BLOCK, 0), min(first + count - block * BLOCK, BLOCK)
            parts.append(self._numbers_of(block)[start:stop])
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _numbers_of(self, block: int) -> NDArray[np.int64]:
        if self._block is None or self._block[0] != block:
            drawn = np.random.default_rng([self._seed, block, STREAM]).random(BLOCK)
            ranks = np.searchsorted(self._cumulative, drawn, side="right")
            # Rounding may leave the last cumulative weight a hair below 1.
            self._block = (block, np.minimum(ranks, self._skew.population - 1))
        return self._block[1]
