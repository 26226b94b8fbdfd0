"""When each event is meant to be sent: open loop, decided before the run and untouched by how the run goes.

Times have a grain of one millisecond, which is what event_time carries: an event falls on the first whole
millisecond at or after its exact time, so that latency measured from event_time is measured from the
intended send time exactly.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption

Profile = Literal["constant", "ramp", "spike", "sine"]
PROFILES: tuple[Profile, ...] = ("constant", "ramp", "spike", "sine")


@dataclass(frozen=True, slots=True)
class Pace:
    """The intended rate over time, events per second.

    constant: `rate`. ramp: from `rate` to `peak` in `period_s`, then `peak`. spike: `rate`, and `peak`
    during the last `spike_s` of each `period_s`. sine: from `rate` up to `peak` and back in each
    `period_s`. rate 0 means unpaced: as fast as it goes; event_time is then the time an event was made.
    """

    profile: Profile = "constant"
    rate: float = 0.0
    peak: float = 0.0
    period_s: float = 60.0
    spike_s: float = 5.0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise BadOption(f"--profile: {self.profile!r} is not one of {', '.join(PROFILES)}")
        if self.rate < 0 or self.peak < 0 or not np.isfinite([self.rate, self.peak]).all():
            raise BadOption("--rate and --peak: a finite number of events per second, 0 or more")
        if self.profile != "constant":
            if self.peak <= 0:
                raise BadOption(f"--profile {self.profile} needs --peak")
            if not 0 < self.period_s < float("inf"):
                raise BadOption("--period: seconds, more than 0")
        if self.profile == "spike" and not 0 < self.spike_s <= self.period_s:
            raise BadOption("--spike: seconds, more than 0 and at most --period")

    @property
    def unpaced(self) -> bool:
        """No schedule at all."""
        return self.profile == "constant" and self.rate == 0

    def expected(self, elapsed_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many events fit before each time, fractions included: the integral of the rate."""
        t = np.asarray(elapsed_s, dtype=np.float64)
        if self.profile == "ramp":
            rising = np.minimum(t, self.period_s)
            slope = (self.peak - self.rate) / self.period_s
            return self.rate * rising + slope * rising**2 / 2 + self.peak * np.maximum(t - self.period_s, 0)
        if self.profile == "spike":
            periods, within = np.divmod(t, self.period_s)
            calm_s = self.period_s - self.spike_s
            spiking = np.maximum(within - calm_s, 0)
            per_period = self.rate * calm_s + self.peak * self.spike_s
            return periods * per_period + self.rate * (within - spiking) + self.peak * spiking
        if self.profile == "sine":
            middle, swing = (self.rate + self.peak) / 2, (self.peak - self.rate) / 2
            turn = 2 * np.pi / self.period_s
            return middle * t - swing * np.sin(turn * t) / turn
        return self.rate * t

    def due_by(self, elapsed_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many events have been due at each elapsed time. The first is due at 0. Never decreases.

        The tiny addend keeps a whole number a whole number: 1000/s times 0.007 s is 7 events, not 6.999999.
        """
        counts = np.floor(self.expected(np.asarray(elapsed_ms) / 1000.0) + 1e-6).astype(np.int64) + 1
        return np.maximum.accumulate(counts) if counts.ndim else counts

    def total(self, duration_s: float) -> int:
        """Return the number of events due in [0, duration_s)."""
        last_ms = max(int(np.ceil(duration_s * 1000)) - 1, 0)
        return int(self.due_by(np.array([last_ms]))[0])


class Schedule:
    """A pace, walked once from its start: hands out the next events' intended times in order."""

    def __init__(self, pace: Pace, total: int) -> None:
        self._pace = pace
        self._total = total
        self._given = 0
        self._tick_ms = 0

    def take(self, horizon_ms: int, limit: int) -> NDArray[np.int64]:
        """Return the intended times, in ms since the start, of the next events due before the horizon.

        At most `limit`, ascending. Empty if none is due before the horizon. Together they are the whole
        schedule, once.
        """
        if self._given >= self._total or self._tick_ms >= horizon_ms:
            return np.empty(0, dtype=np.int64)
        ticks = np.arange(self._tick_ms, horizon_ms, dtype=np.int64)
        due = np.minimum(self._pace.due_by(ticks), self._total)
        wanted = min(int(due[-1]), self._given + limit)
        if wanted <= self._given:
            self._tick_ms = horizon_ms
            return np.empty(0, dtype=np.int64)
        numbers = np.arange(self._given, wanted)
        times = ticks[np.searchsorted(due, numbers, side="right")]
        # The last tick may hold more events than the limit allowed: it is looked at again.
        self._tick_ms = int(times[-1]) if wanted < int(due[-1]) else horizon_ms
        self._given = wanted
        return times

    @property
    def finished(self) -> bool:
        """Every event has been handed out."""
        return self._given >= self._total
