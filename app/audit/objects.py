"""The objects of a trail: their sizes, parts of them, and files that survive a power cut. Hides obstore."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from app.errors import BadSettings, StoreRefused
from app.models.objects import Objects
from app.models.store_access import SCHEMES, StoreAccess, open_bucket


@dataclass(frozen=True, slots=True)
class Sized:
    """An object as it is listed."""

    path: str
    size: int


class TrailObjects(Objects):
    """Raises what `Objects` does: NotReachable, StoreRefused, ModelMissing if there is no such bucket."""

    def __init__(self, store: ObjectStore, url: str, folder: Path | None = None) -> None:
        """folder: where the objects are files."""
        super().__init__(store, url)
        self._folder = folder

    def sized(self, prefix: str) -> list[Sized]:
        """Every object below a prefix, which ends where a part of the path does."""
        try:
            found = self._store.list(prefix).collect()
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot list {self.url}") from exc
        return [Sized(item["path"], item["size"]) for item in found]

    def has(self, path: str) -> bool:
        """Whether there is such an object."""
        try:
            self._store.head(path)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot read {self.url}/{path}") from exc
        return True

    def part(self, path: str, start: int, size: int) -> bytes | None:
        """So many bytes from `start` on; None if there is no such object any more."""
        try:
            return bytes(self._store.get_range(path, start=start, length=size))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as exc:
            raise self._translated(exc, f"cannot read {self.url}/{path}") from exc

    def create(self, path: str, content: bytes) -> bool:
        """Create an object that outlives a power cut; False, and nothing changed, if it exists."""
        created = super().create(path, content)
        if self._folder is not None:
            try:
                _sync(self._folder, self._folder / path)
            except FileNotFoundError:
                return created  # somebody else's, and deleted already
            except OSError as exc:
                raise self._translated(exc, f"cannot write {self.url}/{path}") from exc
        return created


def open_objects(url: str, base: Path, access: StoreAccess, *, create: bool) -> TrailObjects:
    """The objects at `url`; a relative path is relative to `base`. A bucket is not asked anything yet.

    Raises BadSettings for a URL that is none, StoreRefused if the folder cannot be used or, unless `create`, is not
    there.
    """
    scheme, separator, rest = url.partition("://")
    for known in SCHEMES:
        if separator and scheme == known:
            return TrailObjects(open_bucket(url, known, access), url.rstrip("/"))
    if separator and scheme != "file":
        allowed = ", ".join(f"{known}://" for known in ("file", *SCHEMES))
        raise BadSettings(f"audit.store: {url!r} has the scheme {scheme!r}, allowed are {allowed}")
    folder = (base / (unquote(rest) if separator else url)).absolute()
    if not (create or folder.is_dir()):
        raise StoreRefused(f"no audit trail at {folder}: nothing has been written there, or audit.store is another")
    try:
        return TrailObjects(LocalStore(folder, mkdir=create), str(folder), folder)
    except (BaseError, OSError) as exc:
        reason = str(exc).partition("\n")[0]
        raise StoreRefused(f"cannot open the audit trail at {folder}: {reason}") from exc


def _sync(root: Path, file: Path) -> None:
    """The file's content and its name in every folder up to the root are on the disk."""
    for place in (file, *[folder for folder in file.parents if folder.is_relative_to(root)]):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
