"""Columns → datums: many rows at once by the columnar codec, a handful by `few_rows`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyruhvro

from app.avro.columns import is_columnar
from app.avro.few_rows import MOST_WRITTEN, FewRowsWriter, plain_values
from app.avro.framing import Framing
from app.avro.schemas import Node, Schema, enum_symbols, has_null_items, without_null
from app.errors import DecodeFailed, Reason


class DatumWriter:
    """Columns → framed datums of one schema.

    fields: the columns it takes. symbols: by name of a field of enums, or of arrays of them, what is allowed.
    full_lists: names of the fields of arrays that take no null items.
    """

    def __init__(self, framing: Framing, header: bytes, schema: Schema) -> None:
        """Raises DecodeFailed (unsupported_schema) if the columnar codec cannot write the schema."""
        if not all(is_columnar(item["type"]) for item in schema.fields):
            raise DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"{schema.name}: has types that cannot be written in columns")
        self._framing, self._header = framing, header
        fields = [{"name": item["name"], "type": item["type"]} for item in schema.fields]
        self._write_schema = json.dumps({"type": "record", "name": "Framed", "fields": [*framing.fields, *fields]})
        self._arrow = pyruhvro.avro_to_arrow_schema(self._write_schema)
        self.fields = pa.schema([self._arrow.field(i) for i in range(2, len(self._arrow))])
        with_arrays = any(pa.types.is_list(item.type) for item in self.fields)  # a row of those may be long
        self._few_rows = None if with_arrays else FewRowsWriter(header, fields)
        self.symbols = {
            item["name"]: symbols
            for item in schema.fields
            if (symbols := enum_symbols(_innermost(item["type"]))) is not None
        }
        arrays = {item.name for item in self.fields if pa.types.is_list(item.type)}
        self.full_lists = arrays - {item["name"] for item in schema.fields if has_null_items(item["type"])}
        # taken apart once: asking Arrow for a schema's fields costs more than checking a column
        self._expected = [(item.name, item.type, item.nullable, item.name in self.full_lists) for item in self.fields]

    def takes_values(self, rows: int) -> bool:
        """Whether so few rows are better given to `write_values`."""
        return self._for_few(rows) is not None

    def write_values(self, columns: Sequence[Sequence[Any]], rows: int) -> list[bytes]:
        """One framed datum per row; only where `takes_values` says so.

        columns: one for each of `fields`, of plain values (numbers for times), each of length `rows`.
        Raises ValueError if one has another length, or a null its field does not take.
        """
        few = self._for_few(rows)
        if few is None:
            raise ValueError(f"{rows} rows, or rows of arrays, are written in columns")
        for (name, _, nullable, _), values in zip(self._expected, columns, strict=True):
            if len(values) != rows:
                raise ValueError(f"{name}: {len(values)} rows, not {rows}")
            if not nullable and None in values:
                raise ValueError(f"{name}: {values.count(None)} nulls in a field that takes none")
        return few.write(columns, rows)

    def write(self, columns: Mapping[str, pa.Array], rows: int) -> list[bytes]:
        """One framed datum per row.

        columns: by field name, of the types in `fields`, each of length `rows`.
        Raises ValueError if a column is missing, of another type or length, or has a null its field does not
        take: the codec would write such a null as zero.
        """
        chosen: list[pa.Array] = []
        for name, kind, nullable, full_list in self._expected:
            column = columns.get(name)
            if column is None:
                raise ValueError(f"{name}: no column")
            if column.type != kind:
                raise ValueError(f"{name}: {column.type}, the field is {kind}")
            if len(column) != rows:
                raise ValueError(f"{name}: {len(column)} rows, not {rows}")
            nulls = 0 if nullable else column.null_count
            if full_list:
                nulls += column.flatten().null_count
            if nulls:
                raise ValueError(f"{name}: {nulls} nulls in a field that takes none")
            chosen.append(column)
        if (few := self._for_few(rows)) is not None:
            return few.write([plain_values(column) for column in chosen], rows)
        batch = pa.RecordBatch.from_arrays([*self._framing.columns(self._header, rows), *chosen], schema=self._arrow)
        datums: list[bytes] = pyruhvro.serialize_record_batch(batch, self._write_schema, 1)[0].to_pylist()
        return datums

    def _for_few(self, rows: int) -> FewRowsWriter | None:
        return self._few_rows if rows <= MOST_WRITTEN else None


def _innermost(node: Node) -> Node:
    """What an array, or an array of arrays, is of; any other type as it is."""
    kind = without_null(node)
    return _innermost(kind["items"]) if isinstance(kind, dict) and kind["type"] == "array" else kind
