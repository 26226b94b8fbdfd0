"""Where models are kept: `<model>/<version>/` with a manifest written last, and `<model>/rollout.json`.

Objects are created once and never overwritten, so a version is either complete or does not count, and two
publishers at the same time get two versions. Names are checked before they become paths.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore
from pydantic import ValidationError

from app.errors import BadSettings, ModelInvalid, ModelMissing
from app.models.manifest import FILE_NAME, MODEL_FILE, MODEL_NAME, VERSION, Manifest, ModelCard
from app.models.rollout import Rollout, first_rollout
from app.specs import Spec

MANIFEST_FILE = "manifest.json"
ROLLOUT_FILE = "rollout.json"
MAX_JSON_BYTES = 16 * 1024 * 1024  # golden rows of a large tensor are a few MiB; anything above is not ours

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version as it was read: the manifest and the bytes of every file it lists. Not yet verified."""

    manifest: Manifest
    files: Mapping[str, bytes]


class ModelStore:
    """Versioned models in an object store. `url` is for messages only."""

    def __init__(self, objects: ObjectStore, url: str) -> None:
        self._objects = objects
        self.url = url

    def models(self) -> list[str]:
        """Names of the models with at least one complete version, in alphabetical order."""
        return sorted({model for model, _ in self._complete("")})

    def versions(self, model: str) -> list[str]:
        """Complete versions of a model, oldest first; none if there is no such model."""
        if not re.fullmatch(MODEL_NAME, model):
            return []
        return [version for name, version in self._complete(model) if name == model]

    def manifest(self, model: str, version: str) -> Manifest:
        """Read the manifest of one version.

        Raises ModelMissing, listing what exists, if there is no such version, and ModelInvalid if the page
        cannot be read or speaks of another version.
        """
        self._check_exists(model, version)
        manifest = self._page(Manifest, f"{model}/{version}/{MANIFEST_FILE}")
        if (manifest.model, manifest.version) != (model, version):
            raise ModelInvalid(
                f"{self.url}/{model}/{version}/{MANIFEST_FILE} describes "
                f"model {manifest.model!r} version {manifest.version}"
            )
        return manifest

    def fetch(self, model: str, version: str) -> StoredModel:
        """Read one version whole. Raises as `manifest`, and ModelInvalid if a listed file is missing."""
        manifest = self.manifest(model, version)
        files = {}
        for name in manifest.digest:
            content = self._read(f"{model}/{version}/{name}")
            if content is None:
                raise ModelInvalid(f"model {model!r} version {version}: {name} is missing from {self.url}")
            files[name] = content
        return StoredModel(manifest, files)

    def rollout(self, model: str) -> Rollout:
        """Read the decision in force. Raises ModelMissing if there is none, ModelInvalid if it is broken."""
        if not self.versions(model):
            raise ModelMissing(f"no model {model!r} in {self.url}{_among('models', self.models())}")
        rollout = self._page(Rollout, f"{model}/{ROLLOUT_FILE}")
        if rollout.model != model:
            raise ModelInvalid(f"{self.url}/{model}/{ROLLOUT_FILE} is of model {rollout.model!r}")
        return rollout

    def publish(self, model: str, card: ModelCard, files: Mapping[str, bytes], *, at: datetime, who: str) -> Manifest:
        """Write a new version of `model`, the next free number, and return its manifest.

        The first version of a model also becomes stable in `rollout.json`; later ones promote nothing. When
        this raises, no version was added. Raises ModelInvalid for a name that cannot be used.
        """
        for pattern, name in [(MODEL_NAME, model), *((FILE_NAME, file) for file in files)]:
            if not re.fullmatch(pattern, name):
                raise ModelInvalid(f"{name!r} cannot be the name of a model or of one of its files")
        if MODEL_FILE not in files:
            raise ModelInvalid(f"a version of {model!r} needs {MODEL_FILE}")
        version = self._claim(model, files[MODEL_FILE])
        for name, content in files.items():
            if name != MODEL_FILE:
                self._create(f"{model}/{version}/{name}", content)
        digest = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
        manifest = Manifest(**dict(card), model=model, version=version, digest=digest, created_at=at)
        self._create(f"{model}/{version}/{MANIFEST_FILE}", _json(manifest))
        self._create(f"{model}/{ROLLOUT_FILE}", _json(first_rollout(model, version, at=at, who=who)))
        return manifest

    def _claim(self, model: str, graph: bytes) -> str:
        """Take the number after all that exist, half-written ones too, by creating its model.onnx."""
        taken = {path[1] for path in self._paths(model)}
        number = 1 + max((int(name) for name in taken if re.fullmatch(VERSION, name)), default=0)
        while not self._create(f"{model}/{number}/{MODEL_FILE}", graph):
            number += 1  # another publisher was quicker
        return str(number)

    def _check_exists(self, model: str, version: str) -> None:
        versions = self.versions(model)
        if not versions:
            raise ModelMissing(f"no model {model!r} in {self.url}{_among('models', self.models())}")
        if version not in versions:
            raise ModelMissing(
                f"model {model!r} has no version {version!r} in {self.url}{_among('versions', versions)}"
            )

    def _complete(self, model: str) -> list[tuple[str, str]]:
        """(model, version) of every version with a manifest, by model and number."""
        found = [
            (path[0], path[1])
            for path in self._paths(model)
            if path[2:] == [MANIFEST_FILE] and re.fullmatch(MODEL_NAME, path[0]) and re.fullmatch(VERSION, path[1])
        ]
        return sorted(found, key=lambda pair: (pair[0], int(pair[1])))

    def _paths(self, model: str) -> list[list[str]]:
        """Paths of all objects of a model, or of all models, split at the slashes; two parts at least."""
        try:
            listed = self._objects.list(model or None).collect()
        except (BaseError, OSError) as exc:
            raise ModelMissing(f"cannot list {self.url}: {_first_line(exc)}") from exc
        paths = [item["path"].split("/") for item in listed]
        return [path for path in paths if len(path) >= 2]

    def _page(self, kind: type[S], path: str) -> S:
        content = self._read(path, limit=MAX_JSON_BYTES)
        if content is None:
            raise ModelMissing(f"{self.url}/{path} does not exist")
        try:
            return kind.model_validate_json(content)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the page"
            raise ModelInvalid(f"{self.url}/{path}: {where}: {first['msg']}") from exc

    def _read(self, path: str, limit: int | None = None) -> bytes | None:
        """Whole object, or None if there is none."""
        try:
            found = self._objects.get(path)
            if limit is not None and found.meta["size"] > limit:
                raise ModelInvalid(f"{self.url}/{path} has {found.meta['size']} bytes, allowed {limit}")
            return bytes(found.bytes())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as exc:
            raise ModelMissing(f"cannot read {self.url}/{path}: {_first_line(exc)}") from exc

    def _create(self, path: str, content: bytes) -> bool:
        """Create an object; False, and nothing changed, if it exists."""
        try:
            self._objects.put(path, content, mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as exc:
            raise ModelInvalid(f"cannot write {self.url}/{path}: {_first_line(exc)}") from exc
        return True


def open_store(url: str, base: Path, *, create: bool = False) -> ModelStore:
    """Open the model store at `url`: `file://` with a path, absolute or relative to `base`, or just the path.

    `create` makes the folder. Raises ModelMissing if there is none, BadSettings for another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        raise BadSettings(f"models.store: {url!r} has the scheme {scheme!r}, allowed is file://")
    path = (base / (unquote(rest) if separator else url)).absolute()
    if not (create or path.is_dir()):
        raise ModelMissing(f"no model store at {path}: train a model first, or set models.store")
    try:
        return ModelStore(LocalStore(path, mkdir=create), str(path))
    except (BaseError, OSError) as exc:
        raise ModelMissing(f"cannot open the model store at {path}: {_first_line(exc)}") from exc


def _json(page: Spec) -> bytes:
    return page.model_dump_json(indent=1).encode()


def _among(what: str, names: list[str]) -> str:
    return f"; {what} there: {', '.join(names)}" if names else f"; there are no {what}"


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0]
