"""Where models are kept: `<model>/<version>/` with a manifest written last, and `<model>/rollout.json`.

Objects are created once and never overwritten, so a version is either complete or does not count, and two
publishers at the same time get two versions. The one page that changes, the rollout, is replaced only by who saw
what is there. Names are checked before they become paths. (One class, though a long one: publishing, changing and
removing keep their promises only together.)
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter, ValidationError

from app.errors import (
    AppError,
    BadSettings,
    ModelInvalid,
    ModelMissing,
    NotReachable,
    RolloutConflict,
    StoreRefused,
)
from app.models.manifest import FILE_NAME, MODEL_FILE, MODEL_NAME, VERSION, Manifest, ModelCard
from app.models.objects import FolderObjects, Found, Objects
from app.models.rollout import ROLLOUT, Rollout, RolloutChange, first_rollout
from app.models.rollout_changes import Change, Order, withdraw
from app.models.store_access import SCHEMES, StoreAccess, open_bucket

MANIFEST_FILE = "manifest.json"
ROLLOUT_FILE = "rollout.json"
REMOVED_FILE = "removed"  # a version with this one does not count: its removal has begun
MAX_JSON_BYTES = 16 * 1024 * 1024  # golden rows of a large tensor are a few MiB; anything above is not ours

P = TypeVar("P")
MANIFEST = TypeAdapter(Manifest)
LINES: TypeAdapter[tuple[RolloutChange, ...]] = TypeAdapter(tuple[RolloutChange, ...])


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version as it was read: the manifest and the bytes of every file it lists. Not yet verified."""

    manifest: Manifest
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version as the store lists it. complete: it counts. modified_at: of its newest object."""

    version: str
    complete: bool
    modified_at: datetime


class ModelStore:
    """Versioned models in an object store.

    Every method may raise NotReachable or StoreRefused as well, and ModelMissing if there is no such bucket.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        return self._objects.url

    def models(self, *, half_written: bool = False) -> list[str]:
        """Names of the models with at least one complete version, in alphabetical order.

        half_written: those with nothing but half-written versions as well.
        """
        return sorted({model for model, stored in self._stored("") if stored.complete or half_written})

    def versions(self, model: str) -> list[str]:
        """Complete versions of a model, oldest first; none if there is no such model."""
        return [stored.version for stored in self.stored_versions(model) if stored.complete]

    def stored_versions(self, model: str) -> list[StoredVersion]:
        """Every version there is anything of, half-written ones too, oldest first."""
        if not re.fullmatch(MODEL_NAME, model):
            return []
        return [stored for name, stored in self._stored(model) if name == model]

    def manifest(self, model: str, version: str) -> Manifest:
        """Read the manifest of one version.

        Raises ModelMissing, listing what exists, if there is no such version, and ModelInvalid if the page
        cannot be read or speaks of another version.
        """
        self.check_exists(model, version)
        path = f"{model}/{version}/{MANIFEST_FILE}"
        if (found := self._objects.read(path, MAX_JSON_BYTES)) is None:
            raise ModelMissing(f"{self.url}/{path} does not exist")
        manifest = self._parsed(MANIFEST, path, found)
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
            found = self._objects.read(f"{model}/{version}/{name}")
            if found is None:
                raise ModelInvalid(f"model {model!r} version {version}: {name} is missing from {self.url}")
            files[name] = found.content
        return StoredModel(manifest, files)

    def rollout(self, model: str) -> Rollout:
        """Read the decision in force. Raises ModelMissing if there is none, ModelInvalid if it is broken."""
        return self._rollout(model)[0]

    def change_rollout(
        self, model: str, change: Change, order: Order, *, seen: int | None = None
    ) -> tuple[Rollout, Rollout]:
        """Replace the decision in force by what `change` makes of it; returns (before, after).

        Nothing is changed if this raises. RolloutConflict: somebody else was quicker, or what is in force is not
        the revision `seen`. It is for whoever lost to look at what the other did, with one exception: what a person
        orders is tried again on top of what a program changed. RolloutRefused: whatever `change` refuses.
        ModelMissing: a version that the new page names is not there.
        """
        while True:
            before, found = self._rollout(model)
            if seen is not None and before.revision != seen:
                raise _conflict(before, f"revision {before.revision} of {model!r} is in force, not {seen}")
            after = change(before)
            self._check_all_exist(model, _brought_in(before, after))
            self._archive(before, after)
            if self._replaced(model, found, after):
                break
            line = self.rollout(model).history[-1]
            if order.automatic or not line.automatic:
                raise _conflict(self.rollout(model), f"the rollout of {model!r} was not changed")
        try:
            self._check_all_exist(model, _brought_in(before, after))
        except ModelMissing as exc:  # removed between the first look and the change: then this change must go
            undo = Order(order.at, order.who, f"revision {after.revision} withdrawn: {exc}", order.automatic)
            self.change_rollout(model, lambda page: withdraw(page, before, undo), undo, seen=after.revision)
            raise
        return before, after

    def publish(self, model: str, card: ModelCard, files: Mapping[str, bytes], *, at: datetime, who: str) -> Manifest:
        """Write a new version of `model`, the next free number, and return its manifest.

        The first version of a model also becomes stable in `rollout.json`; later ones promote nothing. Raises
        ModelInvalid for a name that cannot be used; then, and whenever the manifest was not written, no version was
        added. Otherwise NotReachable and StoreRefused leave that open: of a manifest whose answer was lost nobody
        knows, and a first version whose page could not be written is there without one, which the message says. A
        promotion makes that page.
        """
        for pattern, name in [(MODEL_NAME, model), *((FILE_NAME, file) for file in files)]:
            if not re.fullmatch(pattern, name):
                raise ModelInvalid(f"{name!r} cannot be the name of a model or of one of its files")
        if MODEL_FILE not in files:
            raise ModelInvalid(f"a version of {model!r} needs {MODEL_FILE}")
        version = self._claim(model, files[MODEL_FILE])
        for name, content in files.items():
            if name != MODEL_FILE:
                self._write(f"{model}/{version}/{name}", content)
        digest = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
        manifest = Manifest(**dict(card), model=model, version=version, digest=digest, created_at=at)
        self._write(f"{model}/{version}/{MANIFEST_FILE}", _json(manifest))
        try:
            self.begin_rollout(first_rollout(model, version, at=at, who=who))
        except (NotReachable, StoreRefused) as exc:
            if version == "1":
                added = f"version 1 of {model!r} was added, but nothing says that it is stable: promote it"
                raise type(exc)(f"{added}: {exc}") from exc
        return manifest

    def begin_rollout(self, page: Rollout) -> bool:
        """Put the first page of a model in force; False, and nothing changed, if it has one."""
        return self._objects.create(f"{page.model}/{ROLLOUT_FILE}", _json(page))

    def remove(self, model: str, version: str, keep: frozenset[str] = frozenset()) -> bool:
        """Remove a version for good; False, and it stays, if it is one of `keep` or the rollout names it by now.

        It is marked first and the rollout read after that, while whoever changes the rollout looks for the mark
        after the change: one of the two sees the other, and nothing that is in use ever goes.
        """
        folder = f"{model}/{version}"
        self._objects.create(f"{folder}/{REMOVED_FILE}", b"")
        try:
            named = self.rollout(model).named | keep
        except ModelMissing:
            named = keep
        except AppError:
            self._objects.delete([f"{folder}/{REMOVED_FILE}"])
            raise
        if version in named:
            self._objects.delete([f"{folder}/{REMOVED_FILE}"])
            return False
        names = ["/".join(listed.parts) for listed in self._objects.listed(folder)]
        self._objects.delete(sorted(names, key=lambda name: name.endswith(f"/{REMOVED_FILE}")))  # the mark last
        return True

    def check_exists(self, model: str, version: str) -> None:
        """Raises ModelMissing, listing what exists, if there is no such version."""
        versions = self.versions(model)
        if not versions:
            raise ModelMissing(f"no model {model!r} in {self.url}{_among('models', self.models())}")
        if version not in versions:
            raise ModelMissing(
                f"model {model!r} has no version {version!r} in {self.url}{_among('versions', versions)}"
            )

    def _check_all_exist(self, model: str, versions: frozenset[str]) -> None:
        for version in sorted(versions, key=int):
            self.check_exists(model, version)

    def _stored(self, prefix: str) -> list[tuple[str, StoredVersion]]:
        """(model, version) of all there is below a prefix, by model and number."""
        files: dict[tuple[str, int], dict[str, datetime]] = {}
        for listed in self._objects.listed(prefix):
            model, version, *rest = (*listed.parts, "", "")
            if rest[0] and re.fullmatch(MODEL_NAME, model) and re.fullmatch(VERSION, version):
                files.setdefault((model, int(version)), {})[rest[0]] = listed.modified_at
        return [
            (model, StoredVersion(str(number), MANIFEST_FILE in of and REMOVED_FILE not in of, max(of.values())))
            for (model, number), of in sorted(files.items())
        ]

    def _rollout(self, model: str) -> tuple[Rollout, Found]:
        path = f"{model}/{ROLLOUT_FILE}"
        found = self._objects.read(path, MAX_JSON_BYTES) if re.fullmatch(MODEL_NAME, model) else None
        if found is None and not self.versions(model):
            raise ModelMissing(f"no model {model!r} in {self.url}{_among('models', self.models())}")
        if found is None:
            raise ModelMissing(f"{self.url}/{path} does not exist")
        rollout = self._parsed(ROLLOUT, path, found)
        if rollout.model != model:
            raise ModelInvalid(f"{self.url}/{path} is of model {rollout.model!r}")
        return rollout, found

    def _replaced(self, model: str, seen: Found, after: Rollout) -> bool:
        """Replace the page. An answer that was lost on the way is told from a lost race by the line of history."""
        failure = None
        try:
            if self._objects.replace(f"{model}/{ROLLOUT_FILE}", seen, _json(after)):
                return True
        except NotReachable as exc:
            failure = exc
        if after.history[-1] in self.rollout(model).history:
            return True
        if failure is not None:
            raise failure
        return False

    def _archive(self, before: Rollout, after: Rollout) -> None:
        """Keep the lines of history that the new page has no room for."""
        dropped = tuple(line for line in before.history if line.revision < after.history[0].revision)
        if dropped:
            name = f"{dropped[0].revision}-{dropped[-1].revision}.json"
            self._objects.create(f"{before.model}/history/{name}", LINES.dump_json(dropped, indent=1))

    def _claim(self, model: str, graph: bytes) -> str:
        """Take the number after all that exist, half-written ones too, by creating its model.onnx."""
        number = 1 + max((int(stored.version) for stored in self.stored_versions(model)), default=0)
        while not self._objects.create(f"{model}/{number}/{MODEL_FILE}", graph):
            number += 1  # another publisher was quicker
        return str(number)

    def _write(self, path: str, content: bytes) -> None:
        """Create an object of a version that is ours; that it exists already is our own try whose answer was lost."""
        if not self._objects.create(path, content):
            found = self._objects.read(path)
            if found is None or found.content != content:
                raise ModelInvalid(f"{self.url}/{path} was written by somebody else")

    def _parsed(self, kind: TypeAdapter[P], path: str, found: Found) -> P:
        try:
            return kind.validate_json(found.content)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the page"
            raise ModelInvalid(f"{self.url}/{path}: {where}: {first['msg']}") from exc


