"""From the rows that a worker predicts to the window that the monitor shows: nothing is lost or changed on the way.

Everything between is what runs: the worker's plan adds up, its writer makes bytes, the monitor's reader and stage merge
them, and begin anew from what they kept. What should come of it is computed from the rows at once, with NumPy.
"""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from fakes import FakeModel

from app.avro.framing import SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.monitor.stage import Read
from app.monitor.window_stage import WindowStage
from app.monitor.windows import WindowPolicy
from app.pipeline.features.plan import FeaturePlan
from app.pipeline.summary.bins import LATENCIES_S, SHARES
from app.pipeline.summary.looked_at import LookedAt
from app.pipeline.summary.plan import SummaryPlan, SummedRows
from app.records import Columns
from app.specs import (
    Impute,
    InputSpec,
    NumberFeature,
    OneHotFeature,
    OrdinalFeature,
    ProbabilitiesOutput,
    TensorFeature,
)
from tests.made_summaries import SCHEMAS, START_MS, framed

ROWS = 4_000
PLANS, SIZES, PIXELS = ("basic", "standard", "premium"), ("s", "m"), 4
EDGES = {"age": (20.0, 30.0, 40.0), "total": (0.1, 0.7, 70.35, 1800.0), "pixels": (0.0, 8.0)}
INPUTS = (
    InputSpec(
        name="X",
        features=(
            NumberFeature(field="age", min=18, max=120),
            NumberFeature(field="total", missing=Impute(impute=1800.0)),
            OneHotFeature(field="plan", categories=PLANS, unknown="ignore", missing="ignore"),
            OrdinalFeature(field="size", categories=SIZES),
        ),
    ),
    InputSpec(name="P", shape=(PIXELS, 1), features=(TensorFeature(field="pixels", length=PIXELS),)),
)
OUTPUT = ProbabilitiesOutput(
    name="out", classes=(0, 1), fields={"label": "class", "p": "probability", "sure": "confidence"}
)
TABLE = pa.schema(
    {"age": pa.int32(), "total": pa.float64(), "plan": pa.string(), "size": pa.string(),
     "pixels": pa.list_(pa.float32())}
)  # fmt: skip
EXACTLY = 1e-9  # relative: the same doubles, added up in another order
LOW = 0.6


class Rows:
    """Events and their answers, in columns; `predicted`: those whose features were not refused."""

    def __init__(self, random):
        self.age = random.integers(16, 60, ROWS)  # below 18 it is refused
        self.total = np.where(random.random(ROWS) < 0.1, np.nan, random.exponential(500, ROWS).round(2))
        self.plan = random.choice([*PLANS, "gold", None], ROWS)
        self.size = random.choice([*SIZES, "xl"], ROWS, p=[0.5, 0.45, 0.05])  # the last is refused
        self.pixels = random.normal(4, 5, (ROWS, PIXELS)).astype(np.float32)
        self.p = random.random(ROWS).astype(np.float32)
        self.age_ms = random.integers(0, 20_000, ROWS)
        self.predicted = (self.age >= 18) & (self.size != "xl")

    def table(self, part):
        return pa.RecordBatch.from_arrays(
            [
                pa.array(self.age[part], pa.int32()),
                pa.array(self.total[part], from_pandas=True),
                pa.array(self.plan[part], pa.string()),
                pa.array(self.size[part], pa.string()),
                pa.array(list(self.pixels[part]), pa.list_(pa.float32())),
            ],
            schema=TABLE,
        )


def summed(rows, part, plan, at_ms):
    """A micro-batch as the worker has it when it adds it up."""
    columns = Columns(rows.table(part), np.arange(part.stop - part.start))
    features = FeaturePlan(INPUTS, TABLE).apply(columns)
    p = rows.p[part][features.rows]
    winner = (p >= 0.5).astype(np.intp)
    sure = np.where(winner == 1, p, 1 - p)
    stamps = at_ms - rows.age_ms[part][features.rows]
    return SummedRows(
        plan, at_ms, features.rows, stamps, {"label": winner, "p": p, "sure": sure}, (0, 1), winner, sure,
        LookedAt(columns, features.tensors, features.rows),
    )  # fmt: skip


def written(rows, random, plan):
    """What the worker writes: a record for each of its transactions, of several micro-batches."""
    cuts = [0, *np.sort(random.choice(np.arange(1, ROWS), 60, replace=False)).tolist(), ROWS]
    batches = [summed(rows, slice(*ends), plan, START_MS + number) for number, ends in enumerate(pairwise(cuts))]
    values = [framed(plan.record(plan.fold(batches[at : at + 3]), START_MS)) for at in range(0, len(batches), 3)]
    return [Read("summaries", 0, 2 * number, START_MS, b"churn/1", value) for number, value in enumerate(values)]


