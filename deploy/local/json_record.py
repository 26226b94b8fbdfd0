"""A small fact on disk, which readers see whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def read_record(path: Path) -> Any | None:  # noqa: ANN401 - JSON
    """Return what was written last, or None if nothing was."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_record(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON
    """Put value in place of what was there, in one step. Makes the directory if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value))
    draft.replace(path)
