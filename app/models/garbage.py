"""Which versions may leave the store. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.models.model_store import StoredVersion
from app.models.rollout import Rollout


@dataclass(frozen=True, slots=True)
class GarbagePolicy:
    """What stays: the newest versions, what the last lines of history speak of, and what may still be being written.

    keep_newest: at least 1, so that a number is never given to another version.
    """

    keep_newest: int = 5
    keep_lines: int = 20
    half_written_after_s: float = 86_400.0


def kept(page: Rollout, policy: GarbagePolicy) -> frozenset[str]:
    """Versions that the rollout refers to, now or in its last lines of history: never garbage."""
    lines = page.history[-policy.keep_lines :] if policy.keep_lines else ()
    return page.named.union(*((line.stable, *line.versions) for line in lines))


def garbage(stored: Sequence[StoredVersion], page: Rollout | None, policy: GarbagePolicy, now: datetime) -> list[str]:
    """Versions to remove, oldest first. Without a rollout nobody knows what is in use: then only half-written ones.

    stored: oldest first.
    """
    complete = [one.version for one in stored if one.complete]
    newest = complete[-max(1, policy.keep_newest) :]
    long_ago = now - timedelta(seconds=policy.half_written_after_s)
    stay = set(complete) if page is None else {*newest, *kept(page, policy)}
    return [one.version for one in stored if (one.version not in stay if one.complete else one.modified_at < long_ago)]
