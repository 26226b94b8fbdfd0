"""Looks at a rollout page and at what its versions do, again and again, and changes the page when that is decided.

The page in force is what counts, never what was seen before: a change is made only on the revision it was decided
for. Who lost a race, cannot reach the store, or is not told by the workers changes nothing, says so, and looks again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from app.clock import Clock
from app.errors import AppError, ModelMissing
from app.facts import MetricsLook
from app.models.rollout import CanaryRollout, Rollout, ShadowRollout
from app.models.rollout_changes import MAX_WORDS, Change, Order, advance, roll_back
from app.rollouts.decision import NOTHING, Decision, Evidence, decide
from app.rollouts.measurements import Counts, Measurements, Tally, Unusable, revisions

# Of a page: what may change while it is the same step of the same rollout.
NOT_THE_STEP = {"revision", "previous", "held", "guards", "history"}


class Pages(Protocol):
    """The model store, as far as this goes. Both raise an AppError if it does not answer, or has no such page."""

    def rollout(self, model: str) -> Rollout:
        """What is in force."""
        ...

    def change_rollout(
        self, model: str, change: Change, order: Order, *, seen: int | None = None
    ) -> tuple[Rollout, Rollout]:
        """(before, after). Raises RolloutRefused, and changes nothing, if `seen` is no longer in force."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """One look. page: in force when it ended; None if that is not known.

    changed: whether this look changed it. trouble: why it could not be done, or nothing is known; empty if all went
    well. counts: version → what it did since the step began.
    """

    at: datetime
    page: Rollout | None
    decision: Decision | None
    changed: bool
    trouble: str
    counts: dict[str, Counts]

    @property
    def ended(self) -> str:
        """The verdict; "not_done" if there is none, or it could not be carried out."""
        return "not_done" if self.trouble or self.decision is None else self.decision.verdict

    @property
    def words(self) -> str:
        """For people, two lines or three."""
        at = f"{self.at:%Y-%m-%d %H:%M:%S} UTC"
        if self.page is None or self.decision is None:
            return f"{at}  not known: {self.trouble}"
        rows = ", ".join(f"{counts.rows:,} by {version}" for version, counts in sorted(self.counts.items()))
        lines = [
            f"{at}  revision {self.page.revision}: {self.page.words}" + (f"; rows: {rows}" if rows else ""),
            f"  {self.decision.verdict.replace('_', ' ')}: {self.decision.reason}",
            *([f"  {self.trouble}"] if self.trouble else []),
        ]
        return "\n".join(lines)

    @property
    def facts(self) -> dict[str, object]:
        """For programs."""
        decision = self.decision
        return {
            "at": self.at.isoformat(),
            "page": self.page.model_dump(mode="json", exclude={"history"}) if self.page else None,
            "verdict": decision.verdict if decision else None,
            "reason": decision.reason if decision else None,
            "overdue": decision.overdue if decision else None,
            "changed": self.changed,
            "trouble": self.trouble or None,
            "versions": {version: counts.figures() for version, counts in sorted(self.counts.items())},
        }


class _Step:
    """What was measured of one step of a rollout. before: what stable did in the step before this one, if watched."""

    def __init__(self, page: Rollout, before: Counts | None) -> None:
        self.page = page
        self._before = before
        self._tally = Tally()
        self._complete_at_s: float | None = None
        self.measured_s = 0.0
        self.untold: list[str] = []  # what is not known of the time before the first look, and was not said yet

    def add(self, look: MetricsLook, at_s: float) -> None:
        """Looks in the order of time. Time counts between two looks that read every worker."""
        self._tally.add(look)
        if look.unread or not look.workers:
            self._complete_at_s = None
            return
        if self._complete_at_s is not None:
            self.measured_s += max(0.0, at_s - self._complete_at_s)
        self._complete_at_s = at_s

    @property
    def counts(self) -> dict[str, Counts]:
        """By version, in the part that it has."""
        counts = self._tally.counts()
        if isinstance(self.page, ShadowRollout):
            counts[self.page.candidate] = self._tally.shadows().get(self.page.candidate, NOTHING)
        return counts

    @property
    def unusable(self) -> dict[str, Unusable]:
        """By version."""
        return self._tally.unusable()

    @property
    def before(self) -> Counts:
        """What stable did before; what workers had counted when they were first seen, if that is all there is."""
        return self._before or self._tally.earlier().get(self.page.stable, NOTHING)

    @property
    def stable(self) -> Counts:
        """What stable does, for the step after this one."""
        counts = self.counts.get(self.page.stable, NOTHING)
        return counts if counts.rows else self.before


class Watcher:
    """Watches one model. who: whose name the history gets. dry_run: decides, and changes nothing."""

    def __init__(
        self, model: str, pages: Pages, measurements: Measurements, clock: Clock, *, who: str, dry_run: bool = False
    ) -> None:
        self._model, self._pages, self._measurements = model, pages, measurements
        self._clock, self._who, self._dry_run = clock, who, dry_run
        self._step: _Step | None = None

    def look(self) -> Report:
        """Look once, decide, and change the page if that is decided. Raises no AppError: it is in the report."""
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        try:
            page = self._pages.rollout(self._model)
        except AppError as exc:
            return Report(now, None, None, changed=False, trouble=_words(exc), counts={})
        step = self._current(page, now)
        look = self._measurements.now()
        step.add(look, self._clock.monotonic())
        missing, step.untold = [*step.untold, *_missing(look, page)], []
        evidence = Evidence(step.counts, step.before, step.measured_s, missing, step.unusable)
        decision = decide(page, evidence, now)
        changed, trouble = False, ""
        if decision.verdict in {"promote", "roll_back"} and not self._dry_run:
            try:
                page = self._change(page, decision, now)
                changed = True
            except AppError as exc:  # a person was quicker, or the store does not answer: the next look decides anew
                trouble = f"not changed: {_words(exc)}"
        return Report(now, page, decision, changed=changed, trouble=trouble, counts=dict(evidence.versions))

    def run(self, tell: Callable[[Report], None], stopped: Callable[[], bool]) -> None:
        """Look and tell until stopped. stopped: waits for the next look, True if there is to be none.

        Raises ModelMissing if there is nothing to watch at first.
        """
        self._check_there_is_a_page()
        tell(self.look())
        while not stopped():
            tell(self.look())

    def once(self, tell: Callable[[Report], None], stopped: Callable[[], bool]) -> Report:
        """Look; if nothing is decided, wait and look a second time: counters say something by their difference.

        Raises ModelMissing if there is nothing to watch.
        """
        self._check_there_is_a_page()
        report = self.look()
        tell(report)
        if report.decision is not None and report.decision.verdict == "hold" and not stopped():
            report = self.look()
            tell(report)
        return report

    def _check_there_is_a_page(self) -> None:
        try:
            self._pages.rollout(self._model)
        except ModelMissing:
            raise
        except AppError:
            return  # each look says so, and tries again

    def _current(self, page: Rollout, now: datetime) -> _Step:
        """The step that the page is in; if it is a new one, with what is known of the time since it began."""
        last = self._step
        if last is not None and _step_of(last.page) == _step_of(page):
            return last
        before = last.stable if last is not None and _follows(last.page, page) else None
        step = self._step = _Step(page, before)
        if isinstance(page, CanaryRollout):
            elapsed_s = now.timestamp() - self._clock.monotonic()
            past = self._measurements.since(page.since.timestamp())
            for look in past:
                step.add(look, look.at_s - elapsed_s)
            if past and not any(look.workers for look in past):
                why = ", ".join(f"{name}: {reason}" for name, reason in sorted(past[-1].unread.items()))
                step.untold = [f"what happened since the step began is not known ({why})"]
        return step

    def _change(self, page: Rollout, decision: Decision, now: datetime) -> Rollout:
        order = Order(now, self._who, decision.reason[:MAX_WORDS], automatic=True)
        move = advance if decision.verdict == "promote" else roll_back
        return self._pages.change_rollout(self._model, lambda seen: move(seen, order), order, seen=page.revision)[1]


def _step_of(page: Rollout) -> dict[str, object]:
    return page.model_dump(exclude=NOT_THE_STEP)


def _follows(one: Rollout, other: Rollout) -> bool:
    """Whether they are steps of the same canary."""
    return (
        isinstance(one, CanaryRollout)
        and isinstance(other, CanaryRollout)
        and (one.stable, one.candidate, one.salt) == (other.stable, other.candidate, other.salt)
    )


def _missing(look: MetricsLook, page: Rollout) -> list[str]:
    """What a look does not tell, in words."""
    missing = []
    if look.unread:
        why = ", ".join(f"{name}: {reason}" for name, reason in sorted(look.unread.items()))
        missing.append(
            f"no measurements from {len(look.unread)} of {len(look.unread) + len(look.workers)} workers ({why})"
        )
    elif not look.workers:
        missing.append("no measurements: no workers")
    behind = {worker: revision for worker, revision in revisions(look).items() if revision < page.revision}
    if behind:
        which = ", ".join(f"{worker}: {revision}" for worker, revision in sorted(behind.items()))
        missing.append(f"revision {page.revision} is not in force everywhere yet ({which})")
    return missing


def _words(exc: AppError) -> str:
    return f"{type(exc).__name__}: {exc}"