def open_store(url: str, base: Path, *, create: bool = False, access: StoreAccess | None = None) -> ModelStore:
    """Open the model store at `url`.

    url: `s3://`, `gs://` or `az://` with a bucket and a prefix, `file://` with a path, absolute or relative to
    `base`, or just the path. `create` makes the folder; a bucket must exist and is not asked yet.
    Raises ModelMissing if there is no such folder, BadSettings for another scheme or for access that the scheme does
    not know.
    """
    scheme, separator, rest = url.partition("://")
    for known in SCHEMES:
        if separator and scheme == known:
            return ModelStore(Objects(open_bucket(url, known, access or StoreAccess()), url.rstrip("/")))
    if separator and scheme != "file":
        allowed = ", ".join(f"{known}://" for known in ("file", *SCHEMES))
        raise BadSettings(f"models.store: {url!r} has the scheme {scheme!r}, allowed are {allowed}")
    path = (base / (unquote(rest) if separator else url)).absolute()
    if not (create or path.is_dir()):
        raise ModelMissing(f"no model store at {path}: train a model first, or set models.store")
    return ModelStore(FolderObjects(path, create=create))


def _json(page: BaseModel) -> bytes:
    return page.model_dump_json(indent=1).encode()


def _brought_in(before: Rollout, after: Rollout) -> frozenset[str]:
    """Versions that a change names anew or has loaded: `previous` may have been gone for long, until it is wanted."""
    return (after.named - before.named) | (frozenset(after.versions) - frozenset(before.versions))


def _conflict(page: Rollout, what: str) -> RolloutConflict:
    last = page.history[-1]
    return RolloutConflict(
        f"{what}: {last.who} made revision {last.revision} at {last.at:%Y-%m-%d %H:%M:%S %Z} ({last.why}); "
        f"in force is {page.words}. Look, and decide again"
    )


def _among(what: str, names: list[str]) -> str:
    return f"; {what} there: {', '.join(names)}" if names else f"; there are no {what}"
