"""What a job scores and with what, written down before its first row: whoever goes on with it does the same.

The rollout page is kept whole, so a job that takes all night answers by one revision, whatever is decided meanwhile,
and a job that was killed goes on by the page that it began with.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from app.errors import BadSettings
from app.scoring.rows_out import Format
from app.specs import Spec

PLAN_FILE = "_plan.json"


class InputFile(Spec):
    """One file, as it was when the job began. state: changes whenever its content does."""

    name: str
    size: Annotated[int, Field(ge=0)]
    state: str


class Plan(Spec):
    """One job. version: the one that was asked for, None for the rollout's choice. fallback: see `Steps.chain`.

    decided: rollout page and digests by version, as the job began; a second start takes them from here.
    """

    format: Literal[1] = 1
    model: str
    version: str | None
    files: tuple[InputFile, ...]
    key: str | None
    keep: tuple[str, ...]
    output: Format
    chunk_rows: Annotated[int, Field(gt=0)]
    delimiter: str
    missing: tuple[str, ...]
    multiline: bool = False
    bad_output: str
    handler: str | None = None
    fallback: str = "stop"
    rollout: Mapping[str, Any] | None
    digests: Mapping[str, str]

    def check_same_job(self, url: str, asked: "Plan") -> None:
        """Raises BadSettings, saying what is not the same, if this was planned for something else than is asked."""
        decided = {"rollout", "digests"}
        before, now = self.model_dump(exclude=decided), asked.model_dump(exclude=decided)
        for name, planned in before.items():
            if planned != now[name] and name == "files":
                raise BadSettings(f"{url} holds a job over other files: {_changed(self, asked)}; choose another folder")
            if planned != now[name]:
                raise BadSettings(
                    f"{url} holds a job with {name} {_said(planned)}, not {_said(now[name])}; choose another folder"
                )


def parsed_plan(url: str, content: bytes) -> Plan:
    """Raises BadSettings if it is none."""
    try:
        return Plan.model_validate_json(content)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the page"
        raise BadSettings(f"{url}/{PLAN_FILE}: {where}: {first['msg']}") from exc


def _changed(before: Plan, now: Plan) -> str:
    then, found = ({file.name: file for file in plan.files} for plan in (before, now))
    for name in [*then, *found]:
        if name not in found:
            return f"{name} is gone"
        if name not in then:
            return f"{name} is new"
        if then[name] != found[name]:
            return f"{name} has changed"
    return "their order has changed"


def _said(value: object) -> str:
    return "none" if value is None or value == () else repr(value)
