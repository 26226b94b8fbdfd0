"""A handful of rows, by fastavro: framed datums → columns, and plain values → framed datums.

Below a few rows its cost per row is less than what the columnar codec costs each time it is called.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa

from app.avro.columns import columnar_node
from app.avro.datum import check_datum
from app.avro.framing import Framing
from app.avro.resolution import Resolution
from app.avro.schemas import Schema, enum_symbols, without_logical_types
from app.errors import DecodeFailed

# Where the two meet (`make bench-stages`, the bounds varied, 2026-11-23): reading, 85 us a batch in columns, here 20
# and 11 a row. Writing a prediction, 200 to 260 in columns, half of it the codec's own thread being woken, here 20 and
# 7 to 14 a row: from 13 rows on it depends on the moment.
MOST_READ = 6
MOST_WRITTEN = 16


class FewRowsReader:
    """Reads what the columnar codec would, for a writer without arrays whose fields are the reader's as they are."""

    def __init__(self, framing: Framing, header: bytes, writer: Schema, resolution: Resolution) -> None:
        self._framing, self._header, self._writer = framing, header, writer
        self._schema = resolution.nothing.schema
        kept = [writer.fields[position] for position in resolution.positions]
        # numbers for times, indexes for enums, which the judge has seen to be in range
        plain = [{"name": item["name"], "type": columnar_node(item["type"])} for item in writer.fields]
        self._record = fastavro.parse_schema({"type": "record", "name": "FewRows", "fields": plain})
        self._enums = [
            (at, pa.array(symbols, pa.string()))
            for at, item in enumerate(kept)
            if (symbols := enum_symbols(item["type"])) is not None
        ]
        of_enums = {at for at, _ in self._enums}
        self._struct = pa.struct(
            [
                pa.field(item["name"], pa.int32() if at in of_enums else column.type)
                for at, (item, column) in enumerate(zip(kept, self._schema, strict=True))
            ]
        )

    def read_all(self, values: Sequence[bytes]) -> pa.RecordBatch | None:
        """The reader's columns if every value carries this header and is decodable, else None."""
        rows = []
        for value in values:
            if not value.startswith(self._header):
                return None
            try:
                check_datum(self._writer.inlined, value, self._framing.size)
            except DecodeFailed:
                return None
            datum = BytesIO(value)
            datum.seek(self._framing.size)
            rows.append(fastavro.schemaless_reader(datum, self._record, None))
        columns = pa.array(rows, self._struct).flatten()
        for at, symbols in self._enums:
            columns[at] = pa.DictionaryArray.from_arrays(columns[at], symbols, safe=False)
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


class FewRowsWriter:
    """Writes the very bytes the columnar codec would, for schemas without arrays."""

    def __init__(self, header: bytes, fields: Sequence[dict[str, Any]]) -> None:
        """header: in front of each datum. fields: of the record, as in its schema."""
        self._header = header
        self._names = [field["name"] for field in fields]
        record = {"type": "record", "name": "FewRows", "fields": list(fields)}
        self._schema = fastavro.parse_schema(without_logical_types(record))

    def write(self, columns: Sequence[Sequence[Any]], rows: int) -> list[bytes]:
        """One framed datum per row. columns: one per field, of plain values, checked by the caller."""
        datums = []
        for row in range(rows):
            out = BytesIO()
            out.write(self._header)
            values = {name: column[row] for name, column in zip(self._names, columns, strict=True)}
            fastavro.schemaless_writer(out, self._schema, values)
            datums.append(out.getvalue())
        return datums


def plain_values(column: pa.Array) -> list[Any]:
    """As Avro writes them: numbers instead of dates and times."""
    if pa.types.is_temporal(column.type):
        column = column.view(pa.int64() if column.type.bit_width == 64 else pa.int32())
    values: list[Any] = column.to_pylist()
    return values
