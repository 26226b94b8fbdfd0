"""What the cache's tests share: versions whose answers are a formula, and a store that others may have spoilt."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fakes import FakeModel, ManualClock

from app.facts import CacheLookups
from app.models.cache import CachedModel, CachePolicy, Sharing
from app.models.shared_answers import Unanswered
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

INPUTS = (
    InputSpec(name="X", features=(NumberFeature(field="a"), NumberFeature(field="b"))),
    InputSpec(name="N", dtype="int64", features=(NumberFeature(field="n"),)),
)
DEFAULT = CachePolicy()
OUTPUTS = (ProbabilitiesOutput(name="p", classes=("no", "yes")), ValueOutput(name="v"))


def formula(version):
    """Answers that differ between rows and versions, and have NaN where N is negative."""

    def answer(tensors):
        x, n = tensors["X"], tensors["N"][:, 0]
        assert all(tensor.flags.c_contiguous and len(tensor) for tensor in tensors.values())
        value = np.where(n < 0, np.nan, x[:, 0] * 3 + n * 7 + version).astype(np.float64)
        return {"p": np.stack([x[:, 1] + version, 1 - x[:, 1]], axis=1).astype(np.float32), "v": value}

    return answer


def batch(rows):
    """Tensors of (a, b, n) triples."""
    columns = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
    return {"X": columns, "N": np.array([[row[2]] for row in rows], np.int64)}


def same(found, expected):
    """Whether two answers are equal to the bit, in the same layout."""
    return list(found) == list(expected) and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


@dataclass
class FakeStore:
    """A SharedStore in memory; `next` is what it does instead of answering, once each, in order."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    asked: list[Sequence[bytes]] = field(default_factory=list)
    puts: list[Sequence[bytes]] = field(default_factory=list)
    next: list[object] = field(default_factory=list)

    def get(self, keys):
        self.asked.append(keys)
        instead = self.next.pop(0) if self.next else None
        if isinstance(instead, Unanswered):
            return instead
        found = [self.kept.get(key) for key in keys]
        return found if instead is None else [instead(value) for value in found]

    def put(self, keys, values):
        self.puts.append(keys)
        self.kept.update(zip(keys, values, strict=True))


@dataclass
class World:
    """One clock and one store; `told` has what every cached model said of its look-ups."""

    clock: ManualClock = field(default_factory=ManualClock)
    store: FakeStore = field(default_factory=FakeStore)
    told: list[CacheLookups] = field(default_factory=list)

    def cached(self, version=1, *, policy=DEFAULT, shared=False, model=None):
        """A version in front of which answers are kept, and the model behind it."""
        if model is None:
            model = FakeModel(INPUTS, OUTPUTS, formula(version), version=str(version))
        sharing = Sharing(self.store, {"model.onnx": f"sha256:{version}"}) if shared else None
        return CachedModel(model, policy, self.clock, self.told.append, sharing), model
