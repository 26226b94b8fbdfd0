"""Arrivals over time: seconds since the beginning → how many times the ordinary rate."""

import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded_load.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """at: seconds → times the ordinary rate. spike: when the load rose at once and when it fell, if it did."""

    name: str
    lasts_s: float
    at: object
    spike: tuple[float, float] | None = None

    def faster(self, scale):
        """The same in a world where everything happens `scale` times as fast."""
        spike = self.spike and tuple(when / scale for when in self.spike)
        return Shape(self.name, self.lasts_s / scale, lambda now_s: self.at(now_s * scale), spike)

    def peak(self):
        return max(self.at(second) for second in range(int(self.lasts_s)))


def steady(times=2.0, lasts_s=3_600.0):
    return Shape("steady", lasts_s, lambda _: times)


def spike(times=5.0, begins_s=600.0, ends_s=1_800.0, lasts_s=3_600.0):
    """1x, then so many times as much at once, then 1x."""
    return Shape("spike", lasts_s, lambda now_s: times if begins_s <= now_s < ends_s else 1.0, (begins_s, ends_s))


def ramp(times=5.0, begins_s=300.0, top_s=2_100.0, lasts_s=3_600.0):
    """1x, then evenly up, and down again as evenly in what is left."""

    def at(now_s):
        up = (now_s - begins_s) / (top_s - begins_s)
        down = (lasts_s - now_s) / (lasts_s - top_s)
        return 1.0 + (times - 1.0) * max(0.0, min(up, down, 1.0))

    return Shape("ramp", lasts_s, at)


def diurnal(times=5.0, day_s=7_200.0, days=2):
    """Days of two hours: from 1x at night to so many times as much at noon, twelve times as fast as the sun."""
    return Shape(
        "diurnal",
        days * day_s,
        lambda now_s: 1.0 + (times - 1.0) * (1.0 - math.cos(2.0 * math.pi * now_s / day_s)) / 2.0,
    )


def recorded(path=RECORDED):
    """What a broker saw: [[seconds, times], …], each until the next."""
    page = json.loads(path.read_text())
    whens, times = zip(*page["load"], strict=True)
    return Shape("recorded", page["lasts_s"], lambda now_s: times[max(bisect_right(whens, now_s) - 1, 0)])


SHAPES = {"steady": steady, "spike": spike, "ramp": ramp, "diurnal": diurnal, "recorded": recorded}
