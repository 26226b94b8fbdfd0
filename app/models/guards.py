"""How much worse than stable a version may be before it is taken back: part of every rollout page."""

from typing import Annotated

from pydantic import Field

from app.specs import Spec


class Guards(Spec):
    """What `rollout watch` decides by; docs/ROLLOUTS.md says how.

    error_rate_increase: share of rows that may fail beyond stable's share; above 0, since that there is no increase
        at all cannot be shown.
    latency_ratio: the time of a batch in the model, as a multiple of stable's.
    disagreement: share of rows that may be answered otherwise than stable would.
    accuracy_drop: share of right answers that may be missing, once outcomes are known.
    alpha: chance, at most, that a version within all of these is taken back, however often and long it is watched.
    min_rows, min_outcomes: of each version, before a step may end well. max_step_s: after this a step that has not
        ended waits for a person.
    """

    error_rate_increase: Annotated[float, Field(gt=0, lt=1)] = 0.01
    latency_ratio: Annotated[float, Field(ge=1, le=1000)] = 2.0
    disagreement: Annotated[float, Field(ge=0, le=1)] = 0.1
    accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    alpha: Annotated[float, Field(gt=1e-12, le=0.5)] = 0.01
    min_rows: Annotated[int, Field(ge=1)] = 1000
    min_outcomes: Annotated[int, Field(ge=0)] = 0  # unless set, outcomes may take longer than a step
    max_step_s: Annotated[float, Field(gt=0)] = 86_400.0
