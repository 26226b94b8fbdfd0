"""A whole pipeline small enough to compute by hand: the probability of "1" is x / 10, for x from 0 to 10."""

import json
import struct

import numpy as np
import pyarrow as pa
from fakes import FakeModel, FakeRecord, FakeSchemas, ManualClock
from made_pages import stable_page

from app.answering.breaker import Breaker
from app.answering.lineup import Lane, lineup_of
from app.avro.columns import reader_columns
from app.avro.datum_reader import datum_reader
from app.avro.datum_writer import DatumWriter
from app.avro.framing import ConfluentFraming
from app.avro.schemas import parse
from app.pipeline.decode import Decoder
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.features.plan import FeaturePlan
from app.records import Batch, origin_of
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput
from app.worker.chain import Chain, ChainPolicy


def schema(name, *fields):
    items = [{"name": field, "type": kind} for field, kind in fields]
    return parse(json.dumps({"type": "record", "name": name, "fields": items}))


EVENT = schema("Event", ("id", "string"), ("x", ["null", "double"]))
WITH_BYTES = schema("Event", ("junk", "bytes"), ("id", "string"), ("x", ["null", "double"]))
PREDICTION = schema(
    "Prediction", ("id", "string"), ("label", "int"), ("p", "double"), ("model_version", "string"),
    ("answered_by", "string"), ("rollout_revision", "int"), ("source_topic", "string"),
    ("source_partition", "int"), ("source_offset", "long"),
    ("predicted_at", {"type": "long", "logicalType": "timestamp-millis"}),
)  # fmt: skip
FRAMING = ConfluentFraming()
EVENT_HEADER, BYTES_HEADER, PREDICTION_HEADER = (ConfluentFraming.header(schema_id) for schema_id in (1, 2, 9))
INPUTS = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=10),)),)
OUTPUT = ProbabilitiesOutput(name="P", classes=(0, 1), threshold=0.5, fields={"label": "class", "p": "probability"})
SICK = 9.0  # the model answers this number with NaN
RETRY_S = 10.0
OWN_KEY = object()
COLUMNS = reader_columns(EVENT)
WRITER = DatumWriter(FRAMING, PREDICTION_HEADER, PREDICTION)


def tenths(tensors):
    p = tensors["X"][:, 0] / 10
    p = np.where(tensors["X"][:, 0] == SICK, np.nan, p)
    return {"P": np.stack([1 - p, p], axis=1)}


def body(name, x):
    number = b"\x00" if x is None else b"\x02" + struct.pack("<d", x)
    return bytes([2 * len(name)]) + name.encode() + number


def event(x, offset, key=OWN_KEY, partition=0):
    """A good record; its key is its offset if none is given."""
    value = EVENT_HEADER + body(f"e{offset % 10}", x)
    return FakeRecord(value, offset=offset, key=str(offset).encode() if key is OWN_KEY else key, partition=partition)


def read(values):
    """Predictions as dicts, times as integers."""
    if not values:
        return []
    decoded = datum_reader(FRAMING, PREDICTION_HEADER, PREDICTION, PREDICTION).read(values)
    assert not decoded.failed
    table = decoded.table
    at = table.schema.get_field_index("predicted_at")
    return table.set_column(at, "predicted_at", table.column(at).cast(pa.int64())).to_pylist()


def lane_of(model, clock, constant=None):
    """A lane of this model, in no part yet."""
    return Lane(
        FeaturePlan(model.inputs, COLUMNS),
        PredictionEncoder(WRITER, model, COLUMNS),
        Answerer(model),
        Breaker(RETRY_S, clock),
        constant,
    )


class SmallPipeline:
    """A chain whose versions are `models`; `page` chooses among them, by default the first for everything."""

    def __init__(self, *models, page=None, policy=None, constant=None):
        self.clock = ManualClock()
        self.schemas = FakeSchemas({EVENT_HEADER: EVENT.text, BYTES_HEADER: WITH_BYTES.text})
        self.model = models[0]
        self.lanes = {model.version: lane_of(model, self.clock, constant) for model in models}
        lineup = lineup_of(page or stable_page(self.model.version), self.lanes)
        decoder = Decoder(FRAMING, self.schemas, EVENT, self.clock)
        self.chain = Chain(decoder, lineup, policy or ChainPolicy(), self.clock)

    def use(self, page):
        """From now on this page is in force."""
        self.chain.serve(lineup_of(page, self.lanes))

    def prepare(self, records):
        batch = Batch(records, "age", 0.25, self.clock.monotonic(), 512)
        return self.chain.prepare(batch, origin_of(records, self.clock.now_ms()))

    def score(self, records):
        return self.chain.finish(self.chain.answer(self.prepare(records)))


def model_of(version, answer=tenths, inputs=INPUTS):
    """A version of the model."""
    return FakeModel(inputs, (OUTPUT,), answer, name="churn", version=version, digest=f"{int(version):016x}")
