"""Datums → Arrow columns, or rejected rows.

Usually every value of a batch carries the header the last batch had: one columnar call decodes them all.
Otherwise the values are grouped by header, each group decoded by its own writer schema into the same reader
columns, and the rows put back in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from app.avro.columns import no_columns
from app.avro.datum_reader import DatumReader, Decoded, datum_reader
from app.avro.framing import Framing
from app.avro.schemas import Schema, parse
from app.clock import Clock
from app.errors import DecodeFailed, Reason, SchemaRegistryUnavailable, SchemasPending, Stage
from app.ports import SchemaSource
from app.records import Columns, IntArray, Rejection

MAX_DATUM_BYTES = 16 * 1024 * 1024  # far above Kafka's default of 1 MiB a record; one datum must not fill the budget
REFUSAL_TTL_S = 60.0  # how long an unknown or refused schema is remembered before it is asked for again
MAX_SCHEMAS = 1_000  # remembered headers: a producer that makes up ids must not fill the memory


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """columns: the rows that decoded, in batch order. rejected: the others."""

    columns: Columns
    rejected: list[Rejection]


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: Reason  # not the exception: raised again and again it would hold on to batch after batch
    message: str
    until: float


class Decoder:
    """Decodes the values of one pipeline into the columns of its reader schema."""

    def __init__(self, framing: Framing, schemas: SchemaSource, reader: Schema, clock: Clock) -> None:
        self._framing, self._schemas, self._reader, self._clock = framing, schemas, reader, clock
        self._readers: dict[bytes, DatumReader | _Refusal] = {}
        self._last: DatumReader | None = None

    def decode(self, values: Sequence[bytes], rows: IntArray) -> DecodeResult:
        """Decode values[i], which is row rows[i] of the batch; `values` is not empty.

        Raises SchemasPending, naming the rows, if a schema is needed that is not known now; then nothing was
        decoded and the other rows may be decoded without them.
        """
        values = values if isinstance(values, list) else list(values)
        if self._last is not None and max(map(len, values)) <= MAX_DATUM_BYTES:
            decoded = self._last.read_all(values)
            if decoded is not None:
                return DecodeResult(Columns(decoded.table, rows), [])
        return self._decode_by_header(values, rows)

    def nothing(self) -> Columns:
        """The reader's columns with no rows."""
        return Columns(no_columns(self._reader), np.array([], np.int64))

    def _decode_by_header(self, values: list[bytes], rows: IntArray) -> DecodeResult:
        failed: dict[int, DecodeFailed] = {}
        groups: dict[bytes, list[int]] = {}
        for index, value in enumerate(values):
            try:
                groups.setdefault(self._header_of(value), []).append(index)
            except DecodeFailed as exc:
                failed[index] = exc
        readers = self._readers_for(groups, rows)
        parts: list[tuple[pa.RecordBatch, IntArray]] = []
        for header, members in groups.items():
            decoded = self._decode_group(readers[header], [values[index] for index in members])
            indexes = np.array(members, np.int64)
            failed.update({members[local]: why for local, why in decoded.failed.items()})
            if len(decoded.rows):
                parts.append((decoded.table, indexes[decoded.rows]))
        table, kept = self._in_order(parts)
        rejected = [
            Rejection(int(rows[index]), Stage.DECODE, why.reason, type(why).__name__, str(why))
            for index, why in sorted(failed.items())
        ]
        return DecodeResult(Columns(table, rows[kept]), rejected)

    def _header_of(self, value: bytes) -> bytes:
        if len(value) > MAX_DATUM_BYTES:
            raise DecodeFailed(Reason.OVERSIZED, f"{len(value)} bytes, at most {MAX_DATUM_BYTES} are decoded")
        return self._framing.header_of(value)

    def _readers_for(self, groups: dict[bytes, list[int]], rows: IntArray) -> dict[bytes, DatumReader | DecodeFailed]:
        """A reader for each header, or why its datums cannot be read. Raises SchemasPending."""
        readers: dict[bytes, DatumReader | DecodeFailed] = {}
        pending: list[int] = []
        why = ""
        for header, members in groups.items():
            try:
                readers[header] = self._reader_for(header)
            except DecodeFailed as exc:
                readers[header] = exc
            except SchemaRegistryUnavailable as exc:
                pending += members
                why = str(exc)
        if pending:
            raise SchemasPending(rows[sorted(pending)].tolist(), why)
        return readers

    def _decode_group(self, reader: DatumReader | DecodeFailed, values: list[bytes]) -> Decoded:
        if isinstance(reader, DecodeFailed):
            return Decoded(no_columns(self._reader), np.array([], np.int64), dict.fromkeys(range(len(values)), reader))
        self._last = reader
        return reader.read(values)

    def _reader_for(self, header: bytes) -> DatumReader:
        known = self._readers.get(header)
        if isinstance(known, _Refusal):
            if self._clock.monotonic() < known.until:
                raise DecodeFailed(known.reason, known.message)
        elif known is not None:
            return known
        try:
            reader = datum_reader(self._framing, header, parse(self._schemas.by_header(header)), self._reader)
        except DecodeFailed as exc:
            self._remember(header, _Refusal(exc.reason, str(exc), self._clock.monotonic() + REFUSAL_TTL_S))
            raise
        self._remember(header, reader)
        return reader

    def _remember(self, header: bytes, entry: DatumReader | _Refusal) -> None:
        self._readers.pop(header, None)
        if len(self._readers) >= MAX_SCHEMAS:
            oldest = next(iter(self._readers))
            refused = (known for known, what in self._readers.items() if isinstance(what, _Refusal))
            self._readers.pop(next(refused, oldest))
        self._readers[header] = entry

    def _in_order(self, parts: list[tuple[pa.RecordBatch, IntArray]]) -> tuple[pa.RecordBatch, IntArray]:
        if not parts:
            return no_columns(self._reader), np.array([], np.int64)
        if len(parts) == 1:
            return parts[0]
        table = pa.concat_batches([part for part, _ in parts])
        indexes = np.concatenate([index for _, index in parts])
        order = np.argsort(indexes, kind="stable")
        return table.take(pa.array(order)), indexes[order]
