"""A settings file and the environment, read: every wrong name and value is named, and no secret is shown.

YAML file, then `INFERENCE_…` environment names (nested with `__`, lists as JSON), which win. A name nobody
knows is an error in both. Secrets may be given as `*_file`, a path whose content is the secret. Relative paths
written in the file are relative to the file; defaults and the environment's to the working directory.
"""

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError
from yaml.constructor import ConstructorError

from app.errors import BadSettings
from app.observe.tracing_settings import with_standard_names
from app.settings.root import DELIMITER, PREFIX, Settings

# Absent, or in a place where no value belongs: a misspelt `pasword:` holds a secret all the same.
_VALUE_NOT_SHOWN = frozenset({"missing", "extra_forbidden", "model_type", "model_attributes_type"})


def settings_text(file: Path) -> str:
    """The content of a settings file. Raises BadSettings if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise BadSettings(f"cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadSettings(f"{file} is not UTF-8: {exc}") from exc


def load_settings(file: Path, text: str | None = None) -> Settings:
    """Settings from a YAML file and the environment. text: the file's content, if it was read before.

    Raises BadSettings naming every field that is wrong, its value and what is allowed.
    """
    _refuse_unknown_environment()
    try:
        content = _EachKeyOnce(settings_text(file) if text is None else text).get_single_data()
    except yaml.YAMLError as exc:
        # the library's own message quotes the line, which may hold a secret
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = re.sub(r"'.{4,}'", "'…'", str(getattr(exc, "problem", type(exc).__name__)))
        raise BadSettings(f"{file} is not valid YAML{where}: {problem}") from None
    if not isinstance(content, dict):
        raise BadSettings(
            f"{file}: expected sections such as `kafka:` and `pipelines:`, found {type(content).__name__}"
        )
    if unknown := sorted(str(key) for key in content if key not in Settings.model_fields):
        raise BadSettings(f"{file}: unknown sections: {', '.join(unknown)}; known: {', '.join(Settings.model_fields)}")
    try:
        settings = Settings(**_relative_to(file.resolve().parent, content))
    except ValidationError as exc:
        raise BadSettings(_readable(file, exc)) from None  # its text quotes what was found, secrets too
    except SettingsError as exc:
        raise BadSettings(f"the environment: {exc}; lists and sections are written as JSON") from None
    if not settings.tracing.enabled:
        return settings
    return settings.model_copy(update={"tracing": with_standard_names(settings.tracing, os.environ)})


def settings_of(content: dict[str, Any]) -> Settings:
    """Settings from this content alone, whatever the environment says. Raises pydantic's ValidationError."""
    return _Embedded(**content)


class _Embedded(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The content only."""
        return (init_settings,)


def _relative_to(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The file's content with its relative paths made absolute."""

    def resolve(name: str, value: Any) -> Any:  # noqa: ANN401 - parsed YAML
        if isinstance(value, dict):
            return {key: resolve(str(key), item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        if name == "directory" or name.endswith("_file"):
            return str(folder / value)
        if name == "store" and value.startswith("file://"):
            return f"file://{folder / value.removeprefix('file://')}"
        return value

    return {key: resolve(str(key), value) for key, value in content.items()}


def _refuse_unknown_environment() -> None:
    known = {name.lower() for name in environment_names()}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.lower() not in known)
    if unknown:
        raise BadSettings(f"unknown environment names: {', '.join(unknown)}")


def environment_names(
    model: type[BaseModel] = Settings, prefix: str = PREFIX
) -> dict[str, tuple[type[BaseModel], str]]:
    """Every environment name that is understood → the section and field it sets."""
    names: dict[str, tuple[type[BaseModel], str]] = {}
    for field_name, info in model.model_fields.items():
        name = prefix + field_name.upper()
        names[name] = (model, field_name)
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= environment_names(kind, name + DELIMITER)
    return names


def _readable(file: Path, errors: ValidationError) -> str:
    lines = []
    for error in errors.errors(include_url=False):
        where = ".".join(str(part) for part in error["loc"]) or "settings"
        value = error.get("input")
        hidden = isinstance(value, (dict, list, tuple)) or error["type"] in _VALUE_NOT_SHOWN
        shown = "" if hidden else f" (found {_masked(where, value)!r})"
        lines.append(f"  {where}: {error['msg'].removeprefix('Value error, ')}{shown}")
    return f"{file} or the environment:\n" + "\n".join(lines)


def _masked(where: str, value: Any) -> Any:  # noqa: ANN401 - any YAML scalar
    secret = any(
        word in where for word in ("password", "secret", "account_key", "session_token", "keys", "jwt_key", "headers")
    )
    return "…" if secret or "@" in str(value) else value  # user:password@host


class _EachKeyOnce(yaml.SafeLoader):
    """Of a key that is there twice YAML silently takes the last; here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        keys = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in keys:
                raise ConstructorError(None, None, f"the key {key.value} is there twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)
