"""Polls the rollout page and makes ready what it asks for, beside what serves: the stream only takes the result.

On a thread of its own. Reading, hashing, loading and running a model release the interpreter lock for most of their
time, so the stream goes on; what they do under it grows with the graph. The thread has the normal priority: a
session's own threads would inherit a lower one, and whoever holds the interpreter lock at a low priority keeps the
stream waiting for it.
"""

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Protocol

import structlog

from app.answering.lineup import Lane, Lineup, lineup_of, serving_of
from app.errors import AppError, ModelMissing, NotReachable, StoreRefused, TransientError, bare
from app.ports import ModelChooser, RolloutObserver

MAY_PASS = (ModelMissing, NotReachable, StoreRefused, TransientError)  # asked for again; all else is so for good
CLOSE_WITHIN_S = 5.0  # a version being loaded is not waited for any longer than this
MOST_PASSED = 15  # looks without a try, between two: half a minute, at two seconds a look


class Versions(Protocol):
    """The model store and the runtime, as one pipeline sees them. Everything here may take seconds."""

    def page(self) -> ModelChooser:
        """What is in force. Raises an AppError if that cannot be known, or makes no sense."""
        ...

    def digest(self, version: str) -> str:
        """The digest of the stored version, as its model would state it. Raises an AppError."""
        ...

    def lane(self, version: str) -> Lane:
        """Load it, verify it, warm it up, and see that it fits the pipeline. Raises an AppError if it does not."""
        ...


