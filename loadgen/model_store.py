"""The models the predictions came from, read from the worker's model store as plain files."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.errors import BadOption

# A prediction is a record from outside: its model's name must not lead out of the store.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """digest: the first 16 hex digits of the SHA-256 of the model's bytes, as predictions carry it."""

    onnx: bytes
    digest: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelStore:
    """A store in a directory: `<model>/<version>/model.onnx` and `manifest.json`."""

    root: Path

    @staticmethod
    def at(location: str) -> "ModelStore":
        """From a path or a file:// URL. Raises BadOption if there is no such directory."""
        scheme, separator, rest = location.partition("://")
        if separator and scheme != "file":
            raise BadOption(f"--store {location}: a directory is needed; copy the models out of the bucket")
        root = Path(rest if separator else location)
        if not root.is_dir():
            raise BadOption(f"--store {location}: no such directory")
        return ModelStore(root)

    def load(self, name: str, version: str) -> StoredModel | None:
        """One version, or None if the store has no such version or not all of it."""
        if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
            return None
        folder = self.root / name / version
        try:
            onnx = (folder / "model.onnx").read_bytes()
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(manifest, dict):
            return None
        return StoredModel(onnx, hashlib.sha256(onnx).hexdigest()[:16], manifest)
