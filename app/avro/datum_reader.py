"""Datums → columns.

Two readers give the same. `ColumnarReader` is pyruhvro, some 20 times faster per batch and taking
only the types it is known to handle; `RecordReader` is fastavro, one datum at a time, for every other schema
that passed the gate. pyruhvro alone would accept trailing bytes, bad UTF-8, any enum index and ints that do
not fit, and names no row when it fails, so:

- a random 8-byte sentinel follows each datum and is read as a last double: it comes back only if the datum
  ended where the value ended;
- strings are validated as a column, indexes and ints by `Resolution`, those of dropped fields too;
- a batch that fails is tried in pieces, and only the pieces that fail are judged datum by datum.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from typing import Any, Protocol, cast

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro

from app.avro.columns import columnar_node, columnar_type, reads_in_columns
from app.avro.datum import check_datum
from app.avro.few_rows import MOST_READ, FewRowsReader
from app.avro.framing import Framing
from app.avro.resolution import BadRows, Resolution
from app.avro.schemas import Schema, enum_symbols, without_logical_types
from app.errors import DecodeFailed, Reason

# Of the pieces that a batch is cut into if it fails, and of those that these are cut into, so that one bad datum among
# thousands is found in few calls. The small ones cost ~20 µs in columns, a datum ~10 µs in the judge.
PIECE_ROWS = (512, 32)

_SENTINEL = os.urandom(8)  # random, so that no producer can append it
_SENTINEL_BITS = int.from_bytes(_SENTINEL, "little")
_SENTINEL_FIELD = {"name": "__sentinel", "type": "double"}


class _NotOneBatch(Exception):
    """The values cannot be decoded together."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Reader columns of the rows that decoded, and why the others did not.

    table: rows in order. rows: (len(table),) int64, their indexes among the values given.
    failed: index among the values given → why.
    """

    table: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    failed: dict[int, DecodeFailed] = field(default_factory=dict)


class DatumReader(Protocol):
    """Decodes values that carry one header, hence one writer schema, into the reader's columns."""

    def read(self, values: list[bytes]) -> Decoded:
        """Decode what can be decoded; every index of `values` is in `rows` or in `failed`."""
        ...

    def read_all(self, values: list[bytes]) -> Decoded | None:
        """The same if every value carries this reader's header and is decodable, else None."""
        ...


def datum_reader(framing: Framing, header: bytes, writer: Schema, reader: Schema) -> DatumReader:
    """The quickest reader that takes this writer schema.

    Raises DecodeFailed (unsupported_schema) if the writer's schema does not resolve to the reader's.
    """
    resolution = Resolution(writer, reader)
    if all(reads_in_columns(item["type"]) for item in writer.fields):
        return ColumnarReader(framing, header, writer, resolution)
    return RecordReader(framing, header, writer, resolution)


class ColumnarReader:
    """pyruhvro, guarded."""

    def __init__(self, framing: Framing, header: bytes, writer: Schema, resolution: Resolution) -> None:
        self._framing, self._header, self._writer, self._resolution = framing, header, writer, resolution
        fields = [{"name": f"f{i}", "type": columnar_node(item["type"])} for i, item in enumerate(writer.fields)]
        self._read_schema = json.dumps(
            {"type": "record", "name": "Framed", "fields": [*framing.fields, *fields, _SENTINEL_FIELD]}
        )
        # an array may hold a million objects
        with_arrays = any(pa.types.is_list(columnar_type(item["type"])) for item in writer.fields)
        is_plain = resolution.keeps_all and not with_arrays
        self._few_rows = FewRowsReader(framing, header, writer, resolution) if is_plain else None

    def read_all(self, values: list[bytes]) -> Decoded | None:
        """Everything at once, or None."""
        if self._few_rows is not None and 0 < len(values) <= MOST_READ:
            few = self._few_rows.read_all(values)
            return None if few is None else Decoded(few, np.arange(len(values)))
        try:
            table, bad = self._decode(values)
        except _NotOneBatch:
            return None
        return Decoded(table, np.arange(len(values))) if not bad else None

    def read(self, values: list[bytes]) -> Decoded:
        """At once if possible, else in pieces, and the pieces that fail datum by datum."""
        failed: dict[int, DecodeFailed] = {}
        try:
            table, bad = self._decode(values)
        except _NotOneBatch:
            good = self._readable(values, failed)
            try:
                table, bad = self._decode([values[row] for row in good])
            except _NotOneBatch as exc:
                # the judge and the codec disagree: never guess, never lose the batch's other schemas
                reason = DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"the columnar codec refuses this schema: {exc}")
                failed.update(dict.fromkeys(good.tolist(), reason))
                table, bad, good = self._resolution.nothing, [], good[:0]
        else:
            good = np.arange(len(values))
        self._judge_bad_rows(values, good, bad, failed)
        return _without_bad_rows(table, good, bad, failed)

    def _decode(self, values: list[bytes]) -> tuple[pa.RecordBatch, list[BadRows]]:
        if not values:
            return self._resolution.nothing, []
        try:
            raw = pyruhvro.deserialize_array([value + _SENTINEL for value in values], self._read_schema)
            raw.validate(full=True)
        except (ValueError, pa.ArrowInvalid) as exc:
            raise _NotOneBatch(str(exc)) from exc
        arrays = raw.columns
        if not self._framing.all_are(self._header, values, arrays[0], arrays[1]):
            raise _NotOneBatch("other headers")
        trailing = arrays[-1].to_numpy().view("<u8") != _SENTINEL_BITS
        table, bad = self._resolution.resolve(arrays[2:-1], len(values))
        self._resolution.check_unused(arrays[2:-1], bad)
        if trailing.any():
            bad.append(BadRows(trailing, Reason.TRAILING_BYTES, "bytes follow the end of the datum"))
        return table, bad

    def _judge_bad_rows(
        self, values: list[bytes], rows: npt.NDArray[np.int64], bad: Sequence[BadRows], failed: dict[int, DecodeFailed]
    ) -> None:
        """Of several faults in a datum the first one in writing order counts, as in the record reader."""
        suspects = {row for verdict in bad for row in rows[verdict.mask].tolist()}
        for row in suspects:
            try:
                check_datum(self._writer.inlined, values[row], self._framing.size)
            except DecodeFailed as exc:
                failed[row] = exc

    def _readable(self, values: list[bytes], failed: dict[int, DecodeFailed]) -> npt.NDArray[np.int64]:
        """Indexes of the values that decode; the reasons of the others go to `failed`."""
        suspects = [range(len(values))]
        for rows in PIECE_ROWS:
            if rows < len(values):
                pieces = [suspect[at : at + rows] for suspect in suspects for at in range(0, len(suspect), rows)]
                suspects = [piece for piece in pieces if not self._decodes(values, piece)]
        for row in chain.from_iterable(suspects):
            try:
                check_datum(self._writer.inlined, values[row], self._framing.size)
            except DecodeFailed as exc:
                failed[row] = exc
        return np.array([row for row in range(len(values)) if row not in failed], np.int64)

    def _decodes(self, values: list[bytes], rows: range) -> bool:
        try:
            self._decode(values[rows.start : rows.stop])
        except _NotOneBatch:
            return False
        return True


