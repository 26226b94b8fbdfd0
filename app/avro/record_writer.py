"""Records → framed datums of one schema, one at a time, for the few a second that are not predictions."""

from collections.abc import Mapping
from io import BytesIO

import fastavro

from app.avro.schemas import Schema, without_logical_types
from app.errors import SchemaIncompatible


class RecordWriter:
    """Takes plain values: numbers for times, any sequence for an array, a mapping for a record."""

    def __init__(self, header: bytes, schema: Schema) -> None:
        """header: in front of each datum."""
        self._header, self._name = header, schema.name
        self._schema = fastavro.parse_schema(without_logical_types(schema.inlined))

    def write(self, record: Mapping[str, object]) -> bytes:
        """One framed datum. Raises SchemaIncompatible if the record's fields are not the schema's, or not its types."""
        out = BytesIO()
        out.write(self._header)
        try:
            fastavro.schemaless_writer(out, self._schema, record, strict=True)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as exc:
            raise SchemaIncompatible(f"the schema {self._name} is not the one that is written here: {exc}") from exc
        return out.getvalue()
