"""A shadow whose process is a pair of sockets in the test's hand, and batches of the small pipeline to offer."""

import socket

import numpy as np
from fakes import ManualClock
from made_pages import shadow_page, stable_page
from small_pipeline import SmallPipeline, event, model_of

from app.worker.shadow import Shadow, ShadowPolicy
from app.worker.shadow_line import (
    Compared,
    Frames,
    Kind,
    Refused,
    compared_bytes,
    frame,
    refused_bytes,
    rows_of,
)

POLICY = ShadowPolicy(
    starts=3, backoff_s=1.0, start_within_s=60, answer_within_s=10, end_within_s=0.0, places=2, most_bytes=100_000
)


class ProcessByHand:
    """A `shadow.ShadowChild`: says what the test wants said."""

    def __init__(self, page):
        self.page = page
        self.line, self._theirs = socket.socketpair()
        self.line.settimeout(0.0)
        self._theirs.settimeout(0.0)
        self._frames = Frames(1 << 24)
        self.ended = None

    def end(self, within_s):
        self.ended = within_s
        self.line.close()
        self._theirs.close()
        return "ended by the test"

    def say(self, kind, content=b""):
        self._theirs.sendall(frame(kind, content))

    def say_bytes(self, content):
        self._theirs.sendall(content)

    def die(self):
        self._theirs.close()

    def got(self):
        """The batches that came meanwhile."""
        found = []
        while True:
            try:
                came = self._theirs.recv(1 << 20)
            except BlockingIOError:
                return found
            if not came:
                return found
            found += [rows_of(content) for _, content in self._frames.feed(came)]

    def compared(self, agreed=0, disagreed=0, failed=0, unpublished=0, seconds=0.0, model_seconds=0.0):
        differences = np.full(agreed + disagreed, 0.25, np.float32)
        report = Compared(agreed, disagreed, failed, unpublished, seconds, model_seconds, differences)
        self.say(Kind.COMPARED, compared_bytes(report))

    def refuse(self, error, message="because"):
        self.say(Kind.REFUSED, refused_bytes(Refused(error, message)))


class Counts:
    """A `ports.ShadowObserver` that adds up."""

    def __init__(self):
        self.rows, self.errors, self.differences, self.model_seconds = {}, [], [], []

    def shadow_counted(self, fact):
        for result in ("agreed", "disagreed", "failed", "dropped"):
            if count := getattr(fact, result):
                self.rows[result] = self.rows.get(result, 0) + count
        if fact.model_seconds:
            self.model_seconds.append(fact.model_seconds)
        if fact.differences is not None:
            self.differences += fact.differences.tolist()

    def shadow_failed(self, version, error):
        self.errors.append((version, error))


class ShadowWorld:
    """One shadow, turned by hand."""

    def __init__(self, **policy):
        self.clock, self.seen, self.processes = ManualClock(), Counts(), []
        self.cannot_start = False
        given = {name: policy.get(name, getattr(POLICY, name)) for name in ShadowPolicy.__dataclass_fields__}
        self.shadow = Shadow(self._launch, ShadowPolicy(**given), self.clock, self.seen, on_thread=False)
        self.pipeline = SmallPipeline(model_of("1"))
        self._offset = 0
        self.page = None

    def _launch(self, page):
        if self.cannot_start:
            raise OSError("no more processes")
        self.processes.append(ProcessByHand(page))
        return self.processes[-1]

    @property
    def process(self):
        return self.processes[-1]

    def follow(self, page):
        self.page = page
        self.pipeline.use(page or stable_page("1", 99))
        self.shadow.follow(page)
        self.turn()

    def begin(self, **page):
        """A shadow that is ready."""
        self.follow(shadow_page("1", "2", **page))
        self.ready()

    def ready(self):
        self.process.say(Kind.READY)
        self.turn()

    def turn(self, times=2):
        for _ in range(times):
            self.shadow.turn(0.0)

    def answered(self, rows=4):
        records = [event((self._offset + i) % 9, self._offset + i) for i in range(rows)]
        self._offset += rows
        return self.pipeline.chain.answer(self.pipeline.prepare(records))

    def offer(self, rows=4):
        self.shadow.offer(self.answered(rows))

    def total(self):
        return sum(self.seen.rows.values())
