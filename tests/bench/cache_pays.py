"""What the result cache costs and saves: `python -m tests.bench.cache_pays`, two minutes.

Each batch is scored by the model and by the cached model in turn. A figure is the tenth percentile over all batches:
what it takes when nothing else wants the machine. `--parts` measures the choices inside instead.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime as ort
import redis as redis_client
import xxhash
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from app.clock import SystemClock
from app.facts import CacheLookups
from app.models import redis_cache
from app.models.cache import CachedModel, CachePolicy, LocalAnswers, Sharing
from app.models.redis_cache import RedisPolicy, RedisStore
from app.models.row_layout import as_bytes
from app.specs import InputSpec, ProbabilitiesOutput, TensorFeature
from deploy.local.redis_server import RedisServer

FEATURES = 24
ROWS = (32, 512)
SHARES = (0.0, 0.5, 0.9, 1.0)
BATCHES = 120
WARM_ROWS = 20_000


class Session:
    """A `ports.Model` in ONNX Runtime, one thread, as `app.models.runtime` runs it."""

    version, digest, event_schema, prediction_schema = "1", "0123456789abcdef", "Event", "Prediction"
    inputs = (InputSpec(name="X", features=(TensorFeature(field="x", length=FEATURES),)),)
    outputs = (ProbabilitiesOutput(name="probabilities", classes=("no", "yes")),)

    def __init__(self, name: str, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        self.name, self._session = name, ort.InferenceSession(graph, options)

    def run(self, tensors):
        return {"probabilities": self._session.run(["probabilities"], tensors)[0]}

    def check(self) -> None:
        pass


def models() -> Iterator[Session]:
    """From the cheapest to the dearest."""
    x, y = make_classification(5_000, FEATURES, n_informative=12, random_state=0)
    x = x.astype(np.float32)
    for name, estimator in {
        "logistic regression": LogisticRegression(max_iter=1000),
        "forest of 100 trees": RandomForestClassifier(100, random_state=0),
    }.items():
        fitted = estimator.fit(x, y)
        yield Session(name, to_onnx(fitted, x[:1], options={"zipmap": False}).SerializeToString())


class Stream:
    """Batches of which a share of the rows was seen before."""

    def __init__(self, rows: int, share: float, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._rows, self._seen = rows, round(rows * share)
        self.pool = self.fresh(WARM_ROWS)

    def fresh(self, rows: int) -> np.ndarray:
        return self._random.standard_normal((rows, FEATURES), np.float32)

    def next(self) -> dict[str, np.ndarray]:
        batch = self.fresh(self._rows)
        seen = self._random.permutation(self._rows)[: self._seen]
        batch[seen] = self.pool[self._random.choice(WARM_ROWS, self._seen, replace=False)]
        return {"X": batch}


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, and of the processor on the thread that asks."""

    wall_s: float
    cpu_s: float


