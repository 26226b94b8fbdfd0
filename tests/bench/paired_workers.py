"""Two workers over the same backlog at the same moment: what one costs that does more than the other.

On cores that are shared, runs one after another differ by more than what is looked for (a tenth from minute to minute
here). Two workers that run at once meet the same moment: they have about the same share of the cores, so the ratio of
what they do is about that of what an event costs them, and CPU time per event does not depend on the share. What counts
is the stretch in which both are at work.
"""

import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil

from loadgen.bench.broker import create, delete
from loadgen.bench.ratios import paired_ratio
from loadgen.kafka_client import KafkaOptions
from tests.integration.worker_process import Samples, running_worker, wait_until

LOOK_S = 0.2
WARM_SHARE, END_SHARE = 0.1, 0.95  # of the backlog: who is first at the end ends the stretch for both
WAIT_S = 600.0


@dataclass(frozen=True)
class Stretch:
    """What one of the two did in it. cpu_us: of an event, all threads. scrape: its metrics at the end."""

    events_per_s: float
    cpu_us: float
    scrape: Samples


@contextmanager
def topics(kafka, *kinds):
    """Fresh topics, gone afterwards: what many runs write is more than a disk should hold."""
    names = [f"{kind}.{uuid.uuid4().hex[:8]}" for kind in kinds]
    create(KafkaOptions(kafka), names)
    try:
        yield names
    finally:
        delete(KafkaOptions(kafka), names)


def pair_at_once(one, other, events, folder, *, one_first):
    """(`Stretch` of a worker with the one settings, with the other); each reads all of so many events in its own group.

    one_first: which is started first.
    """
    order = [one, other] if one_first else [other, one]
    with ExitStack() as running:
        workers = [running.enter_context(running_worker(its, folder / str(at))) for at, its in enumerate(order)]
        wait_until(
            lambda: min(look.scrape.records() for look in map(look_at, workers)) >= WARM_SHARE * events,
            "every worker to be at work",
            WAIT_S,
        )
        before = after = [look_at(worker) for worker in workers]
        assert max(look.scrape.records() for look in before) < events / 2, "they did not begin together"
        deadline = time.monotonic() + WAIT_S
        while max(look.scrape.records() for look in after) < END_SHARE * events:
            assert time.monotonic() < deadline, f"not done within {WAIT_S:g} s"
            time.sleep(LOOK_S)
            after = [look_at(worker) for worker in workers]
        assert max(look.scrape.records() for look in after) < events, "too few events for looks this far apart"
        for worker in workers:
            assert worker.stop() == 0
    stretches = [stretch(*looks) for looks in zip(before, after, strict=True)]
    return stretches if one_first else stretches[::-1]


@dataclass(frozen=True)
class Look:
    """A scrape, and the time and CPU time at it."""

    scrape: Samples
    at_s: float
    cpu_s: float


def look_at(worker):
    """A `Look` at it now."""
    scrape, used = worker.metrics(), psutil.Process(worker.pid).cpu_times()
    return Look(scrape, time.monotonic(), used.user + used.system)


def stretch(before, after):
    """Between two looks at one worker."""
    count = after.scrape.records() - before.scrape.records()
    return Stretch(count / (after.at_s - before.at_s), (after.cpu_s - before.cpu_s) / count * 1e6, after.scrape)


def compared(firsts, seconds, figure):
    """The ratio of two workers' figure over their pairs, with its 95 % interval, as a text."""
    ratio = paired_ratio(
        [(getattr(one, figure), getattr(other, figure)) for one, other in zip(firsts, seconds, strict=True)]
    )
    return f"{ratio.middle:.3f}" if ratio.low is None else f"{ratio.middle:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