def stage():
    reader = WholeRecordReader(SingleObjectFraming(), SCHEMAS, SCHEMAS.named("ModelSummary"))
    return WindowStage("summaries", "parts", 1, WindowPolicy(), reader.read, ["churn"])


def merged(records, random):
    """The window that the monitor has of these records, with a restart after every few, and some read twice."""
    kept, at, now = {}, 0, START_MS
    while at < len(records):
        one = stage()
        one.restore({one.name: [(0, key, value) for key, value in kept.items()]})
        again = max(0, at - int(random.integers(0, 4)))
        at = min(len(records), at + int(random.integers(1, 8)))
        taken = one.take(0, records[again:at], now)
        assert [fact for fact in taken.facts if type(fact).__name__ == "Rejected"] == []
        for step in taken.steps:
            kept |= step.changes
    (view,) = one.view(START_MS + 600_000)
    assert view.records_total == view.last.records
    return view.last


def histogram(values, edges):
    """As the schema says it: an edge is in the bin above it, but for the last one, which is in the one below."""
    edges = np.asarray(edges, values.dtype)
    inside = np.histogram(values, edges)[0]
    return (int((values < edges[0]).sum()), *inside.tolist(), int((values > edges[-1]).sum()))


@pytest.fixture(scope="module", params=[1, 2], ids=["stream 1", "stream 2"])
def both(request):
    random = np.random.default_rng(request.param)
    rows = Rows(random)
    plan = SummaryPlan("churn", FakeModel(INPUTS, (OUTPUT,), lambda _: {}), EDGES, LOW)
    return rows, merged(written(rows, random, plan), random)


def test_answers_are_those_of_all_rows_that_were_predicted(both):
    rows, window = both
    p = rows.p[rows.predicted]
    sure = np.where(p >= 0.5, p, 1 - p)
    assert window.records == len(p)
    assert window.classes == {"0": int((p < 0.5).sum()), "1": int((p >= 0.5).sum())}
    for found, total, values in (
        (window.score, window.score_sum, p), (window.confidence, window.confidence_sum, sure),
    ):  # fmt: skip
        assert found.counts == histogram(values.astype(np.float64), SHARES)
        assert total == pytest.approx(values.astype(np.float64).sum(), rel=EXACTLY)
    assert window.score_sum_squares == pytest.approx((p.astype(np.float64) ** 2).sum(), rel=EXACTLY)
    assert window.low_confidence == (sure < LOW).sum()
    late_s = rows.age_ms[rows.predicted] / 1000
    assert window.latency.counts == histogram(late_s, LATENCIES_S)
    assert window.latency_sum == pytest.approx(late_s.sum(), rel=EXACTLY)


@pytest.mark.parametrize("name", ["age", "total", "pixels"])
def test_a_numeric_feature_has_the_values_the_model_was_given(name, both):
    rows, window = both
    feature, values = window.features[name], getattr(rows, name)
    missing = np.isnan(values.reshape(ROWS, -1)).any(axis=1)
    given = values[rows.predicted & ~missing].astype(np.float32).ravel()
    exact = given.astype(np.float64)
    assert feature.kind == ("tensor" if name == "pixels" else "number")
    assert (feature.rows, feature.missing, feature.unknown) == (ROWS, int(missing.sum()), 0)
    assert feature.counts == histogram(given, EDGES[name])
    assert (feature.low, feature.high) == (exact.min(), exact.max())
    assert feature.sum == pytest.approx(exact.sum(), rel=EXACTLY)
    assert feature.sum_squares == pytest.approx((exact**2).sum(), rel=EXACTLY)


@pytest.mark.parametrize(("name", "categories"), [("plan", PLANS), ("size", SIZES)])
def test_a_category_has_its_share_and_what_nobody_knows_is_told_of_refused_rows_too(name, categories, both):
    rows, window = both
    feature, values = window.features[name], getattr(rows, name)
    missing = np.array([value is None for value in values])
    known = np.isin(values.astype(str), categories)
    assert feature.counts == tuple(int((values[rows.predicted] == category).sum()) for category in categories)
    assert (feature.rows, feature.missing, feature.unknown) == (
        ROWS, int(missing.sum()), int((~known & ~missing).sum()),
    )  # fmt: skip
