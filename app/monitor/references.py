"""The training reference of each version, asked for once; a store that does not answer is asked again later.

It is asked on a thread of its own: while a store hangs, figures are shown all the same, and features are not judged.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future

import structlog

from app.clock import Clock
from app.errors import AppError
from app.models.manifest import Reference

ASK_AGAIN_S = 60.0
MOST_VERSIONS = 1_000

Load = Callable[[str, str], Mapping[str, Reference]]


class References:
    """By model and version. load: raises AppError if there is none, or it cannot be had now."""

    def __init__(self, load: Load, clock: Clock, loader: Executor) -> None:
        self._load, self._clock, self._loader = load, clock, loader
        self._asked: dict[tuple[str, str], Future[Mapping[str, Reference]]] = {}
        self._known: dict[tuple[str, str], Mapping[str, Reference]] = {}
        self._ask_from: dict[tuple[str, str], float] = {}

    def of(self, model: str, version: str) -> Mapping[str, Reference]:
        """By feature; of nothing while there is none, or it is still asked for. Waits for nothing."""
        which = model, version
        if which in self._known:
            return self._known[which]
        if which in self._asked:
            return self._answer(which)
        now = self._clock.monotonic()
        if now < self._ask_from.get(which, now):
            return {}
        if len(self._ask_from) >= MOST_VERSIONS:  # names come from records: they must not fill the memory
            self._known.clear()
            self._ask_from.clear()
            self._asked.clear()
        self._ask_from[which] = now + ASK_AGAIN_S
        self._asked[which] = self._loader.submit(self._load, model, version)
        return self._answer(which)

    def _answer(self, which: tuple[str, str]) -> Mapping[str, Reference]:
        if not self._asked[which].done():
            return {}
        try:
            self._known[which] = self._asked.pop(which).result()
        except AppError as exc:
            structlog.get_logger().warning("no_reference", model=which[0], version=which[1], error=str(exc))
            return {}
        return self._known[which]
