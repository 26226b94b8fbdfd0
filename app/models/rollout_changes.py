"""Every change of a rollout: the page in force and an order → the page that follows. Pure.

Each gives a new page with the next revision and one more line of history, or raises RolloutRefused for an order
that makes no sense on this page; the page given is never touched. `previous` is the version that was stable before
the one that is now; a way back restores what was `previous` then.

Automatic orders, those of a program that watches, change nothing where a person has taken over (`held`), and what a
person orders while a canary is under way takes over. Starting something anew gives the page back to the watcher.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from app.errors import RolloutRefused
from app.models.rollout import (
    AbRollout,
    BlueGreenRollout,
    CanaryRollout,
    Page,
    Rollout,
    RolloutChange,
    ShadowRollout,
    StableRollout,
    first_rollout,
)

MAX_LINES = 200  # about 60 kB a page, which every worker reads every two seconds
LINES_LEFT = 100  # when it grows past MAX_LINES, the older ones are moved to a page of their own
MAX_WORDS = 500

Change = Callable[[Rollout], Rollout]
P = TypeVar("P", bound=Page)


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a change, when and why. automatic: decided by a program from measurements."""

    at: datetime
    who: str
    why: str
    automatic: bool = False


def begin(model: str, version: str, order: Order) -> StableRollout:
    """The first page of a model that has none: `version` answers everything."""
    who, why = _in_one_line("who", order.who), _in_one_line("why", order.why)
    return first_rollout(model, version, at=order.at, who=who, why=why)


def promote(page: Rollout, version: str | None, order: Order) -> StableRollout:
    """`version` answers everything. None: the canary's or the shadow's candidate, or the standby."""
    chosen = version or _candidate(page)
    if chosen is None:
        raise RolloutRefused(f"promote: say which version; in force is {page.words}")
    if chosen == page.stable and isinstance(page, StableRollout):
        raise RolloutRefused(f"promote: version {chosen} is stable already")
    return _next(StableRollout, page, order, stable=chosen)


def roll_back(page: Rollout, order: Order) -> StableRollout | BlueGreenRollout:
    """Undo the newest decision about who answers.

    Of a canary, an experiment or a shadow: `stable` answers everything again. Otherwise `previous` does; after a
    switch, whose other version is still warm, the switch is undone and both stay loaded.
    """
    if isinstance(page, CanaryRollout | AbRollout | ShadowRollout):
        return stop(page, order)
    if page.previous is None:
        raise RolloutRefused(f"rollback: nothing came before version {page.stable}")
    before = _previous_of(page, page.previous)
    if isinstance(page, BlueGreenRollout) and page.standby == page.previous:
        return _next(BlueGreenRollout, page, order, stable=page.standby, previous=before, standby=page.stable)
    return _next(StableRollout, page, order, stable=page.previous, previous=before)


def stop(page: Rollout, order: Order) -> StableRollout:
    """End whatever runs beside `stable`, which answers everything again."""
    if isinstance(page, StableRollout):
        raise RolloutRefused(f"stop: nothing runs beside version {page.stable}")
    return _next(StableRollout, page, order)


def start_canary(
    page: Rollout, candidate: str, steps: Sequence[tuple[float, float]], order: Order, *, salt: str | None = None
) -> CanaryRollout:
    """The candidate answers the share of keys of the first step.

    steps: (per cent of the keys, seconds to hold). salt: another choice of keys each time if None.
    """
    _check_free(page, "start a canary")
    listed = tuple({"percent": percent, "hold_s": hold_s} for percent, hold_s in steps)
    return _next(
        CanaryRollout, page, order, candidate=candidate, steps=listed, since=order.at, salt=salt or _salt(page)
    )


def advance(page: Rollout, order: Order) -> CanaryRollout | StableRollout:
    """The canary's next step begins; after the last one the candidate becomes stable."""
    if not isinstance(page, CanaryRollout):
        raise RolloutRefused(f"advance: there is no canary; in force is {page.words}")
    if page.step + 1 == len(page.steps):
        return promote(page, page.candidate, order)
    return _next(
        CanaryRollout,
        page,
        order,
        candidate=page.candidate,
        steps=page.steps,
        step=page.step + 1,
        since=order.at,
        salt=page.salt,
        held=not order.automatic,
    )


def start_ab(
    page: Rollout, variants: Sequence[tuple[str, str, float]], order: Order, *, salt: str | None = None
) -> AbRollout:
    """Named arms share the keys by weight.

    variants: (name, version, weight). salt: another choice of keys each time if None.
    """
    _check_free(page, "start an A/B experiment")
    arms = tuple({"name": name, "version": version, "weight": weight} for name, version, weight in variants)
    return _next(AbRollout, page, order, variants=arms, salt=salt or _salt(page))


