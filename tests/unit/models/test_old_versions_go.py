"""Swapped out, a version is gone: session, files and all, by reference count alone, as the worker's collector rests."""

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRecord, FakeSchemas, ManualClock
from made_pages import canary_page, put, stable_page

from app.answering.breaker import Breaker
from app.answering.lineup import Lane
from app.answering.rollout_follower import RolloutFollower
from app.avro.columns import reader_columns
from app.avro.datum_writer import DatumWriter
from app.avro.framing import ConfluentFraming
from app.avro.schemas import parse
from app.errors import ModelFailed
from app.models.model_store import ModelStore
from app.models.runtime import RuntimePolicy, load_model
from app.pipeline.decode import Decoder
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.features.plan import FeaturePlan
from app.records import Batch, origin_of
from app.worker.chain import Chain, ChainPolicy

FRAMING = ConfluentFraming()
EVENT = parse(json.dumps({"type": "record", "name": "Event", "fields": [{"name": "x", "type": "double"}]}))
PREDICTION = parse(
    json.dumps(
        {
            "type": "record",
            "name": "Prediction",
            "fields": [{"name": "prediction", "type": "string"}, {"name": "confidence", "type": "double"}],
        }
    )
)
HEADERS = [ConfluentFraming.header(number) for number in (1, 2)]


class Failing:
    """A loaded version that fails from now on."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def run(self, tensors):
        try:
            self._model.run({name: tensor[:, :0] for name, tensor in tensors.items()})  # of another shape
        except ModelFailed as exc:
            raise ModelFailed("broken") from exc

    def check(self):
        raise ModelFailed("broken")


class Versions:
    """The real store and runtime; `alive` has a weak reference to each loaded model and its session."""

    def __init__(self, store):
        self._store = store
        self.policy = RuntimePolicy(warm_up_rows=(1,))
        self._writer = DatumWriter(FRAMING, HEADERS[1], PREDICTION)
        self.alive = []
        self.failing = set()

    def page(self):
        return self._store.rollout("hand")

    def digest(self, version):
        return self._store.manifest("hand", version).model_digest

    def lane(self, version):
        model = load_model(self._store.fetch("hand", version), self.policy)
        self.alive.append((version, weakref.ref(model), weakref.ref(model._session)))
        if version in self.failing:
            model = Failing(model)
        columns = reader_columns(EVENT)
        encoder = PredictionEncoder(self._writer, model, columns)
        return Lane(FeaturePlan(model.inputs, columns), encoder, Answerer(model), Breaker(1.0, ManualClock()))

    def living(self):
        for _, model, session in self.alive:
            assert (model() is None) == (session() is None)
        return [version for version, model, _ in self.alive if model() is not None]


class Nobody:
    def serving(self, fact):
        pass

    def rollout_failed(self, model, error, version):
        raise AssertionError(error)


class Rig:
    def __init__(self, store, folder):
        self.folder = folder
        self.versions = Versions(store)
        self.follower = RolloutFollower("hand", self.versions, Nobody(), poll_s=3600.0, with_previous=False)
        clock = ManualClock()
        decoder = Decoder(FRAMING, FakeSchemas({HEADERS[0]: EVENT.text}), EVENT, clock)
        self.chain = Chain(decoder, self.follower.first(), ChainPolicy(), clock)
        self.follower._hand_over = self.chain.serve

    def swap(self, page):
        put(self.folder, page)
        self.follower.look()

    def prepare(self):
        records = [FakeRecord(HEADERS[0] + np.float64(n).tobytes(), offset=n, key=bytes([n])) for n in range(4)]
        return self.chain.prepare(Batch(records, "age", 0.0, 0.0, 512), origin_of(records, 0))


@pytest.fixture
def rig(store: ModelStore, make_graph, make_card, tmp_path: Path) -> Iterator[Rig]:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    for _ in range(3):
        store.publish("hand", make_card(), {"model.onnx": make_graph()}, at=now, who="test")
    gc.collect()
    gc.disable()
    yield Rig(store, tmp_path / "store")
    gc.enable()


def page_of(version, revision):
    return stable_page(version, revision, model="hand")


def test_the_old_version_is_freed_once_no_batch_has_it(rig):
    before = rig.prepare()
    rig.swap(page_of("2", 2))
    rig.follower.look()
    assert rig.versions.living() == ["1", "2"], "a batch that was prepared with it keeps it"
    scored = rig.chain.finish(rig.chain.answer(before))
    assert scored.outcomes[0].version == "1"
    del before
    assert rig.versions.living() == ["2"]


def test_threads_that_its_runs_had_go_with_it(rig):
    """An instant later: a thread still holds its last run when the answer is there."""
    rig.versions.policy = RuntimePolicy(warm_up_rows=(1,), max_rows=1, runs_at_once=2)
    before = set(threading.enumerate())
    rig.swap(page_of("2", 2))
    rig.chain.finish(rig.chain.answer(rig.prepare()))
    its_own = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("runs-hand")]
    assert its_own
    rig.swap(page_of("3", 3))
    rig.chain.finish(rig.chain.answer(rig.prepare()))
    rig.follower.look()
    for thread in its_own:
        thread.join(10.0)
        assert not thread.is_alive()
    assert rig.versions.living() == ["3"]


def test_it_is_freed_on_the_followers_thread_not_on_the_streams(rig):
    rig.swap(page_of("2", 2))
    rig.chain.finish(rig.chain.answer(rig.prepare()))
    assert rig.versions.living() == ["1", "2"], "until the next look"
    rig.follower.look()
    assert rig.versions.living() == ["2"]


def test_of_fifty_swaps_one_version_is_left(rig):
    for revision in range(2, 52):
        rig.swap(page_of(str(1 + revision % 3), revision))
        rig.chain.finish(rig.chain.answer(rig.prepare()))
        assert len(rig.versions.living()) <= 2
    rig.follower.look()
    assert len(rig.versions.living()) == 1
    assert len(rig.versions.alive) == 51


def test_a_canary_that_is_taken_back_is_freed_and_stable_was_never_loaded_again(rig):
    rig.swap(canary_page("1", "2", 50, 2, model="hand"))
    rig.chain.finish(rig.chain.answer(rig.prepare()))
    rig.swap(page_of("1", 3))
    rig.follower.look()
    assert rig.versions.living() == ["1"]
    assert [version for version, _, _ in rig.versions.alive] == ["1", "2"]


def test_a_version_that_failed_is_freed_like_any_other(rig):
    rig.versions.failing.add("2")
    rig.swap(canary_page("1", "2", 100, 2, model="hand"))
    scored = rig.chain.finish(rig.chain.answer(rig.prepare()))
    assert [(asked.version, asked.failed) for asked in scored.scored.asked] == [("2", True), ("1", False)]
    del scored
    rig.swap(page_of("1", 3))
    rig.follower.look()
    assert rig.versions.living() == ["1"]
