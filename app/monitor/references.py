"""The training reference of each version, asked for once; a store that does not answer is asked again later."""

from collections.abc import Callable, Mapping

import structlog

from app.clock import Clock
from app.errors import AppError
from app.models.manifest import Reference

ASK_AGAIN_S = 60.0
MOST_VERSIONS = 1_000

Load = Callable[[str, str], Mapping[str, Reference]]


class References:
    """By model and version. load: raises AppError if there is none, or it cannot be had now."""

    def __init__(self, load: Load, clock: Clock) -> None:
        self._load, self._clock = load, clock
        self._known: dict[tuple[str, str], Mapping[str, Reference]] = {}
        self._ask_from: dict[tuple[str, str], float] = {}

    def of(self, model: str, version: str) -> Mapping[str, Reference]:
        """By feature; of nothing while there is none."""
        which = model, version
        if which in self._known:
            return self._known[which]
        now = self._clock.monotonic()
        if now < self._ask_from.get(which, now):
            return {}
        if len(self._ask_from) >= MOST_VERSIONS:  # names come from records: they must not fill the memory
            self._known.clear()
            self._ask_from.clear()
        self._ask_from[which] = now + ASK_AGAIN_S
        try:
            self._known[which] = self._load(model, version)
        except AppError as exc:
            structlog.get_logger().warning("no_reference", model=model, version=version, error=str(exc))
            return {}
        return self._known[which]
