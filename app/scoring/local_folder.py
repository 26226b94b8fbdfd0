"""A folder that part files appear in whole: written aside, made durable, then linked to a name that nobody has."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from app.errors import BadSettings, NotReachable

ASIDE = "_tmp"  # readers of data sets leave out what begins with an underscore


class Folder(Protocol):
    """Where a job's files go, and what it finds there when it is started again. Names have "/" between parts.

    Raises NotReachable, StoreRefused or BadSettings if that cannot be done.
    """

    @property
    def url(self) -> str:
        """For messages."""
        ...

    def names(self) -> set[str]:
        """Of everything that is there, complete."""
        ...

    def read(self, name: str) -> bytes | None:
        """The whole file, None if there is none."""
        ...

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """The file is there whole, or not at all; False, and nothing changed, if there is one of that name."""
        ...

    def put(self, name: str, content: bytes | pa.Buffer) -> None:
        """The same, in place of any there is."""
        ...

    def tidy(self) -> None:
        """Remove what killed writers left, which no reader sees."""
        ...


class LocalFolder:
    """A `Folder` on this machine, or on a file system that it has mounted; made when the first file is."""

    def __init__(self, path: Path) -> None:
        """Raises BadSettings if there is a file of that name."""
        if path.exists() and not path.is_dir():
            raise BadSettings(f"{path} is a file; answers go into a folder of part files")
        self._path = path
        self.url = str(path)

    def names(self) -> set[str]:
        """Of every file below, but those in the making."""
        found = (path.relative_to(self._path) for path in self._path.rglob("*") if path.is_file())
        return {path.as_posix() for path in found if path.parts[0] != ASIDE}

    def read(self, name: str) -> bytes | None:
        """The whole file, None if there is none."""
        with self._telling(f"cannot read {self._path / name}"):
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """A link cannot be made to a name that is taken, whoever else tries at the same time."""

        def link(draft: Path, target: Path) -> None:
            try:
                os.link(draft, target)
            finally:
                draft.unlink()

        try:
            self._write(name, content, link)
        except FileExistsError:
            return False
        return True

    def put(self, name: str, content: bytes | pa.Buffer) -> None:
        """By an atomic rename."""
        self._write(name, content, lambda draft, target: draft.replace(target))

    def tidy(self) -> None:
        """Remove what killed writers left."""
        shutil.rmtree(self._path / ASIDE, ignore_errors=True)

    def _write(self, name: str, content: bytes | pa.Buffer, place: Callable[[Path, Path], object]) -> None:
        target, draft = self._path / name, self._path / ASIDE / uuid.uuid4().hex
        with self._telling(f"cannot write {target}"):
            for folder in (target.parent, draft.parent):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                place(draft, target)
            except OSError:
                with suppress(OSError):
                    draft.unlink()
                raise
            _sync(target.parent)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except OSError as exc:
            refused = isinstance(exc, PermissionError | NotADirectoryError | IsADirectoryError)
            raise (BadSettings if refused else NotReachable)(f"{what}: {exc.strerror or exc}") from exc


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
