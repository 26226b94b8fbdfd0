"""What people ask of a model store: each method is one command. Who asks, and when, goes into the history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.errors import ModelInvalid, ModelMissing
from app.models import rollout_changes
from app.models.comparison import Difference, differences
from app.models.garbage import GarbagePolicy, garbage, kept
from app.models.manifest import Manifest
from app.models.model_store import ModelStore
from app.models.rollout import Rollout
from app.models.rollout_changes import Order
from app.models.runtime import RuntimePolicy, load_model

Verb = Literal["advance", "switch", "stop", "hold", "resume"]
_VERBS: dict[Verb, Callable[[Rollout, Order], Rollout]] = {
    "advance": rollout_changes.advance,
    "switch": rollout_changes.switch,
    "stop": rollout_changes.stop,
    "hold": rollout_changes.hold,
    "resume": rollout_changes.resume,
}

ONCE = RuntimePolicy(warm_up_rows=())  # verified by its golden rows; nobody will serve from here


@dataclass(frozen=True, slots=True)
class Summary:
    """One model at a glance. in_force, stable, revision: None if there is no rollout."""

    model: str
    versions: tuple[str, ...]
    half_written: tuple[str, ...]
    in_force: str | None
    stable: str | None
    revision: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version is what its manifest says. detail: what is wrong, empty if nothing is."""

    model: str
    version: str
    verified: bool
    detail: str = ""
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Changed:
    """A rollout before and after. before: None if there was none."""

    before: Rollout | None
    after: Rollout

    @property
    def words(self) -> str:
        """For people: what was in force, what is now, by whom and why."""
        page, line = self.after, self.after.history[-1]
        before = self.before.words if self.before else "no rollout"
        return f"{page.model}: {before} → {page.words}\nrevision {page.revision}, by {line.who}: {line.why}"

    @property
    def facts(self) -> dict[str, object]:
        """For programs: both pages without their history, and the new line of it."""
        return {
            "model": self.after.model,
            "before": self.before.model_dump(mode="json", exclude={"history"}) if self.before else None,
            "after": self.after.model_dump(mode="json", exclude={"history"}),
            "change": self.after.history[-1].model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Removed:
    """A version that went, or with a dry run would go. half_written: it never was complete."""

    model: str
    version: str
    half_written: bool


class ModelDesk:
    """The commands over one store.

    `check` in a change: every version it brings in is loaded and compared with its golden rows first. It is always
    checked that they exist. `seen`: the change is refused unless this revision is in force. Changes raise
    RolloutRefused, RolloutConflict, ModelMissing and ModelInvalid; then nothing was changed.
    """

    def __init__(self, store: ModelStore, who: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._who = who
        self._now = now

    def summaries(self) -> list[Summary]:
        """Every model there is a complete version of."""
        return [self._summary(model) for model in self._store.models()]

    def _summary(self, model: str) -> Summary:
        stored = self._store.stored_versions(model)
        versions = tuple(one.version for one in stored if one.complete)
        half_written = tuple(one.version for one in stored if not one.complete)
        try:
            page = self._store.rollout(model)
        except (ModelMissing, ModelInvalid):
            return Summary(model, versions, half_written, None, None, None)
        return Summary(model, versions, half_written, page.words, page.stable, page.revision)

    def manifest(self, model: str, version: str | None) -> Manifest:
        """Of one version; of the stable one if none is named."""
        return self._store.manifest(model, version or self._store.rollout(model).stable)

    def rollout(self, model: str) -> Rollout:
        """The decision in force, with its history."""
        return self._store.rollout(model)

    def verify(self, model: str, versions: Sequence[str]) -> list[Verdict]:
        """Digests and golden rows of these versions, of all if none is named."""
        asked = list(versions) or self._store.versions(model)
        if not asked:
            self._store.rollout(model)  # says what there is instead
        return [self._verdict(model, version) for version in asked]

    def _verdict(self, model: str, version: str) -> Verdict:
        try:
            loaded = load_model(self._store.fetch(model, version), ONCE)
        except (ModelInvalid, ModelMissing) as exc:
            return Verdict(model, version, verified=False, detail=f"{type(exc).__name__}: {exc}")
        return Verdict(model, version, verified=True, load_s=loaded.load_s)

    def diff(self, model: str, a: str, b: str) -> Difference:
        """Version b against version a; both are verified."""
        first, second = self._store.fetch(model, a), self._store.fetch(model, b)
        models = (load_model(first, ONCE), load_model(second, ONCE))
        return differences(first.manifest, second.manifest, models)

    def collect(
        self, model: str | None, *, keep_newest: int, keep_lines: int, half_written_after_s: float, dry_run: bool
    ) -> list[Removed]:
        """Remove what is garbage by `garbage.GarbagePolicy`, of one model or of all."""
        policy = GarbagePolicy(keep_newest, keep_lines, half_written_after_s)
        removed = []
        for name in [model] if model is not None else self._store.models(half_written=True):
            stored = self._store.stored_versions(name)
            try:
                page = self._store.rollout(name)
            except ModelMissing:
                if not stored:
                    raise
                page = None
            complete = {one.version for one in stored if one.complete}
            keep = kept(page, policy) if page else frozenset()
            removed += [
                Removed(name, version, half_written=version not in complete)
                for version in garbage(stored, page, policy, self._now())
                if dry_run or self._store.remove(name, version, keep)
            ]
        return removed

    def promote(
        self, model: str, version: str | None, why: str, *, check: bool = True, seen: int | None = None
    ) -> Changed:
        """See `rollout_changes.promote`; of a model that has versions and no rollout, it makes the first page."""
        if version is not None and seen is None and (page := self._first_page(model, version, why, check)):
            return Changed(None, page)
        brings = [] if version is None else [version]
        return self._change(
            model, lambda page, order: rollout_changes.promote(page, version, order), brings, why, check, seen
        )

    def _first_page(self, model: str, version: str, why: str, check: bool) -> Rollout | None:  # noqa: FBT001
        """None if there is a page, or no such model."""
        try:
            self._store.rollout(model)
        except ModelMissing:
            if not self._store.versions(model):
                return None
        else:
            return None
        self._store.check_exists(model, version)
        page = rollout_changes.begin(model, version, Order(self._now(), self._who, why))
        if check:
            load_model(self._store.fetch(model, version), ONCE)
        return page if self._store.begin_rollout(page) else None

    def roll_back(self, model: str, why: str, *, seen: int | None = None) -> Changed:
        """See `rollout_changes.roll_back`. Loads nothing first: what it goes back to has served before."""
        return self._change(model, rollout_changes.roll_back, [], why, check=False, seen=seen)

    def start_canary(
        self,
        model: str,
        candidate: str,
        steps: Sequence[tuple[float, float]],
        why: str,
        *,
        check: bool = True,
        seen: int | None = None,
    ) -> Changed:
        """See `rollout_changes.start_canary`. steps: (per cent, seconds to hold)."""

        def change(page: Rollout, order: Order) -> Rollout:
            return rollout_changes.start_canary(page, candidate, steps, order)

        return self._change(model, change, [candidate], why, check, seen)

    def start_ab(
        self,
        model: str,
        variants: Sequence[tuple[str, str, float]],
        why: str,
        *,
        check: bool = True,
        seen: int | None = None,
    ) -> Changed:
        """See `rollout_changes.start_ab`. variants: (name, version, weight)."""

        def change(page: Rollout, order: Order) -> Rollout:
            return rollout_changes.start_ab(page, variants, order)

        return self._change(model, change, [version for _, version, _ in variants], why, check, seen)

    def start_blue_green(
        self, model: str, standby: str, why: str, *, check: bool = True, seen: int | None = None
    ) -> Changed:
        """See `rollout_changes.start_blue_green`."""

        def change(page: Rollout, order: Order) -> Rollout:
            return rollout_changes.start_blue_green(page, standby, order)

        return self._change(model, change, [standby], why, check, seen)

    def start_shadow(
        self,
        model: str,
        candidate: str,
        why: str,
        *,
        percent: float = 100.0,
        budget_s: float = 0.2,
        check: bool = True,
        seen: int | None = None,
    ) -> Changed:
        """See `rollout_changes.start_shadow`."""

        def change(page: Rollout, order: Order) -> Rollout:
            return rollout_changes.start_shadow(page, candidate, order, percent=percent, budget_s=budget_s)

        return self._change(model, change, [candidate], why, check, seen)

    def move(self, model: str, verb: Verb, why: str, *, seen: int | None = None) -> Changed:
        """See the function of that name in `rollout_changes`."""
        return self._change(model, _VERBS[verb], [], why, check=False, seen=seen)

    def guard(self, model: str, changes: Mapping[str, float], why: str, *, seen: int | None = None) -> Changed:
        """See `rollout_changes.guard`."""

        def change(page: Rollout, order: Order) -> Rollout:
            return rollout_changes.guard(page, changes, order)

        return self._change(model, change, [], why, check=False, seen=seen)

    def _change(
        self,
        model: str,
        change: Callable[[Rollout, Order], Rollout],
        brings: Sequence[str],
        why: str,
        check: bool,  # noqa: FBT001 - of its callers
        seen: int | None,
    ) -> Changed:
        order = Order(self._now(), self._who, why)
        for version in dict.fromkeys(brings):
            self._store.check_exists(model, version)
        change(self._store.rollout(model), order)  # what makes no sense is refused before anything is loaded
        for version in dict.fromkeys(brings) if check else ():
            load_model(self._store.fetch(model, version), ONCE)
        before, after = self._store.change_rollout(model, lambda page: change(page, order), order, seen=seen)
        return Changed(before, after)
