"""Prediction records made by hand, a store in a folder, and a source that gives what it is told to."""

import json
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from fakes import NOW_MS, FakeRecord, FakeSchemas, ManualClock

from app.audit.lane import RollPolicy
from app.audit.masking import Mask
from app.audit.objects import TrailObjects, open_objects
from app.audit.rows import PipelineRows
from app.audit.trail import Trail
from app.audit.writer import AuditPolicy, AuditWriter, Kept
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import parse
from app.models.store_access import StoreAccess
from app.pipeline.decode import Decoder
from app.records import TopicPartition

TOPIC, PIPELINE = "churn.predictions", "churn"
SOURCE = TopicPartition(TOPIC, 0)
FRAMING = SingleObjectFraming()
FIRST = {
    "type": "record", "name": "Prediction",
    "fields": [
        {"name": "customer_id", "type": "string"},
        {"name": "probability", "type": "double"},
        {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["basic", "premium"]}},
        {"name": "scores", "type": {"type": "array", "items": "double"}},
        {"name": "predicted_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}  # fmt: skip
SECOND = {**FIRST, "fields": [*FIRST["fields"], {"name": "channel", "type": "string", "default": "web"}]}
DAY_MS = 86_400_000


def schema(node):
    return parse(json.dumps(node))


@cache
def _writer_of(text):
    """(header, fastavro's schema) for plain numbers."""
    plain = text.replace('"logicalType": "timestamp-millis"', '"doc": ""')
    return FRAMING.header(parse(text).fingerprint), fastavro.parse_schema(json.loads(plain))


def value_of(customer="c-1", probability=0.5, node=FIRST, plan="basic", **more):
    out = BytesIO()
    header, writer = _writer_of(json.dumps(node))
    content = {"customer_id": customer, "probability": probability, "plan": plan, "scores": [probability, 0.25],
               "predicted_at": NOW_MS} | more  # fmt: skip
    fastavro.schemaless_writer(out, writer, content)
    return header + out.getvalue()


def prediction(offset, customer=None, partition=0, at_ms=NOW_MS, **more):
    customer = customer or f"c-{offset}"
    return FakeRecord(
        value_of(customer, **more), topic=TOPIC, partition=partition, offset=offset, key=customer.encode(),
        timestamp=(1, at_ms),
    )  # fmt: skip


def schemas(*nodes):
    return FakeSchemas({FRAMING.header(schema(node).fingerprint): json.dumps(node) for node in nodes})


def pipeline_rows(reader=FIRST, mask=None, known=None, clock=None, only=None):
    decoder = Decoder(FRAMING, known or schemas(FIRST, SECOND), schema(reader), clock or ManualClock())
    return PipelineRows(decoder, schema(reader), mask or Mask({}, None), only)


def objects_in(folder: Path) -> TrailObjects:
    return open_objects(str(folder), Path("/"), StoreAccess(), create=True)


def trail_in(folder: Path) -> Trail:
    return Trail(objects_in(folder), PIPELINE)


def rows_in(folder: Path, **filters) -> list[dict]:
    """Every row of every file below a folder, in the order of partition and offset."""
    tables = [pq.read_table(file, partitioning=None) for file in sorted(folder.rglob("*.parquet"))]
    if not tables:
        return []
    rows = pa.concat_tables(tables, promote_options="permissive").to_pylist()
    return sorted(rows, key=lambda row: (row["audit_partition"], row["audit_offset"]))


def offsets_in(folder: Path, partition=0) -> list[int]:
    return [row["audit_offset"] for row in rows_in(folder) if row["audit_partition"] == partition]


class Topic:
    """The committed records of a prediction topic, by partition."""

    def __init__(self, records: Sequence[FakeRecord] = ()) -> None:
        self.records = list(records)

    def end(self, source):
        mine = [record.offset() for record in self.records if record.partition() == source.partition]
        return max(mine, default=-1) + 1


class FakeSource:
    """A member of the audit group over a Topic; partitions are given and taken by the test."""

    def __init__(self, topic: Topic, at_most=1_000) -> None:
        self.topic, self.at_most = topic, at_most
        self.at: dict[TopicPartition, int | None] = {}  # None: held
        self.committed: dict[TopicPartition, int] = {}
        self.paused = self.closed = False
        self.listener = None
        self.asked = 0  # for so many records at most, the last time

    def subscribe(self, listener):
        self.listener = listener

    def assign(self, *sources):
        self.at |= dict.fromkeys(sources, 0)
        self.listener.on_assigned(set(sources))

    def revoke(self, *sources):
        self.listener.on_revoked(set(sources))
        for source in sources:
            del self.at[source]

    def gather(self, max_records, timeout_s):
        self.asked = max_records
        if self.paused:
            return []
        given = []
        for source, at in self.at.items():
            if at is None:
                continue
            mine = [r for r in self.topic.records if r.partition() == source.partition and r.offset() >= at]
            taken = mine[: self.at_most]
            if taken:
                self.at[source] = taken[-1].offset() + 1
            given += taken
        return given

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False

    def hold(self, sources):
        self.at |= dict.fromkeys(sources)

    def read_from(self, source, offset):
        self.at[source] = offset or 0

    def positions(self):
        return {source: at for source, at in self.at.items() if at is not None}

    def commit(self, offsets):
        self.committed |= offsets

    def close(self):
        self.closed = True


class World:
    """A writer over a topic and a folder."""

    def __init__(self, folder, topic, roll=None, clock=None, mask=None, known=None, objects=None, **policy) -> None:
        self.clock = clock or ManualClock()
        self.source = FakeSource(topic)
        self.trail = Trail(objects or objects_in(folder), PIPELINE)
        self.folder, self.told = folder, []
        rows = pipeline_rows(mask=mask, known=known, clock=self.clock)
        self.writer = AuditWriter(
            self.source, {TOPIC: Kept(self.trail, rows)}, AuditPolicy(roll or RollPolicy(age_s=10), **policy),
            self.clock, self.clock.advance, self,
        )  # fmt: skip
        self.source.subscribe(self.writer)

    def file_written(self, pipeline, rows, size):
        self.told.append((pipeline, rows))

    def turn(self, times=1):
        for _ in range(times):
            self.writer.turn()

    def settle(self):
        """Read everything there is and wait until it is due."""
        self.turn(2)
        self.clock.advance(60)
        self.turn(3)
