"""Models small enough to check by hand, a folder in memory, and rows for them."""

import numpy as np
import pyarrow as pa
from fakes import FakeModel, ManualClock

from app.errors import ModelFailed, NotReachable
from app.scoring.file_lanes import file_lane
from app.scoring.one_version import OneVersion
from app.scoring.rows_in import Piece
from app.scoring.scorer import Scorer
from app.scoring.steps import Steps
from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, ProbabilitiesOutput, ValueOutput

INPUTS = (
    InputSpec(
        name="X",
        features=(
            NumberFeature(field="x", min=0, max=100),
            NumberFeature(field="y", missing=Impute(impute=7.0)),
            OneHotFeature(field="plan", categories=("basic", "premium")),
        ),
    ),
)
OUTPUTS = (
    ProbabilitiesOutput(
        name="p",
        classes=(0, 1),
        threshold=0.5,
        fields={"prediction": "class", "probability": "probability"},
    ),
)


def share_of_hundred(tensors):
    """The probability is x / 100."""
    second = tensors["X"][:, 0] / 100
    return {"p": np.stack([1 - second, second], axis=1)}


def model(version="1", answer=share_of_hundred, **changes):
    return FakeModel(**{"inputs": INPUTS, "outputs": OUTPUTS, "answer": answer, "version": version} | changes)


def scorer(page=None, models=None, clock=None, steps=None, constant=None):
    models, clock, steps = models or {"1": model()}, clock or ManualClock(), steps or Steps()
    lanes = {version: file_lane(each, steps, clock, constant) for version, each in models.items()}
    return Scorer(page or OneVersion(next(iter(models))), lanes, clock, steps)


def value_model():
    """A regression: twice x."""
    outputs = (ValueOutput(name="v", fields={"amount": "value"}),)
    return model(outputs=outputs, answer=lambda tensors: {"v": tensors["X"][:, 0] * 2})


def table(x, *, plan="basic", **more):
    """Rows with these x; y is missing."""
    count = len(x)
    columns = {"x": pa.array(x, pa.float64()), "y": pa.nulls(count, pa.float64()), "plan": pa.array([plan] * count)}
    return pa.RecordBatch.from_pydict(columns | more)


class Died(Exception):
    """The process is gone; nothing is raised in it, nothing more is done."""


class MemoryFolder:
    """A `Folder`; the process dies in place of write number `dies_at`, before or after it took effect."""

    url = "memory"

    def __init__(self, files=None, *, dies_at=None, after=False):
        self.files = {} if files is None else files
        self.writes, self._dies_at, self._after = 0, dies_at, after

    def names(self):
        return set(self.files)

    def read(self, name):
        return self.files.get(name)

    def create(self, name, content):
        return self._write(lambda: self._create(name, content))

    def put(self, name, content):
        self._write(lambda: self.files.update({name: bytes(content)}))

    def tidy(self):
        pass

    def _create(self, name, content):
        if name in self.files:
            return False
        self.files[name] = bytes(content)
        return True

    def _write(self, write):
        self.writes += 1
        dies = self.writes == self._dies_at
        if dies and not self._after:
            raise Died
        done = write()
        if dies:
            raise Died
        return done


class RowsInMemory:
    """A `RowsFile` that comes in pieces of `piece_rows`; `breaks_at`: the piece that cannot be read."""

    def __init__(self, name, rows, *, piece_rows=3, knows_rows=True, unreadable=(), breaks_at=None):
        self.name, self._table, self._piece_rows = name, rows, piece_rows
        self.rows = rows.num_rows if knows_rows else None
        self.schema = rows.schema
        self.asked = []
        self._unreadable, self._breaks_at = unreadable, breaks_at

    def pieces(self, columns, first_row):
        self.asked.append(first_row)
        rows = self._table.select(list(columns))
        for number, start in enumerate(range(0, max(1, rows.num_rows), self._piece_rows)):
            if number == self._breaks_at:
                raise NotReachable(f"{self.name} is gone")
            yield Piece(start, rows.slice(start, self._piece_rows), self._unreadable if number == 0 else ())


def fails_on_all(_tensors):
    raise ModelFailed("it fails on everything")