class RecordReader:
    """fastavro, of the fields that become columns, after the judge has accepted the datum."""

    def __init__(self, framing: Framing, header: bytes, writer: Schema, resolution: Resolution) -> None:
        self._framing, self._header, self._writer, self._resolution = framing, header, writer, resolution
        self._positions = sorted(set(resolution.positions))
        fields = [(position, writer.fields[position]) for position in self._positions]
        wanted = {"type": "record", "name": "Wanted", "fields": [item for _, item in fields]}
        self._schema = fastavro.parse_schema(without_logical_types(wanted))
        self._columns = [(at, item["name"], columnar_type(item["type"])) for at, item in fields]
        self._index_of = {
            item["name"]: {symbol: index for index, symbol in enumerate(symbols)}
            for _, item in fields
            if (symbols := enum_symbols(item["type"])) is not None
        }

    def read_all(self, values: list[bytes]) -> Decoded | None:
        """Everything, or None."""
        if not all(value.startswith(self._header) for value in values):
            return None
        decoded = self.read(values)
        return None if decoded.failed else decoded

    def read(self, values: list[bytes]) -> Decoded:
        """One datum at a time."""
        failed: dict[int, DecodeFailed] = {}
        good: list[int] = []
        events: list[dict[str, Any]] = []
        for row, value in enumerate(values):
            try:
                events.append(self._read_one(value))
                good.append(row)
            except DecodeFailed as exc:
                failed[row] = exc
        arrays = [pa.nulls(0)] * len(self._writer.fields)
        for position, name, kind in self._columns:
            column = [event[name] for event in events]
            if name in self._index_of:
                index_of = self._index_of[name]
                column = [None if symbol is None else index_of[symbol] for symbol in column]
            arrays[position] = pa.array(column, kind)
        table, bad = self._resolution.resolve(arrays, len(events))
        return _without_bad_rows(table, np.array(good, np.int64), bad, failed)

    def _read_one(self, value: bytes) -> dict[str, Any]:
        start = self._framing.size
        ends = [start, *check_datum(self._writer.inlined, value, start)]
        # what becomes no column is never built: 1 MB of odd types could be a million objects
        wanted = b"".join([value[ends[at] : ends[at + 1]] for at in self._positions])
        event = fastavro.schemaless_reader(BytesIO(wanted), self._schema, None)
        return cast("dict[str, Any]", event)  # the schema is a record's


def _without_bad_rows(
    table: pa.RecordBatch,
    rows: npt.NDArray[np.int64],
    bad: Sequence[BadRows],
    failed: dict[int, DecodeFailed],
) -> Decoded:
    if not bad:
        return Decoded(table, rows, failed)
    keep = np.ones(len(rows), np.bool_)
    for verdict in bad:
        for row in rows[verdict.mask & keep].tolist():
            failed.setdefault(row, DecodeFailed(verdict.reason, verdict.message))
        keep &= ~verdict.mask
    return Decoded(table.filter(pa.array(keep)), rows[keep], failed)
