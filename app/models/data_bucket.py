"""Files of rows in a bucket: read a range at a time, written whole and only once.

Beside `objects.py`, which hides the same library for small objects that are compared and swapped.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from app.errors import BadSettings, NotReachable
from app.models.objects import Objects

if TYPE_CHECKING:  # of the stubs alone
    from obstore import GetOptions, ObjectMeta


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as the bucket lists it. state: changes with its content."""

    name: str
    size: int
    state: str


class DataBucket(Objects):
    """The objects below a prefix of a bucket. Every call raises NotReachable, StoreRefused, ModelMissing as there."""

    def stored(self) -> list[Stored]:
        """All of them, by name."""
        with self._telling(f"cannot list {self.url}"):
            found = self._store.list().collect()
        return sorted(
            (Stored(item["path"], item["size"], _state(item)) for item in found),
            key=lambda stored: stored.name,
        )

    def names(self) -> set[str]:
        """Of all of them."""
        return {stored.name for stored in self.stored()}

    def open(self, name: str, state: str) -> pa.NativeFile:
        """One of them, read as it is needed: all of it is the object that was listed in this state.

        Raises BadSettings, here or where it is read, if it is another one by now: its rows would be mixed.
        """
        with self._telling(f"cannot read {self.url}/{name}"):
            try:
                now = self._store.head(name)
            except FileNotFoundError as exc:
                raise BadSettings(f"there is no {self.url}/{name}") from exc
        if _state(now).strip('"') != state.strip('"'):  # Azure lists tags without the quotes they have elsewhere
            raise BadSettings(f"{self.url}/{name} has changed since the job began")
        return pa.PythonFile(_Ranges(self, name, now), mode="r")

    def read_range(self, name: str, start: int, end: int, e_tag: str | None) -> bytes:
        """Bytes start to end - 1 of an object. Raises BadSettings if it does not have this tag any more."""
        options: GetOptions = {"range": (start, end)}
        if e_tag is not None:
            options["if_match"] = e_tag
        with self._telling(f"cannot read {self.url}/{name}"):
            try:
                return bytes(obstore.get(self._store, name, options=options).bytes())
            except (PreconditionError, FileNotFoundError) as exc:
                raise BadSettings(f"{self.url}/{name} was replaced while it was read") from exc

    def put_new(self, name: str, content: bytes | pa.Buffer) -> bool:
        """Whole, in one request, or not at all; False, and nothing changed, if it exists."""
        with self._telling(f"cannot write {self.url}/{name}"):
            try:
                self._store.put(name, bytes(content), mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def put_over(self, name: str, content: bytes | pa.Buffer) -> None:
        """The same, in place of any there is."""
        with self._telling(f"cannot write {self.url}/{name}"):
            self._store.put(name, bytes(content), use_multipart=False)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as exc:
            raise self._translated(exc, what) from exc


def _state(found: "ObjectMeta") -> str:
    return found["e_tag"] or str(found["last_modified"])


class _Ranges(io.RawIOBase):
    """An object as a file that can be read and sought."""

    def __init__(self, bucket: DataBucket, name: str, found: "ObjectMeta") -> None:
        super().__init__()
        self._bucket, self._name, self._size, self._at = bucket, name, found["size"], 0
        self._e_tag = found["e_tag"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        content = self._bucket.read_range(self._name, self._at, end, self._e_tag)
        if len(content) != end - self._at:
            raise NotReachable(f"{self._bucket.url}/{self._name} broke off at byte {self._at + len(content)}")
        self._at = end
        return content
