"""The JSON file of a bench: every run as it was measured, by section; written whole after each run.

    {"format": 1, "sections": {"drain": {"measured_at", "machine", "settings", "runs": [...]}, ...}}

A sitting replaces the sections it measures and leaves the others, each with its own date and machine.
"""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadgen.errors import BadOption

FORMAT = 1
LIBRARIES = ("kafka-inference-worker", "confluent-kafka", "onnxruntime", "fastavro", "numpy", "faust-streaming")

Section = dict[str, Any]


class Results:
    """One file. `save` may be cut short: the file is then as it was before."""

    def __init__(self, path: Path) -> None:
        """Raises BadOption for a file that is there and is not one of ours."""
        self._path = path
        self.sections: dict[str, Section] = {}
        if path.exists():
            self.sections = read_sections(path)

    def begin(self, section: str, at: str, settings: dict[str, Any]) -> Section:
        """Forget what the section had, and return it empty."""
        self.sections[section] = {"measured_at": at, "machine": machine(), "settings": settings, "runs": []}
        return self.sections[section]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps({"format": FORMAT, "sections": self.sections}, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._path)


def read_sections(path: Path) -> dict[str, Section]:
    """The sections of a file. Raises BadOption if it is not one of ours."""
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadOption(f"{path}: {error}") from error
    if not isinstance(page, dict) or page.get("format") != FORMAT or not isinstance(page.get("sections"), dict):
        raise BadOption(f"{path} is not a result of loadgen bench (format {FORMAT}); move it away")
    sections: dict[str, Section] = page["sections"]
    return sections


def in_short(error: str) -> str:
    """What went wrong in one line: what we say of it, and the last line of what the contender said."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["unknown"]
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"


def machine() -> dict[str, Any]:
    """Where a section was measured."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": ".".join(map(str, sys.version_info[:3])),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
