"""Answers a model gave before: `CachedModel` is a `ports.Model` that scores only the rows nobody has asked about.

An answer is a function of the model's files and of a row: both are in its key, never the row alone. In this process
the key is the row's own bytes, in a store that belongs to one version; beyond it, see `shared_answers`. Bytes are
compared, not numbers: 0.0 and -0.0 are two rows, and cost a second answer.

A row is scored in other company than without a cache. A model is verified at load to answer a row the same in any
company, within the manifest's tolerance; so do the answers from here.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import compress, islice
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from app.clock import Clock
from app.errors import ModelFailed
from app.facts import CacheLookups
from app.models.row_layout import RowLayout, Rows, as_bytes
from app.models.shared_answers import Found, SharedAnswers, SharedStore, scope_of
from app.ports import Model, Tensors
from app.records import IntArray

Array = npt.NDArray[Any]

# Two bytes objects (33 each, rounded up to 16), an OrderedDict's node (56), slots in its tables, which are more or less
# empty, and holes where others were: full stores of 64 MiB, replaced once over, took up to 333 a row.
ENTRY_OVERHEAD_BYTES = 350
_TIME_BYTES = 8


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Bounds of one version's store in this process. max_bytes: keys, answers and what Python adds to them."""

    max_bytes: int = 67_108_864
    ttl_s: float = 300.0


class LocalAnswers:
    """The answers used last, each for at most ttl_s; by row, (n, width) bytes each way. Any thread.

    A dict in C and one byte string a row: no call, and no object but those, is made a row. Ordering by use costs as
    much as finding; a cache of objects takes seven times as long (docs/CACHE.md).
    """

    def __init__(self, policy: CachePolicy, row_bytes: int, answer_bytes: int, clock: Clock) -> None:
        self._ttl_s, self._clock, self._width = policy.ttl_s, clock, answer_bytes
        self.max_rows = policy.max_bytes // (ENTRY_OVERHEAD_BYTES + row_bytes + answer_bytes + _TIME_BYTES)
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()  # answer and the time it was kept; last used, last
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def look_up(self, keys: list[bytes]) -> tuple[npt.NDArray[np.bool_], Rows]:
        """Which rows are known, (n,), and the answers to those, in order."""
        with self._lock:
            values = list(map(self._kept.get, keys))
            known = np.fromiter(map(bool, values), np.bool_, len(keys))
            hits = known.tolist()
            _each(self._kept.move_to_end, compress(keys, hits))
        kept = np.frombuffer(b"".join(compress(values, hits)), np.uint8)  # type: ignore[arg-type]
        kept = kept.reshape(-1, self._width + _TIME_BYTES)
        kept_at = np.ascontiguousarray(kept[:, self._width :]).view(np.float64).ravel()
        fresh = kept_at > self._clock.monotonic() - self._ttl_s
        known[known] = fresh
        return known, kept[fresh, : self._width]

    def keep(self, keys: list[bytes], answers: Rows) -> None:
        """Remember the answer to each row; of more rows than there is room for, the last."""
        if not self.max_rows or not keys:
            return
        keys, answers = keys[-self.max_rows :], answers[-self.max_rows :]
        now = np.full((len(keys), 1), self._clock.monotonic(), np.float64).view(np.uint8)
        values = as_bytes(np.concatenate([answers, now], axis=1))
        with self._lock:
            too_many = max(0, len(self._kept) + len(keys) - self.max_rows)
            _each(self._kept.pop, list(islice(self._kept, too_many)))
            self._kept.update(zip(keys, values, strict=True))
            _each(self._kept.move_to_end, keys)  # one that had expired kept its old place

    def forget(self) -> None:
        """Know nothing any more."""
        with self._lock:
            self._kept.clear()


