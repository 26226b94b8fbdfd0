"""Resident memory of a process over time, and how fast it rises."""

import importlib
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from loadgen.bench.peer_process import PeerProcess

EVERY_S = 1.0
TEN_MINUTES_S = 600.0
MOST_POINTS = 300  # of a curve that is written down: enough for any plot

Sample = tuple[float, float]  # seconds since the watch began, resident MB


class MemoryWatch:
    """Looks at one process, without its children, every second for the length of a block."""

    def __init__(self, peer: PeerProcess, every_s: float = EVERY_S) -> None:
        """The samples stay when the block is left."""
        psutil: Any = importlib.import_module("psutil")  # a PeerProcess has found it
        self._process, self._gone, self._every_s = psutil.Process(peer.pid), psutil.Error, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        looks = 0
        while not self._ended.is_set():
            try:
                resident_mb = self._process.memory_info().rss / 2**20
            except self._gone:
                return
            if resident_mb == 0:  # it has ended, and nobody has asked how
                return
            self.samples.append((round(time.monotonic() - self._began, 2), round(resident_mb, 2)))
            looks += 1
            self._ended.wait(max(0.0, self._began + looks * self._every_s - time.monotonic()))


def slope_mb_per_10_min(samples: Sequence[Sample], from_s: float) -> float:
    """Least squares over the samples from then on; 0.0 with fewer than two of them."""
    later = np.array([sample for sample in samples if sample[0] >= from_s], dtype=np.float64)
    if len(later) < 2:
        return 0.0
    at_s, mb = later[:, 0] - later[:, 0].mean(), later[:, 1]
    spread = float(at_s @ at_s)
    return float(at_s @ (mb - mb.mean())) / spread * TEN_MINUTES_S if spread > 0 else 0.0


def thinned(samples: Sequence[Sample], most: int = MOST_POINTS) -> list[Sample]:
    """Of each stretch of equal length its highest sample, in order, so that no peak is left out of a plot."""
    size = -(-len(samples) // most) if samples else 1
    stretches = [samples[at : at + size] for at in range(0, len(samples), size)]
    return [max(stretch, key=lambda sample: sample[1]) for stretch in stretches]
