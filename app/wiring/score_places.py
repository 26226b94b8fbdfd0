"""Where rows to be scored are and where their answers go: files and part files, here or in a bucket."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from app.errors import BadSettings
from app.models.data_bucket import DataBucket
from app.models.store_access import SCHEMES, Scheme, StoreAccess, open_bucket
from app.scoring.local_folder import Folder, LocalFolder
from app.scoring.plan import InputFile
from app.scoring.rows_in import OpenFile
from app.scoring.rows_out import Format

SUFFIXES: Mapping[str, Format] = {".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True, slots=True)
class FoundInput:
    """A file of rows and how it is opened."""

    file: InputFile
    open: OpenFile


def found_inputs(source: str) -> list[FoundInput]:
    """The file, or every file below a folder but those whose path has a part that begins with "_" or "."."""
    scheme = _scheme(source)
    found = list(_local_inputs(_local(source)) if scheme is None else _bucket_inputs(source, scheme))
    if not found:
        raise BadSettings(f"{source}: there are no {' or '.join(SUFFIXES)} files")
    return found


def _local_inputs(path: Path) -> Iterator[FoundInput]:
    if not path.exists():
        raise BadSettings(f"there is no {path}")
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in below:
        if file.is_file() and (file == path or _counts(file.relative_to(path).as_posix())):
            facts = file.stat()
            name = str(file)
            yield FoundInput(
                InputFile(name=name, size=facts.st_size, state=str(facts.st_mtime_ns)), partial(pa.OSFile, name)
            )


def _bucket_inputs(source: str, scheme: Scheme) -> Iterator[FoundInput]:
    """Below a prefix, or the one object of that name."""
    is_file = Path(source).suffix in SUFFIXES
    prefix, _, only = source.rpartition("/") if is_file else (source.rstrip("/"), "", "")
    bucket = _bucket(prefix, scheme)
    for stored in bucket.stored():
        if stored.name == only if is_file else _counts(stored.name):
            file = InputFile(name=f"{prefix}/{stored.name}", size=stored.size, state=stored.state)
            yield FoundInput(file, partial(bucket.open, stored.name, stored.state))


def _counts(name: str) -> bool:
    return Path(name).suffix in SUFFIXES and not any(part.startswith(("_", ".")) for part in name.split("/"))


def answers_folder(target: str, source: str) -> Folder:
    """Where answers go. Raises BadSettings for a place within the source."""
    scheme = _scheme(target)
    if scheme is not None:
        if f"{target.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
            raise BadSettings(f"{target} is within {source}: its answers would be rows of the next job")
        return _BucketFolder(_bucket(target.rstrip("/"), scheme))
    path = _local(target)
    if _scheme(source) is None and path.is_relative_to(_local(source)):
        raise BadSettings(f"{path} is within {_local(source)}: its answers would be rows of the next job")
    return LocalFolder(path)


class _BucketFolder:
    """A `Folder` in a bucket."""

    def __init__(self, bucket: DataBucket) -> None:
        self._bucket = bucket
        self.url = bucket.url

    def names(self) -> set[str]:
        return self._bucket.names()

    def read(self, name: str) -> bytes | None:
        found = self._bucket.read(name)
        return None if found is None else found.content

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        return self._bucket.put_new(name, content)

    def put(self, name: str, content: bytes | pa.Buffer) -> None:
        self._bucket.put_over(name, content)

    def tidy(self) -> None:
        """A bucket shows no object before it is whole, and keeps nothing else of it."""


def _bucket(url: str, scheme: Scheme) -> DataBucket:
    return DataBucket(open_bucket(url, scheme, StoreAccess()), url)


def _scheme(url: str) -> Scheme | None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        return None
    if scheme not in SCHEMES:
        allowed = ", ".join(f"{known}://" for known in ("file", *SCHEMES))
        raise BadSettings(f"{url!r} has the scheme {scheme!r}, allowed are {allowed}")
    return scheme


def _local(url: str) -> Path:
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    return Path(path).resolve()
