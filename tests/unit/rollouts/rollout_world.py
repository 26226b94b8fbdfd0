"""Workers that answer by the rollout page in force, each version in its own way; what they did is in real metrics."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from fakes import ManualClock

from app.facts import Asked, BatchScored, Committed, InUse, MetricsLook, Outcomes, Serving, ShadowCounted
from app.models.model_store import open_store
from app.models.rollout import ShadowRollout, first_rollout
from app.models.rollout_changes import Order, guard, start_canary
from app.observe.pipeline_observer import PipelineObserver, ShadowMetrics
from app.observe.worker_metrics import Metrics
from app.rollouts.measurements import JUDGED
from app.rollouts.watch import Watcher

MODEL = "churn"
STABLE, CANDIDATE = "1", "2"
LADDER = tuple((percent, 60) for percent in (5, 25, 50, 100))  # per cent, seconds to hold


@dataclass(frozen=True)
class Ways:
    """How a version answers: shares of its rows, seconds of a batch, and how often it differs from stable."""

    errors: float = 0.001
    batch_s: float = 0.001
    yes: float = 0.3
    differs: float = 0.0
    right: float | None = None


class Worker:
    """The metrics of one process."""

    def __init__(self):
        self.metrics = Metrics()
        self.observer = PipelineObserver(self.metrics, "p")
        self.shadow = ShadowMetrics(self.metrics, "p", MODEL)
        self.trouble = None  # why it cannot use the candidate
        self.more = {}  # series that others export

    def looks(self, page, times=5):
        """As often as it does within a tick."""
        if self.trouble is None or CANDIDATE not in page.versions:
            self.serves(page.revision)
            return
        for _ in range(times):
            self.observer.rollout_failed(MODEL, self.trouble, CANDIDATE)

    def serves(self, revision):
        self.observer.serving(Serving(MODEL, revision, (InUse(STABLE, "d", "stable"),)))

    def answered(self, version, rows, ways, rng, batches=10):
        failed = int(rng.binomial(rows, ways.errors))
        yes = int(rng.binomial(rows - failed, ways.yes))
        for number, of_batch in enumerate(np.array_split(np.arange(rows), min(batches, rows))):
            bad = failed if number == 0 else 0
            seconds = ways.batch_s * rng.lognormal(0, 0.2)
            good = max(len(of_batch) - bad, 0)
            asked = Asked(MODEL, version, seconds, answered=good, rows_failed=len(of_batch) - good)
            self.observer.batch_scored(BatchScored(len(of_batch), "age", 0.0, seconds, (asked,), (len(of_batch),)))
        results = {name: count for name, count in (("1", yes), ("0", rows - failed - yes)) if count}
        outcomes = Outcomes(MODEL, version, rows - failed, 0, results, {}, np.zeros(1, np.int64))
        self.observer.committed(Committed((outcomes,), 0))
        if ways.right is not None:
            right = int(rng.binomial(rows, ways.right))
            self.count(JUDGED, version, "right", right)
            self.count(JUDGED, version, "wrong", rows - right)

    def compared(self, version, rows, ways, rng, batches=10):
        for of_batch in np.array_split(np.arange(rows), min(batches, rows)):
            failed = int(rng.binomial(len(of_batch), ways.errors))
            differing = int(rng.binomial(len(of_batch) - failed, ways.differs))
            agreed = len(of_batch) - failed - differing
            seconds = ways.batch_s * rng.lognormal(0, 0.2)
            self.shadow.shadow_counted(ShadowCounted(version, agreed, differing, failed, model_seconds=seconds))

    def count(self, name, version, result, count):
        series = (name, (("model", MODEL), ("version", version), ("result", result)))
        self.more[series] = self.more.get(series, 0) + count

    def samples(self):
        more = [(name, labels, float(value)) for (name, labels), value in self.more.items()]
        return [sample for sample in (*self.metrics.samples(), *more) if ("model", MODEL) in sample[1]]


class Figures:
    """What can be read of workers; `unread` has those that do not answer, `past` what a server would have kept."""

    def __init__(self, workers):
        self.workers, self.unread, self.past = workers, set(), []

    def now(self):
        shown = {name: worker.samples() for name, worker in self.workers.items() if name not in self.unread}
        return MetricsLook(shown, dict.fromkeys(self.unread & self.workers.keys(), "connection refused"))

    def keep(self, at_s):
        look = self.now()
        self.past.append(MetricsLook(look.workers, look.unread, at_s))

    def since(self, epoch_s):
        return [look for look in self.past if look.at_s >= epoch_s]


class World:
    """Two workers, a store of two versions, a clock, and a watcher; `tick` lets ten seconds pass."""

    def __init__(self, folder, ways=None, *, guards=None, seed=7, dry_run=False):
        self.clock = ManualClock(now_ms=1_790_000_000_000)
        self.rng = np.random.default_rng(seed)
        self.ways = {STABLE: Ways(), CANDIDATE: Ways()} | (ways or {})
        self.store = open_store("store", folder, create=True)
        for version in (STABLE, CANDIDATE):
            where = folder / "store" / MODEL / version
            where.mkdir(parents=True)
            (where / "manifest.json").write_text("{}")
        page = first_rollout(MODEL, STABLE, at=self.now, who="test")
        (folder / "store" / MODEL / "rollout.json").write_text(page.model_dump_json())
        if guards:
            self.order(lambda page, order: guard(page, guards, order))
        self.workers = {"a": Worker(), "b": Worker()}
        self.figures = Figures(self.workers)
        self.rows_a_tick = 2000
        self.watcher = self.new_watcher(dry_run=dry_run)
        self.reports = []

    def new_watcher(self, pages=None, **rest):
        return Watcher(MODEL, pages or self.store, self.figures, self.clock, who="rollout watch (me@here)", **rest)

    @property
    def now(self):
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @property
    def page(self):
        return self.store.rollout(MODEL)

    def order(self, change, who="a person", why="because", **rest):
        """Somebody changes the page."""
        order = Order(self.now, who, why, **rest)
        return self.store.change_rollout(MODEL, lambda page: change(page, order), order)[1]

    def start_canary(self, steps=LADDER):
        return self.order(lambda page, order: start_canary(page, CANDIDATE, steps, order))

    def tick(self, seconds=10.0):
        """Records come in and are answered as the page has it."""
        self.clock.advance(seconds)
        page = self.page
        for worker in self.workers.values():
            worker.looks(page)
            rows = self.rows_a_tick // len(self.workers)
            weights = np.array([arm.weight for arm in page.arms])
            shares = self.rng.multinomial(rows, weights / weights.sum())
            for arm, count in zip(page.arms, shares.tolist(), strict=True):
                if count:
                    worker.answered(arm.version, count, self.ways[arm.version], self.rng)
            if isinstance(page, ShadowRollout):
                worker.compared(page.candidate, rows, self.ways[page.candidate], self.rng)

    def watch(self, ticks, watcher=None):
        """Look, and once after each tick; the reports of these looks."""
        left = iter(range(ticks))
        reports = []

        def stopped():
            if next(left, None) is None:
                return True
            self.tick()
            return False

        (watcher or self.watcher).run(reports.append, stopped)
        self.reports += reports
        return reports
