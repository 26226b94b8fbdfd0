"""What must be true of any batch: the laws that the fuzzer holds the decoders to.

- Every row is decoded or rejected, once, with a reason of the closed list; a rejection names the decode step.
- A row gets in a batch what it gets alone: the same values, or the same reason. (Every row of a small batch and of
  those that are replayed, one in ALONE of the others: alone costs ten times as much.)
- What is decoded is what fastavro, resolving the same schemas, reads from exactly those bytes.
- What is rejected is not what fastavro would have written; so a valid neighbour is never lost.
"""

import json
from io import BytesIO
from typing import Any

import fastavro
import numpy as np

from app.avro.columns import reader_columns
from app.avro.schemas import parse
from app.errors import Reason, Stage
from app.pipeline.decode import MAX_DATUM_BYTES, Decoder
from tests.fakes import FakeSchemas, ManualClock
from tests.fuzz.events import Stream
from tests.unit.avro.datums import as_columns_say, plain_numbers, rows_of

# What resolution refuses in a datum that is as its writer meant it.
RESOLUTION = {Reason.MISSING_VALUE, Reason.UNKNOWN_CATEGORY}
ALONE = 5
LONGEST_MESSAGE = 1_000  # it travels in a record header
Verdict = dict[str, Any] | Reason  # the row's columns, or why it has none


class Broken(AssertionError):
    """A law does not hold."""


class Judge:
    """Decodes the batches of one stream and checks them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        reader = parse(stream.reader)
        self._columns = reader_columns(reader)
        schemas = FakeSchemas(stream.writers)
        self._batches = Decoder(stream.framing, schemas, reader, ManualClock())
        self._alone = Decoder(stream.framing, schemas, reader, ManualClock())
        # fastavro would resolve the fields that are no columns too, and bytes to text that is none
        fields = [item for item in json.loads(stream.reader)["fields"] if item["name"] in self._columns.names]
        self._reader = _parsed(json.dumps(json.loads(stream.reader) | {"fields": fields}))
        self._writers = {header: _parsed(text) for header, text in stream.writers.items()}
        self._valid: dict[bytes, Verdict] = {}  # few, and met in batch after batch

    def check(self, values: list[bytes], mutated: list[bool], *, all_alone: bool) -> list[Verdict]:
        """A verdict for each value. Raises Broken."""
        verdicts = self._verdicts(self._batches, values)
        all_alone |= sum(mutated) < 2 * ALONE
        for row, (value, verdict) in enumerate(zip(values, verdicts, strict=True)):
            expected = self._valid.get(value)
            if expected is None:
                alone = verdict
                if all_alone or not mutated[row] or row % ALONE == 0:
                    (alone,) = self._verdicts(self._alone, [value])
                expected = self._seen_by_fastavro(row, value, alone)
                if not mutated[row]:
                    self._valid[value] = expected
            if verdict != expected:
                raise Broken(f"row {row} is {verdict} in the batch, but {expected} alone")
            if not mutated[row] and isinstance(verdict, Reason) and verdict not in RESOLUTION:
                raise Broken(f"row {row} is valid, and rejected as {verdict}")
        return verdicts

    def _verdicts(self, decoder: Decoder, values: list[bytes]) -> list[Verdict]:
        rows = np.arange(len(values)) * 3 + 7
        result = decoder.decode(values, rows)
        table = result.columns.table
        table.validate(full=True)
        if table.schema != self._columns:
            raise Broken(f"columns are {table.schema}, not {self._columns}")
        found: dict[int, Verdict] = dict(zip(result.columns.rows.tolist(), rows_of(table), strict=True))
        for item in result.rejected:
            if item.row in found:
                raise Broken(f"row {item.row} has two outcomes")
            if item.stage is not Stage.DECODE or not isinstance(item.reason, Reason):
                raise Broken(f"row {item.row} was rejected by {item.stage} as {item.reason}")
            if len(item.message.encode()) > LONGEST_MESSAGE:
                raise Broken(f"row {item.row} has a message of {len(item.message)} characters")
            found[item.row] = item.reason
        if sorted(found) != rows.tolist() or result.columns.rows.tolist() != sorted(result.columns.rows.tolist()):
            raise Broken(f"rows given are {rows.tolist()}, rows with an outcome are {sorted(found)}")
        return [found[row] for row in rows.tolist()]

    def _seen_by_fastavro(self, row: int, value: bytes, alone: Verdict) -> Verdict:
        """The verdict, after fastavro had its say. Raises Broken."""
        size = self._stream.framing.size
        writer = self._writers.get(value[:size])
        if writer is None or len(value) > MAX_DATUM_BYTES:
            if not isinstance(alone, Reason):
                raise Broken(f"row {row} was decoded, and its schema is not known")
            return alone
        body = value[size:]
        if isinstance(alone, Reason):
            if alone not in RESOLUTION and _is_canonical(body, writer):
                raise Broken(f"row {row} is {alone}, and fastavro would have written it so")
            return alone
        source, canonical = BytesIO(body), BytesIO()
        # resolving, fastavro would skip a dropped field's blocks by the sizes they claim; here nobody believes those
        fastavro.schemaless_writer(canonical, writer, fastavro.schemaless_reader(source, writer, None))
        canonical.seek(0)
        read = as_columns_say(fastavro.schemaless_reader(canonical, writer, self._reader), self._columns)
        if source.tell() != len(body) or read != alone:
            raise Broken(f"row {row} is {alone}; fastavro reads {read} from {source.tell()} of {len(body)} bytes")
        return alone


def _parsed(text: str) -> Any:
    return fastavro.parse_schema(plain_numbers(json.loads(text)))


def _is_canonical(body: bytes, writer: Any) -> bool:
    """Whether fastavro reads a value from these bytes, and writes these bytes for the value."""
    source, out = BytesIO(body), BytesIO()
    try:
        value = fastavro.schemaless_reader(source, writer, None)
        fastavro.schemaless_writer(out, writer, value)
        # the writer writes any number as an int
        return (
            source.tell() == len(body)
            and out.getvalue() == body
            and fastavro.validate(value, writer, raise_errors=False)
        )
    except Exception:  # noqa: BLE001 - whatever the library makes of such bytes: it is not a datum
        return False
