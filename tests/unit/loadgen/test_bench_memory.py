"""Memory over time: the slope, the curve that is kept, and what the page says of it."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.bench.figures import write_figures
from loadgen.bench.memory_watch import MemoryWatch, slope_mb_per_10_min, thinned
from loadgen.bench.page import block

SAMPLES = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=100)
DRAIN = {"run": "drain", "record_bytes": 56, "events": 5_000_000, "most_mb": 220.0}
SECTION = {
    "measured_at": "2026-01-02T03:04:05+00:00",
    "machine": {"cpus": 2, "platform": "Linux x86_64", "python": "3.11.7", "libraries": {"numpy": "2"}},
    "settings": {},
    "runs": [
        DRAIN | {"peak_mb": 201.4, "events_per_s": 250_000.0, "rss": [[0.0, 90.0], [1.0, 200.0]]},
        DRAIN | {"record_bytes": 1_000, "most_mb": 350.0, "error": "no output within 90 s", "rss": []},
        {
            "run": "soak",
            "minutes": 30.0,
            "most_slope_mb": 1.0,
            "events": 9_000_000,
            "events_per_s": 5_000.0,
            "mean_batch": 41.5,
            "joins": 30,
            "rebalances": 60,
            "peak_mb": 190.0,
            "second_peak_mb": 150.0,
            "from_s": 300.0,
            "slope_mb_per_10_min": 0.123,
            "verified": True,
            "rss": [[0.0, 90.0], [1200.0, 179.5], [1800.0, 180.0]],
        },
    ],
}


@given(st.floats(-5, 5), st.floats(0, 1000), st.lists(st.integers(0, 5_000), min_size=2, max_size=50, unique=True))
def test_the_slope_of_a_line_is_its_own(rise, start, seconds):
    samples = [(float(at), start + rise * at / 600) for at in seconds]

    assert slope_mb_per_10_min(samples, 0.0) == pytest.approx(rise, abs=1e-6)


def test_what_lies_before_does_not_count_and_one_sample_has_no_slope():
    samples = [(0.0, 0.0), (100.0, 500.0), (300.0, 500.0), (900.0, 501.0)]

    assert slope_mb_per_10_min(samples, 300.0) == pytest.approx(1.0)
    assert slope_mb_per_10_min(samples, 900.0) == 0.0
    assert slope_mb_per_10_min([], 0.0) == 0.0


@given(SAMPLES, st.integers(1, 30))
def test_a_thinned_curve_is_part_of_the_curve_in_order_and_keeps_its_peak(samples, most):
    kept = thinned(samples, most)

    places = iter(samples)
    assert all(any(sample == other for other in places) for sample in kept)
    assert len(kept) <= most
    assert max((mb for _, mb in kept), default=0) == max((mb for _, mb in samples), default=0)


class Sleeper:
    """A process to look at."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        self._process.stdout.readline()  # before it runs it may have no page of its own
        return self

    def end(self):
        self._process.communicate(b"\n")

    def __exit__(self, *failure):
        self._process.kill()
        self._process.communicate()


def test_a_process_is_watched_until_the_block_ends_or_it_does():
    with Sleeper() as sleeper:
        with MemoryWatch(sleeper, every_s=0.001) as watch:
            deadline = time.monotonic() + 20
            while len(watch.samples) < 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            sleeper.end()
        assert len(watch.samples) >= 3
        assert all(mb > 0 for _, mb in watch.samples)
        assert [at for at, _ in watch.samples] == sorted(at for at, _ in watch.samples)


def test_the_page_tells_peaks_slope_and_whether_anything_was_lost():
    text = block({"memory": SECTION})

    assert "| records of 56 bytes | 5,000,000 | 201 | 220 | 250,000 |" in text
    assert "| records of 1,000 bytes | 5,000,000 | failed: no output within 90 s | 350 | |" in text
    assert "**+0.12 MB per 10 minutes** (least squares, after the first 5 minutes; at most 1)" in text
    assert "in the last ten minutes by +0.50 MB, peak 190 MB" in text
    assert "joined and left 30 times (60 rebalances at the first one)" in text
    assert "every event had exactly one outcome" in text


def test_the_plot_shows_drains_and_soak(tmp_path):
    write_figures(tmp_path, {"memory": SECTION})

    text = (tmp_path / "memory.svg").read_text()
    assert "Draining a backlog" in text
    assert "A long run with rebalances" in text
