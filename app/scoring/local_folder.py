"""A folder that part files appear in whole: written aside, made durable, then linked to a name that nobody has."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from weakref import finalize

import pyarrow as pa

from app.errors import BadSettings, NotReachable

ASIDE = "_tmp"  # readers of data sets leave out what begins with an underscore
LOCK = "writer"  # held by whoever drafts beside it; the system gives it back when the process is gone
MOST_TRIES = 5  # to make a folder that somebody else tidies away at the same time


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
        self._drafts = path / ASIDE / uuid.uuid4().hex  # its own: others may tidy theirs while it writes
        self._unlock: finalize[[int], LocalFolder] | None = None  # at the latest when this object goes
        self.url = str(path)

    def names(self) -> set[str]:
        """Of every file below, but those in the making."""
        found: set[str] = set()
        with self._telling(f"cannot list {self._path}"):
            for at, folders, files in os.walk(self._path, onerror=_unless_not_made):
                place = Path(at).relative_to(self._path)
                if not place.parts:  # not even looked into: others make folders there, and tidy them away
                    folders[:] = [name for name in folders if name != ASIDE]
                found |= {(place / name).as_posix() for name in files}
        return found - {ASIDE}

    def read(self, name: str) -> bytes | None:
        """The whole file, None if there is none."""
        with self._telling(f"cannot read {self._path / name}"):
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """A link cannot be made to a name that is taken, whoever else tries at the same time."""
        return self._write(name, content, _linked)

    def put(self, name: str, content: bytes | pa.Buffer) -> None:
        """By an atomic rename."""
        self._write(name, content, _renamed)

    def tidy(self) -> None:
        """Remove what killed writers left, and nothing of those that are still at work."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None
        with suppress(OSError):
            for drafts in (self._path / ASIDE).iterdir():
                _remove_if_left(drafts)
            (self._path / ASIDE).rmdir()  # if that was all

    def _write(self, name: str, content: bytes | pa.Buffer, place: Callable[[Path, Path], bool]) -> bool:
        target, draft = self._path / name, self._drafts / uuid.uuid4().hex
        with self._telling(f"cannot write {target}"):
            _made(target.parent)
            self._hold()
            try:
                with draft.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                placed = place(draft, target)
            finally:
                with suppress(OSError):  # renamed, say
                    draft.unlink()
            _sync(target.parent)
        return placed

    def _hold(self) -> None:
        """The folder for drafts is there, and locked."""
        left = MOST_TRIES
        while self._unlock is None:
            _made(self._drafts)
            try:
                lock = os.open(self._drafts / LOCK, os.O_CREAT | os.O_RDWR, 0o666)  # whoever may write here may tidy
            except FileNotFoundError:  # tidied away since
                left -= 1
                if not left:
                    raise
                continue
            fcntl.flock(lock, fcntl.LOCK_SH)
            if (self._drafts / LOCK).exists():  # else somebody tidied it away before it was locked
                self._unlock = finalize(self, os.close, lock)
            else:
                os.close(lock)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            refused = isinstance(exc, PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError)
            raise (BadSettings if refused else NotReachable)(f"{what}: {exc.strerror or exc}") from exc


def _linked(draft: Path, target: Path) -> bool:
    try:
        os.link(draft, target)
    except FileExistsError:
        return False
    return True


def _renamed(draft: Path, target: Path) -> bool:
    draft.replace(target)
    return True


def _unless_not_made(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _made(folder: Path) -> None:
    for left in reversed(range(MOST_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError):  # the latter too, where one was there and is tidied away
            if not left:
                raise
        else:
            return


def _remove_if_left(drafts: Path) -> None:
    """Unless somebody writes there, or removes it already.

    It is locked until it is gone: a writer that has opened the lock waits, and then makes the folder anew. One that has
    not may find its folder, which is still empty, gone as well.
    """
    with suppress(OSError), (drafts / LOCK).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), (drafts / LOCK).stat()):  # else of one that is gone
            shutil.rmtree(drafts)
    with suppress(OSError):  # NFS keeps the name of an open file; and who made this may have been killed then
        drafts.rmdir()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
