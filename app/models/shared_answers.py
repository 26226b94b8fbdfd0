"""One version's answers in a store that others write to as well: what a key is, what a value is, what is believed.

key: `inference:`, 16 bytes of SHA-256 over the model's files and the layout of its rows and answers, and the XXH3-128
of the row. XXH3 is quick (13 µs for 512 rows, SHA-256 takes 123), and is no secret: rows that collide can be made.
So the value repeats the row, and the answer to another row is never believed.
value: a format byte, the row, the answer, and the XXH3-64 of all that, seeded for the version; all of one length for a
version. What is not whole, or was another version's, is not believed either.

Who may write to the store may give any answer: it is as trusted as the model store (docs/CACHE.md).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import compress
from operator import is_not
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import xxhash

from app.models.row_layout import RowLayout, Rows, as_bytes

PREFIX = b"inference:"
FORMAT = 1
_SCOPE_BYTES = 16
_CHECK_BYTES = 8


class Unanswered(Enum):
    """Why a store said nothing. FAILED: it was asked, in vain. SKIPPED: it was not, having failed before."""

    FAILED = "failed"
    SKIPPED = "skipped"


class SharedStore(Protocol):
    """Keys and values that several processes share. Never raises, never takes longer than its budget. Any thread."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None] | Unanswered:
        """The value of each key, or None; any bytes can have come to be there."""
        ...

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Some time soon, or never."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a store knew of m rows.

    known: (m,) which. answers: (k, width), to those. errors: (m,) of which others it gave nothing usable. skipped: it
    was not asked.
    """

    known: npt.NDArray[np.bool_]
    answers: Rows
    errors: npt.NDArray[np.bool_]
    skipped: bool = False

    @classmethod
    def nothing(cls, rows: int, width: int, reason: Unanswered | None = None) -> Self:
        """None of so many rows; reason: why not, unless the store does not know them."""
        failed = np.full(rows, reason is Unanswered.FAILED)
        nobody = np.zeros(rows, np.bool_)
        return cls(nobody, np.empty((0, width), np.uint8), failed, reason is Unanswered.SKIPPED)


class SharedAnswers:
    """The answers of one version in a shared store; by row, (m, width) bytes each way."""

    def __init__(self, store: SharedStore, scope: bytes, answer_bytes: int) -> None:
        self._store, self._key, self._answer_bytes = store, (PREFIX + scope).__add__, answer_bytes
        self._check = partial(xxhash.xxh3_64_digest, seed=int.from_bytes(scope[:8]))

    def look_up(self, rows: Rows) -> Found:
        """What the store knows of these rows, with one question."""
        found = self._store.get(self._keys(rows))
        if isinstance(found, Unanswered):
            return Found.nothing(len(rows), self._answer_bytes, found)
        there = np.fromiter(map(partial(is_not, None), found), np.bool_, len(rows))
        values = list(compress(found, there.tolist()))
        answer_at = 1 + rows.shape[1]
        check_at = answer_at + self._answer_bytes
        size = check_at + _CHECK_BYTES
        fits = np.fromiter(map(len, values), np.int64, len(values)) == size  # type: ignore[arg-type]
        if not fits.all():
            values = list(compress(values, fits.tolist()))
        block = np.frombuffer(b"".join(values), np.uint8).reshape(-1, size)  # type: ignore[arg-type]
        which = np.flatnonzero(there)[fits]
        ours = (block[:, 0] == FORMAT) & (block[:, 1:answer_at] == rows[which]).all(axis=1)
        ours &= (block[:, check_at:] == self._checks(block[:, :check_at])).all(axis=1)
        known = np.zeros(len(rows), np.bool_)
        known[which[ours]] = True
        return Found(known, block[ours, answer_at:check_at], there & ~known)

    def keep(self, rows: Rows, answers: Rows) -> None:
        """Give these answers to the store; what else was there under their keys is replaced."""
        mark = np.full((len(rows), 1), FORMAT, np.uint8)
        values = np.concatenate([mark, rows, answers], axis=1)
        values = np.concatenate([values, self._checks(values)], axis=1)
        self._store.put(self._keys(rows), as_bytes(values))

    def _checks(self, values: Rows) -> Rows:
        joined = b"".join(map(self._check, as_bytes(values)))
        return np.frombuffer(joined, np.uint8).reshape(-1, _CHECK_BYTES)

    def _keys(self, rows: Rows) -> list[bytes]:
        return list(map(self._key, map(xxhash.xxh3_128_digest, as_bytes(rows))))


def scope_of(files: Mapping[str, str], rows: RowLayout, answers: RowLayout) -> bytes:
    """What tells one model's keys from all others'. files: name → SHA-256 of each file of the version.

    All of them: two graphs with their weights beside them can be the same file.
    """
    text = repr([FORMAT, sorted(files.items()), rows.text(), answers.text()])
    return hashlib.sha256(text.encode()).digest()[:_SCOPE_BYTES]
