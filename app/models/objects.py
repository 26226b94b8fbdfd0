"""Objects by path, in a folder or a bucket: created once, replaced only by who saw what is there. Hides obstore.

A bucket compares and swaps by itself, by e-tag (S3, Azure) or generation (Google). The library's folders have no
such thing: there a lock file, a comparison and an atomic rename do it. The kernel frees the lock of a process that
ended, however it ended, so none is ever left behind.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore

from app.errors import AppError, ModelInvalid, ModelMissing, NotReachable, StoreRefused

if TYPE_CHECKING:
    from obstore import UpdateVersion  # not there at run time

LOCK_TIMEOUT_S = 10.0  # whoever holds it writes a page of a few kB; longer than this it is frozen
LOCK_POLL_S = 0.01
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")  # S3, Azure, Google
# Where the library looks for the role of a machine when nothing else was given: on AWS and on Google's cloud.
METADATA_SERVICE = ("169.254.169.254", "/latest/api/token", "/computeMetadata/")


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it was read, with what tells the store that it is still the same."""

    content: bytes
    e_tag: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as the store lists it. parts: its path, split at the slashes."""

    parts: tuple[str, ...]
    modified_at: datetime


class Objects:
    """The objects of a bucket, below a prefix. `url` is for messages only.

    Every call raises NotReachable if the store does not answer, StoreRefused if it refuses us, and ModelMissing if
    there is no such bucket.
    """

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self.url = url

    def listed(self, prefix: str = "") -> list[Listed]:
        """Every object below a prefix, which ends where a part of the path does."""
        try:
            found = self._store.list(prefix or None).collect()
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot list {self.url}") from exc
        return [Listed(tuple(item["path"].split("/")), item["last_modified"]) for item in found]

    def read(self, path: str, limit: int | None = None) -> Found | None:
        """The whole object; None if there is none. Raises ModelInvalid if it is larger than `limit` bytes."""
        try:
            found = self._store.get(path)
            if limit is not None and found.meta["size"] > limit:
                raise ModelInvalid(f"{self.url}/{path} has {found.meta['size']} bytes, allowed {limit}")
            content = bytes(found.bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot read {self.url}/{path}") from exc
        return Found(content, found.meta["e_tag"], found.meta["version"])

    def create(self, path: str, content: bytes) -> bool:
        """Create an object; False, and nothing changed, if it exists."""
        try:
            self._store.put(path, content, mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot write {self.url}/{path}") from exc
        return True

    def replace(self, path: str, seen: Found, content: bytes) -> bool:
        """Replace an object if it is still what was `seen`; False, and nothing changed, if it is not.

        After an error, and after a connection that broke, it may have been replaced nevertheless.
        """
        mode: UpdateVersion = {}
        if seen.e_tag is not None:
            mode["e_tag"] = seen.e_tag
        if seen.version is not None:
            mode["version"] = seen.version
        if not mode:
            raise StoreRefused(f"cannot write {self.url}/{path}: the store gives nothing to tell a changed object by")
        try:
            self._store.put(path, content, mode=mode)
        except (PreconditionError, AlreadyExistsError):
            return False
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot write {self.url}/{path}") from exc
        return True

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects in this order; one that is gone already is no error."""
        for path in paths:
            try:
                self._store.delete(path)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as exc:
                raise self._translated(exc, f"cannot delete {self.url}/{path}") from exc

    def _translated(self, exc: Exception, what: str) -> AppError:
        reason = _reason(exc)
        if any(place in str(exc) for place in METADATA_SERVICE):
            return StoreRefused(
                f"{what}: no credentials: neither models.store_options nor the environment has any, "
                "and this machine has no role of its own"
            )
        if isinstance(exc, FileNotFoundError) or any(code in reason for code in NO_BUCKET):
            return ModelMissing(f"{what}: there is no such bucket or folder: {reason}")
        refusals = (UnauthenticatedError, PermissionDeniedError, PermissionError)
        if isinstance(exc, refusals) or re.search(r"status code: 4\d\d", str(exc)):
            return StoreRefused(f"{what}: {reason}")
        return NotReachable(f"{what}: {reason}")


class FolderObjects(Objects):
    """The objects of a folder."""

    def __init__(self, root: Path, *, create: bool) -> None:
        try:
            super().__init__(LocalStore(root, mkdir=create), str(root))
        except (BaseError, OSError) as exc:
            raise ModelMissing(f"cannot open the model store at {root}: {_reason(exc)}") from exc
        self._root = root

    def create(self, path: str, content: bytes) -> bool:
        """Create a file; a power cut afterwards does not undo it, nor leaves a part of it."""
        if not super().create(path, content):
            return False
        target = self._root / path
        try:
            for place in (target, *target.relative_to(self._root).parents):  # the folders may be new as well
                _sync(self._root / place)
        except OSError as exc:
            raise self._translated(exc, f"cannot write {target}") from exc
        return True

    def replace(self, path: str, seen: Found, content: bytes) -> bool:
        """Replace a file if it is still what was `seen`; readers find the old or the new one, never a mixture."""
        target = self._root / path
        try:
            with self._locked(target.with_suffix(".lock")):
                if target.read_bytes() != seen.content:
                    return False
                _write_durably(target, content)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self._translated(exc, f"cannot write {target}") from exc
        return True

    @contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        with file.open("a") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as exc:
                    if time.monotonic() > deadline:
                        raise NotReachable(f"{file} has been locked for more than {LOCK_TIMEOUT_S:g} s") from exc
                    time.sleep(LOCK_POLL_S)
            yield


def _write_durably(target: Path, content: bytes) -> None:
    """Replace a file at once, and so that a power cut leaves the old or the new one. The caller has the lock."""
    draft = target.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync(target.parent)


def _sync(place: Path) -> None:
    """What is known of this file or folder by now survives a power cut."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(exc: BaseException) -> str:
    """The server's own words if it answered in XML, as S3 and Azure do; else the first line of the library's."""
    said = [re.search(rf"<{tag}>([^<]*)</{tag}>", str(exc)) for tag in ("Code", "Message")]
    if all(said):
        return ": ".join(found.group(1).partition("\n")[0] for found in said if found)  # Azure adds id and time
    return str(exc).partition("\n")[0]