class RolloutFollower:
    """One model of one pipeline. `first` before `start`.

    with_previous: also keep the version before stable loaded: one that fails must not wait for the store.
    """

    def __init__(
        self, model: str, versions: Versions, observer: RolloutObserver, *, poll_s: float, with_previous: bool
    ) -> None:
        self._model, self._versions, self._observer = model, versions, observer
        self._poll_s, self._with_previous = poll_s, with_previous
        self._log = structlog.get_logger().bind(model=model)
        self._hand_over: Callable[[Lineup], None] = lambda _: None
        self._lanes: dict[str, Lane] = {}
        self._retired: list[Lane] = []
        self._page: ModelChooser | None = None  # in force
        self._looked_at: ModelChooser | None = None  # what follows is about this one
        self._ready: dict[str, Lane] = {}  # loaded for it, while others are not to be had
        self._unusable: dict[str, str] = {}  # version → the error's name; it is so for good
        self._failures = self._to_pass = 0  # tries that failed; looks until the next one
        self._why: Exception | None = None  # the last of them did
        self._looking = Lock()
        self._trouble: tuple[object, ...] | None = None  # the last that was logged
        self._closing = Event()
        self._thread = Thread(target=self._run, name=f"rollout-{model}", daemon=True)

    def first(self) -> Lineup:
        """What to start with. Raises what loading the stable version raises.

        Another version that cannot be used does not keep the worker from starting: stable answers for it, as
        fallback, and it is tried again.
        """
        page = self._versions.page()
        self._notice(page)
        lanes = {page.versions[0]: self._lane(page.versions[0])}
        again = False
        for version in page.versions[1:]:
            try:
                lanes[version] = self._lane(version)
            except Exception as exc:  # noqa: BLE001 - whatever a version does to us, stable can answer
                self._tell(exc, page, version)
                again |= self._may_pass(exc, version)
        lineup = self._take(page, lanes)
        if again:
            self._page = None  # the next look takes it for a new one
        return lineup

    def start(self, hand_over: Callable[[Lineup], None]) -> None:
        """Look every `poll_s` from now on, and hand over what is new."""
        self._hand_over = hand_over
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN_S)

    def look(self) -> Exception | None:
        """Ask once. What cannot be read or used leaves everything as it is, is told, and given back. Any thread.

        A version that cannot be used is counted with every look that finds it so, tried again if that may pass, and
        logged once. Until it is tried again what was given back before is given back again.
        """
        with self._looking:
            return self._look()

    def _look(self) -> Exception | None:
        self._retired.clear()  # what no batch has any more, as a rule all: freed here and not on the stream thread
        page = version = None
        try:
            page = self._versions.page()
            self._notice(page)
            if self._unusable:
                for version, error in self._unusable.items():
                    self._observer.rollout_failed(self._model, error, version)
            elif not (wanted := self._wanted(page)):
                self._well()
            elif self._is_due():
                for version in wanted:
                    self._ready[version] = self._lane(version)
                lanes = self._ready if page != self._page else self._lanes | self._ready
                self._hand_over(self._take(page, dict(lanes)))
                if not self._wanted(page):
                    self._well()
        except Exception as exc:  # noqa: BLE001 - whatever a version does to us, the one in force goes on serving
            self._tell_once(exc, page, version)
            if version is not None:
                self._may_pass(exc, version)
            return exc
        return None if page == self._page else self._why

    def _run(self) -> None:
        while not self._closing.wait(self._poll_s):
            self.look()

    def _notice(self, page: ModelChooser) -> None:
        """What was wrong with another page is over; what was loaded for it and this one wants as well is kept."""
        if page != self._looked_at:
            self._looked_at = page
            self._ready = {version: lane for version, lane in self._ready.items() if version in page.versions}
            self._unusable = {}
            self._failures = self._to_pass = 0
            self._why = None

    def _wanted(self, page: ModelChooser) -> Sequence[str]:
        """What has to be there before nothing is left to do for this page."""
        if page != self._page:
            return page.versions
        before = page.previous if self._with_previous else None
        return () if before is None or before in self._lanes else (before,)

    def _is_due(self) -> bool:
        """Whether to try now: at once at first, then with more and more looks in between."""
        if self._to_pass:
            self._to_pass -= 1
            return False
        return True

    def _may_pass(self, exc: Exception, version: str) -> bool:
        """Whether it is to be tried again, after this."""
        self._why = bare(exc)
        if not isinstance(exc, MAY_PASS):
            self._unusable[version] = type(exc).__name__
            self._ready = {}
            return False
        self._failures += 1
        self._to_pass = min(2 ** (self._failures - 1) - 1, MOST_PASSED)
        return True

    def _lane(self, version: str) -> Lane:
        for known in (self._ready.get(version), self._lanes.get(version)):
            if known is not None and known.answerer.model.digest == self._versions.digest(version):
                return known
        return self._versions.lane(version)

    def _take(self, page: ModelChooser, lanes: dict[str, Lane]) -> Lineup:
        """From now on this page is in force."""
        if self._with_previous and page.previous is not None and page.previous not in lanes:
            try:
                lanes[page.previous] = self._lane(page.previous)
            except Exception as exc:  # noqa: BLE001 - the page is good without it
                self._tell_once(exc, page, page.previous)
                self._may_pass(exc, page.previous)
        lineup = lineup_of(page, lanes)
        self._retired += self._lanes.values()
        self._lanes, self._page, self._ready = lanes, page, {}
        fact = serving_of(page, lanes, self._model)
        parts = {item.part: item.version for item in fact.versions}
        self._log.info("rollout", revision=page.revision, strategy=page.strategy, versions=parts)
        self._observer.serving(fact)
        return lineup

    def _tell_once(self, exc: Exception, page: ModelChooser | None, version: str | None) -> None:
        """Once for each page, or once for as long as there is none to be had; it is counted every time."""
        trouble = (type(exc), None if page is None else page.revision, version)
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(exc, page, version)
        else:
            self._observer.rollout_failed(self._model, type(exc).__name__, version)

    def _tell(self, exc: Exception, page: ModelChooser | None, version: str | None) -> None:
        self._observer.rollout_failed(self._model, type(exc).__name__, version)
        self._log.error(
            "rollout_not_read" if page is None else "rollout_refused",
            revision=None if page is None else page.revision,
            version=version,
            still_serving=None if self._page is None else self._page.revision,
            error=type(exc).__name__,
            reason=str(exc),
            exc_info=not isinstance(exc, AppError),
        )

    def _well(self) -> None:
        if self._trouble is not None:
            self._log.info("rollout_read_again", revision=None if self._page is None else self._page.revision)
        self._trouble = None