@dataclass(frozen=True, slots=True)
class Sharing:
    """A store that other workers use too. files: name → SHA-256 of each file of the version in front of it."""

    store: SharedStore
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What can be made once the model has shown what its answers look like."""

    layout: RowLayout
    local: LocalAnswers
    shared: SharedAnswers | None


class CachedModel:
    """A model, and its answers kept in front of it. As many threads may ask as may ask the model.

    observe: told of each batch's look-ups, on the thread that asks; must not raise. What is not finite is never
    kept, nor anything of a batch that the model failed on.
    """

    def __init__(
        self,
        model: Model,
        policy: CachePolicy,
        clock: Clock,
        observe: Callable[[CacheLookups], None],
        sharing: Sharing | None = None,
    ) -> None:
        self._model, self._policy, self._clock, self._observe, self._sharing = model, policy, clock, observe, sharing
        self._rows = RowLayout.of_inputs(model.inputs)
        self._kept: _Kept | None = None
        self._learning = Lock()
        self.name, self.version, self.digest = model.name, model.version, model.digest
        self.event_schema, self.prediction_schema = model.event_schema, model.prediction_schema
        self.inputs, self.outputs = model.inputs, model.outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """As `ports.Model.run`. The model is asked about the distinct rows that nobody knows, if there are any."""
        if not self._rows.fits(tensors):
            return self._model.run(tensors)  # it says what is wrong with them
        rows = self._rows.pack(tensors)
        keys = as_bytes(rows)
        kept = self._kept
        if kept is None:
            return self._first(tensors, rows, keys)
        known, found = kept.local.look_up(keys)
        if len(found) == len(rows):
            self._tell(len(rows), hits=len(rows))
            return kept.layout.unpack(found)
        answers = np.empty((len(rows), kept.layout.width), np.uint8)
        answers[known] = found
        missing = np.flatnonzero(~known)
        distinct, which, place = _distinct(list(compress(keys, (~known).tolist())))
        asked = missing[which]
        elsewhere = kept.shared.look_up(rows[asked]) if kept.shared else Found.nothing(len(asked), kept.layout.width)
        hits, errors = (int(np.count_nonzero(marked[place])) for marked in (elsewhere.known, elsewhere.errors))
        self._tell(len(rows), len(found) + hits, errors, len(missing) - hits if elsewhere.skipped else 0)
        new = self._score(kept, tensors, rows, asked, elsewhere, distinct)
        if new is None:
            return self._model.run(tensors)
        answers[missing] = new[place]
        return kept.layout.unpack(answers)

    def check(self) -> None:
        """As `ports.Model.check`; what a model that is at fault has said is forgotten here."""
        try:
            self._model.check()
        except ModelFailed:
            if self._kept is not None:
                self._kept.local.forget()
            raise

    def _first(self, tensors: Tensors, rows: Rows, keys: list[bytes]) -> dict[str, Array]:
        """Score the whole batch; from then on it is known what answers look like, and what to keep them in."""
        answers = self._model.run(tensors)
        self._tell(len(rows))
        layout = RowLayout.of_answers(answers, len(rows))
        if layout is None:
            return answers
        kept = _Kept(
            layout,
            LocalAnswers(self._policy, rows.shape[1], layout.width, self._clock),
            SharedAnswers(self._sharing.store, scope_of(self._sharing.files, self._rows, layout), layout.width)
            if self._sharing
            else None,
        )
        with self._learning:
            self._kept = self._kept or kept
        if self._kept is kept:  # another thread was not first
            self._keep(kept, keys, rows, layout.pack(answers), _finite(answers))
        return answers

    def _score(
        self, kept: _Kept, tensors: Tensors, rows: Rows, asked: IntArray, found: Found, keys: list[bytes]
    ) -> Rows | None:
        """The answers to the rows `asked`, from `found` or from the model; None if it answered in another layout."""
        answers = np.empty((len(asked), kept.layout.width), np.uint8)
        answers[found.known] = found.answers
        unknown = ~found.known
        finite = np.ones(len(asked), np.bool_)
        if unknown.any():
            left = asked[unknown]
            said = self._model.run(
                tensors if len(left) == len(rows) else {name: tensor[left] for name, tensor in tensors.items()}
            )
            if not kept.layout.fits(said, len(left)):
                return None
            answers[unknown] = kept.layout.pack(said)
            finite[unknown] = _finite(said)
        self._keep(kept, keys, rows[asked], answers, finite, found.known)
        return answers

    @staticmethod
    def _keep(
        kept: _Kept,
        keys: list[bytes],
        rows: Rows,
        answers: Rows,
        finite: npt.NDArray[np.bool_],
        shared: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Keep the finite answers, those not `shared` yet in both places."""
        every = finite.all()
        kept.local.keep(keys if every else list(compress(keys, finite.tolist())), answers if every else answers[finite])
        new = finite if shared is None else finite & ~shared
        if kept.shared and new.any():
            kept.shared.keep(rows[new], answers[new])

    def _tell(self, rows: int, hits: int = 0, errors: int = 0, skipped: int = 0) -> None:
        misses = rows - hits - errors - skipped
        self._observe(CacheLookups(self.name, self.version, hits, misses, errors, skipped))


def _each(call: Callable[[bytes], object], keys: Iterable[bytes]) -> None:
    deque(map(call, keys), maxlen=0)


def _finite(answers: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """(n,) which rows have no NaN and no infinity anywhere."""
    finite = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in answers.values()]
    return np.asarray(np.logical_and.reduce(finite))


def _distinct(keys: list[bytes]) -> tuple[list[bytes], IntArray, IntArray]:
    """Each key once, where it is in `keys`, and for each of `keys` where it is among the distinct ones."""
    position = dict(zip(keys, range(len(keys)), strict=True))
    if len(position) == len(keys):
        every = np.arange(len(keys))
        return keys, every, every
    rank = dict(zip(position, range(len(position)), strict=True))
    return (
        list(position),
        np.fromiter(position.values(), np.int64, len(position)),
        np.fromiter(map(rank.__getitem__, keys), np.int64, len(keys)),
    )