def took(call: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return Took(time.perf_counter() - wall, time.thread_time() - cpu)


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def undisturbed(seconds: Iterable[float]) -> float:
    return float(np.percentile(list(seconds), 10)) * 1e6


def compare(model: Session, cached: CachedModel, stream: Stream) -> tuple[list[Took], list[Took]]:
    """Without and with a cache, batch by batch. The pool is known before."""
    for start in range(0, WARM_ROWS, 500):
        cached.run({"X": stream.pool[start : start + 500]})
        time.sleep(0.002)  # for what is written while nobody waits
    without, with_cache = [], []
    for _ in range(BATCHES):
        batch = stream.next()
        without.append(took(lambda batch=batch: model.run(batch)))
        with_cache.append(took(lambda batch=batch: cached.run(batch)))
        time.sleep(0.001)
    return without, with_cache


@dataclass(frozen=True, slots=True)
class Line:
    """One model and size of batch: what every batch took without a cache, and by kind of cache and share of hits."""

    model: str
    rows: int
    without: list[Took]
    cells: list[list[Took]]

    def text(self, clock: Callable[[Took], float]) -> str:
        figures = [undisturbed(map(clock, cell)) for cell in (self.without, *self.cells)]
        return f"| {self.model} | {self.rows} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |"


def line(model: Session, rows: int, where: RedisServer) -> Line:
    without, cells = [], []
    for shared in (False, True):
        for number, share in enumerate(SHARES):
            store = RedisStore(RedisPolicy(where.url, budget_s=1.0), SystemClock(), lambda _: None)
            time.sleep(0.2)  # for its first probe
            facts: list[CacheLookups] = []
            sharing = Sharing(store, {"model.onnx": f"{model.name} {rows} {number}"}) if shared else None
            cached = CachedModel(model, CachePolicy(0 if shared else 67_108_864), SystemClock(), facts.append, sharing)
            plain, with_cache = compare(model, cached, Stream(rows, share, number))
            store.close()
            without += plain
            cells.append(with_cache)
            hits = sum(fact.hits for fact in facts[-BATCHES:]) / (BATCHES * rows)
            if abs(hits - share) > 0.04:
                show(f"({model.name}, {rows} rows, shared={shared}: {hits:.0%} instead of {share:.0%} were hits)")
    return Line(model.name, rows, without, cells)


def table(where: RedisServer) -> None:
    lines = [line(model, rows, where) for model in models() for rows in ROWS]
    for what, clock in (("µs by the clock", lambda it: it.wall_s), ("µs of processor time", lambda it: it.cpu_s)):
        columns = [f"{kind} {share:.0%}" for kind in ("local", "Redis") for share in SHARES]
        show(f"\n| {what} | rows | without | " + " | ".join(columns) + " |")
        show("|---|--:|--:|" + "--:|" * len(columns))
        for one in lines:
            show(one.text(clock))


def parts(where: RedisServer) -> None:
    """The choices inside, for 512 rows of 96 bytes."""

    def part(what: str, call: Callable[[], object], repeat: int = 200) -> None:
        show(f"| {what} | {undisturbed(took(call).wall_s for _ in range(repeat)):,.0f} |")

    rows = np.random.default_rng(0).integers(0, 256, (512, 96), np.uint8)
    answers = rows[:, :8]
    local = LocalAnswers(CachePolicy(), 96, 8, SystemClock())
    local.keep(as_bytes(rows), answers)
    show("| 512 rows | µs |\n|---|--:|")
    part("look-up in this process", lambda: local.look_up(as_bytes(rows)))
    part("keeping in this process", lambda: local.keep(as_bytes(rows), answers))
    if importlib.util.find_spec("cachetools"):
        import cachetools

        ttl_cache = cachetools.TTLCache(100_000, 300)
        ttl_cache.update(zip(as_bytes(rows), as_bytes(answers), strict=True))
        part("the look-up with cachetools.TTLCache", lambda: [ttl_cache.get(key) for key in as_bytes(rows)])
    keys = as_bytes(rows)
    part("XXH3-128 of each row", lambda: list(map(xxhash.xxh3_128_digest, keys)))
    part("SHA-256 of each row", lambda: [sha256(key).digest() for key in keys])
    part("what of a batch is there twice: a dict", lambda: OrderedDict.fromkeys(as_bytes(rows)))
    part("what of a batch is there twice: np.unique", lambda: np.unique(rows.view("V96").ravel(), return_inverse=True))
    client = redis_cache._client(RedisPolicy(where.url))
    names = [b"inference:" + key[:32] for key in keys]
    values = as_bytes(np.concatenate([rows, answers], axis=1))
    write = redis_cache._setting(names, values, 300_000)

    def pipelined() -> None:
        pipeline = client.pipeline(transaction=False)
        for name, value in zip(names, values, strict=True):
            pipeline.set(name, value, px=300_000)
        pipeline.execute()

    part("MGET, all there", lambda: client.mget(names))
    part("SET with expiry in one EVAL", lambda: write(client))
    part("SET with expiry in a pipeline", pipelined, 50)
    in_python = redis_client.Redis.from_url(where.url, parser_class=redis_client._parsers._RESP2Parser, protocol=2)
    part("MGET, all there, parsed in Python", lambda: in_python.mget(names), 50)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", action="store_true")
    only_parts = parser.parse_args().parts
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder) / "redis", max_bytes=1 << 30) as where:
        (parts if only_parts else table)(where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
