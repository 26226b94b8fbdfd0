"""What sections of the settings have in common: they are frozen, know all their names, and keep their secrets."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.errors import BadSettings

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


class Section(BaseModel):
    """Frozen, and refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WithSecrets(Section):
    """Each secret comes as a value or as a file whose content it is, never as both."""

    @model_validator(mode="after")
    def _given_once_and_readable(self) -> Self:
        for name in type(self).model_fields:
            if (file := getattr(self, f"{name}_file", None)) is None:
                continue
            if getattr(self, name) is not None:
                raise ValueError(f"{name} and {name}_file are both set; choose one")
            check_file(f"{name}_file", file)
        return self

    def secret(self, name: str) -> str | None:
        """In the clear. Raises BadSettings if its file has become unreadable."""
        value: SecretStr | None = getattr(self, name)
        file: Path | None = getattr(self, f"{name}_file")
        if value is not None or file is None:
            return value.get_secret_value() if value is not None else None
        try:
            return read_text(f"{name}_file", file).strip()
        except ValueError as exc:
            raise BadSettings(str(exc)) from exc


def check_file(name: str, file: Path) -> None:
    """Raises ValueError if there is nothing to read: at load, not when the first client is made."""
    if not read_text(name, file).strip():
        raise ValueError(f"{name}: {file} is empty")


def read_text(name: str, file: Path) -> str:
    """What is in a file that a setting names. Raises ValueError, naming the setting, if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"{name}: cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {file} is not UTF-8 text") from None


def without_credentials(url: str | None, instead: str) -> str | None:
    """The URL. Raises ValueError if it has credentials in it: it is shown in messages and logs."""
    if url is not None and "@" in url:
        raise ValueError(f"credentials belong in {instead}, not in the URL")
    return url
