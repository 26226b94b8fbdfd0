"""Which model store a command works on, and in whose name."""

import getpass
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import BadSettings
from app.models.model_store import ModelStore, open_store
from app.settings.reading import load_settings
from app.settings.root import Settings

if TYPE_CHECKING:
    from app.models.desk import ModelDesk


def model_desk(store: str | None, settings_file: Path | None) -> "ModelDesk":
    """`inference-worker models …`: over `store`, relative to the working directory, or the store of a settings file.

    Raises BadSettings, and ModelMissing if there is no such folder.
    """
    from app.models.desk import ModelDesk  # noqa: PLC0415 - ONNX Runtime, which not every command needs at its start

    return ModelDesk(named_store(store, settings_file), who(), lambda: datetime.now(UTC))


def named_store(store: str | None, settings_file: Path | None, *, create: bool = False) -> ModelStore:
    """`store` or the store of a settings file, var/models if neither is given; `create` makes the folder.

    Raises BadSettings, and ModelMissing if there is no such folder.
    """
    if store is not None and settings_file is not None:
        raise BadSettings("--store and --config are both given; choose one")
    if settings_file is None:
        return open_store(store or "var/models", Path.cwd(), create=create)
    return settings_store(load_settings(settings_file))


def settings_store(settings: Settings) -> ModelStore:
    """The store the settings name. Raises BadSettings, and ModelMissing if there is no such folder."""
    return open_store(settings.models.store, Path.cwd(), access=settings.models.store_options.access())


def who() -> str:
    """Whoever gives an order, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's arbitrary user id has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