def start_blue_green(page: Rollout, standby: str, order: Order) -> BlueGreenRollout:
    """Load `standby` and keep it warm beside `stable`."""
    _check_free(page, "start blue-green")
    return _next(BlueGreenRollout, page, order, standby=standby)


def switch(page: Rollout, order: Order) -> BlueGreenRollout:
    """The standby answers, and what answered so far stands by."""
    if not isinstance(page, BlueGreenRollout):
        raise RolloutRefused(f"switch: there is no standby; in force is {page.words}")
    return _next(BlueGreenRollout, page, order, stable=page.standby, standby=page.stable)


def start_shadow(
    page: Rollout, candidate: str, order: Order, *, percent: float = 100.0, budget_s: float = 0.2
) -> ShadowRollout:
    """The candidate scores a share of the records after delivery, for comparison only."""
    _check_free(page, "start a shadow")
    return _next(ShadowRollout, page, order, candidate=candidate, percent=percent, budget_s=budget_s)


def hold(page: Rollout, order: Order) -> Rollout:
    """Take over from the program that watches: it changes nothing until `resume`."""
    if page.held:
        raise RolloutRefused("hold: it is held already")
    return _next(type(page), page, order, **_own_fields(page), held=True)


def resume(page: Rollout, order: Order) -> Rollout:
    """Give a page that is held back to the program that watches."""
    if not page.held:
        raise RolloutRefused("resume: it is not held")
    return _next(type(page), page, order, **_own_fields(page))


def guard(page: Rollout, changes: Mapping[str, float], order: Order) -> Rollout:
    """Whoever watches decides by other guards from now on; nothing else changes, and a page that is held stays so."""
    guards = {**page.guards.model_dump(), **changes}
    return _next(type(page), page, order, **_own_fields(page), held=page.held, guards=guards)


def withdraw(page: Rollout, before: Rollout, order: Order) -> Rollout:
    """Undo `page`, which followed `before`: what was in force then is in force again, as a new revision."""
    kept = {"stable": before.stable, "previous": before.previous, "held": before.held}
    return _next(type(before), page, order, **_own_fields(before), **kept)


def _next(kind: type[P], page: Rollout, order: Order, **fields: Any) -> P:  # noqa: ANN401 - a page's fields
    """The page of this kind that follows: what every page has is carried over where `fields` does not say else."""
    if order.automatic and page.held:
        last = page.history[-1]
        raise RolloutRefused(f"{last.who} has taken over at revision {last.revision}: nothing is changed automatically")
    stable = fields.setdefault("stable", page.stable)
    fields.setdefault("guards", page.guards)
    fields.setdefault("previous", page.previous if stable == page.stable else page.stable)
    try:
        line = RolloutChange(
            revision=page.revision + 1,
            at=order.at,
            who=_in_one_line("who", order.who),
            why=_in_one_line("why", order.why),
            strategy=kind.model_fields["strategy"].default,
            stable=stable,
            previous=fields["previous"],
            before=page.words,
            automatic=order.automatic,
        )
        drafted = kind(model=page.model, revision=page.revision + 1, history=(line,), **fields)
        line = line.model_copy(update={"versions": tuple(sorted(drafted.named, key=int))})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        raise RolloutRefused(f"{where}: {what}" if where else what) from exc
    return drafted.model_copy(update={"history": (*_kept_lines(page.history), line)})


def _kept_lines(lines: tuple[RolloutChange, ...]) -> tuple[RolloutChange, ...]:
    return lines if len(lines) < MAX_LINES else lines[-LINES_LEFT:]


def _own_fields(page: Rollout) -> dict[str, Any]:
    """What a strategy has beside what every page has."""
    return {name: getattr(page, name) for name in type(page).model_fields if name not in StableRollout.model_fields}


def _previous_of(page: Rollout, version: str) -> str | None:
    """What was `previous` when `version` was stable last, by the history; None if that is not known."""
    lines = (line for line in reversed(page.history) if line.stable == version)
    return next((line.previous for line in lines), None)


def _candidate(page: Rollout) -> str | None:
    if isinstance(page, CanaryRollout | ShadowRollout):
        return page.candidate
    return page.standby if isinstance(page, BlueGreenRollout) else None


def _check_free(page: Rollout, what: str) -> None:
    if not isinstance(page, StableRollout):
        raise RolloutRefused(f"cannot {what}: in force is {page.words}; stop it or promote a version first")


def _salt(page: Rollout) -> str:
    return f"{page.model[:40]}-{page.revision + 1}"


def _in_one_line(what: str, words: str) -> str:
    """For a line of history: no line breaks or control characters, not endless, not empty."""
    line = " ".join("".join(char if char.isprintable() else " " for char in words).split())
    if not line:
        raise RolloutRefused(f"{what}: a few words are needed")
    if len(line) > MAX_WORDS:
        raise RolloutRefused(f"{what}: {len(line)} characters, allowed {MAX_WORDS}")
    return line
