"""A reader of committed outcomes that runs through the faults, and judges at any time.

It is loadgen's verifier, reading on a thread of its own from before the first event until after the last. It also notes
when outcomes became visible: that is what recovery means to whoever reads them.
"""

import contextlib
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from itertools import islice

import numpy as np

from loadgen.errors import BrokerFailed
from loadgen.verifying import Verification
from tests.integration.worker_process import wait_until

HOLD = 20_000
LOOK_S = 0.05
PAUSE_S = 0.02  # between looks: more comes at once, and a judgement has its turn


class _Noting(Verification):
    """Notes per output partition when predictions were received, and how young the youngest of them was."""

    def __init__(self, plan, start, **options):
        super().__init__(plan, start, **options)
        self.received = defaultdict(list)  # partition → (received_ms, latest timestamp_ms), as they came

    def read_outcomes(self, wait_s):
        dead_letters = self._dead_letter_reader.read(0.0)
        predictions = self._prediction_reader.read(wait_s)
        for partition in np.unique(predictions.partition).tolist():
            youngest = int(predictions.timestamp_ms[predictions.partition == partition].max())
            self.received[partition].append((predictions.received_ms, youngest))
        self._dead_letters.add(dead_letters)
        self._predictions.add(predictions)
        return len(predictions) + len(dead_letters)


class Witness:
    """Reads from construction on until `verdict`. Any thread may ask."""

    def __init__(self, plan, *, expected_events=0):
        self._plan = plan
        start = wait_until(lambda: _offsets(plan.first_offsets), "the topics to be served by all brokers")
        self._verification = _Noting(plan, start, expected_events=expected_events, basis="received", hold=HOLD)
        self._lock = threading.Lock()  # around each look: a judgement must not see half of one
        self._ended = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._read, name="witness", daemon=True)
        self._thread.start()

    @property
    def count(self):
        """Outcomes seen."""
        _, predictions, dead_letters = self._verification.counts
        return predictions + dead_letters

    def recovered_ms(self, since_ms, partitions):
        """When each of the partitions had shown an outcome made after that time; None if one has not yet."""
        self._raise_failure()
        times = []
        for partition in partitions:
            seen = self._verification.received[partition]  # only ever appended to
            later = islice(seen, bisect_left(seen, (since_ms,)), None)
            when = next((received for received, youngest in later if youngest >= since_ms), None)
            if when is None:
                return None
            times.append(when)
        return max(times)

    def wait_for(self, count, what="outcomes"):
        """Until so many outcomes more are visible."""
        goal = self.count + count
        wait_until(lambda: self._raise_failure() or self.count >= goal, lambda: f"{goal} {what}, now {self.count}")

    def violations_so_far(self):
        """What is wrong whatever else may come: all laws but `lost`. Reads the input up to its end to know."""
        with self._lock:
            self._read_inputs()
            verdict = self._verification.verdict()
        return [violation for violation in verdict.violations if violation.kind != "lost"]

    def verdict(self):
        """Read to the end, which must come, and judge everything. Reading is over afterwards."""
        self._end()
        self._raise_failure()
        self._verification.read_to_stable_end(lambda *counts: None)
        return self._verification.verdict()

    def close(self):
        """End the readers."""
        self._end()
        self._verification.close()

    def _end(self):
        self._ended.set()
        self._thread.join()

    def _read(self):
        try:
            while not self._ended.is_set():
                with self._lock:
                    self._verification.read_outcomes(LOOK_S)
                time.sleep(PAUSE_S)
        except BaseException as exc:  # noqa: BLE001 - the top of the thread; raised again by whoever asks next
            self._failure = exc

    def _read_inputs(self):
        """Up to their ends as they are now: every outcome seen so far is about one of them."""
        ends = wait_until(lambda: _offsets(self._plan.end_offsets), "the ends of the input topics")
        readers = self._verification._input_readers

        def read():
            for reader in readers:
                self._verification._inputs.add(reader.topic, reader.read(LOOK_S))
            return all(reader.has_read(ends[reader.topic]) for reader in readers)

        wait_until(read, "the input")

    def _raise_failure(self):
        if self._failure is not None:
            raise self._failure


def _offsets(ask):
    """None while one broker does not know yet what it leads."""
    with contextlib.suppress(BrokerFailed):
        return ask()
    return None
