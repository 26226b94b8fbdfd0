"""Framed datums → records of any schema that passed the gate, one at a time: for the few that are no columns."""

import json
from io import BytesIO
from typing import Any, cast

import fastavro

from app.avro.datum import check_datum
from app.avro.framing import Framing
from app.avro.schemas import Schema, parse, without_logical_types
from app.errors import DecodeFailed, Reason
from app.ports import SchemaSource

MAX_DATUM_BYTES = 16 * 1024 * 1024
MAX_SCHEMAS = 100  # remembered headers; a producer that makes up ids must not fill the memory


class WholeRecordReader:
    """Datums of writer schemas that resolve to one reader schema → dictionaries; dates and times are numbers."""

    def __init__(self, framing: Framing, schemas: SchemaSource, reader: Schema) -> None:
        self._framing, self._schemas, self._reader = framing, schemas, reader
        self._plain_reader = fastavro.parse_schema(_numbers_for_times(_json(reader)))
        self._writers: dict[bytes, tuple[Schema, Any]] = {}

    def read(self, value: bytes) -> dict[str, Any]:
        """One framed datum. Raises DecodeFailed, or SchemaRegistryUnavailable if its schema is not known now."""
        if len(value) > MAX_DATUM_BYTES:
            raise DecodeFailed(Reason.OVERSIZED, f"{len(value)} bytes, at most {MAX_DATUM_BYTES} are decoded")
        header = self._framing.header_of(value)
        writer, plain = self._writers.get(header) or self._look_up(header)
        check_datum(writer.inlined, value, self._framing.size)
        try:
            record = fastavro.schemaless_reader(BytesIO(value[self._framing.size :]), plain, self._plain_reader)
        except (fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError) as exc:
            raise DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"{writer.name} is not {self._reader.name}: {exc}") from exc
        return cast("dict[str, Any]", record)

    def _look_up(self, header: bytes) -> tuple[Schema, Any]:
        writer = parse(self._schemas.by_header(header))
        if writer.name != self._reader.name:
            raise DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"record {writer.name!r} is not {self._reader.name!r}")
        if len(self._writers) >= MAX_SCHEMAS:
            self._writers.pop(next(iter(self._writers)))
        found = self._writers[header] = (writer, fastavro.parse_schema(without_logical_types(_json(writer))))
        return found


def _json(schema: Schema) -> dict[str, Any]:
    """As it was written, names and all: nested records resolve by name."""
    return cast("dict[str, Any]", json.loads(schema.text))


def _numbers_for_times(node: Any) -> Any:  # noqa: ANN401 - a part of a schema
    """As `without_logical_types`, with the defaults that a reader needs."""
    if isinstance(node, list):
        return [_numbers_for_times(branch) for branch in node]
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key != "logicalType"}
        return {
            key: value if key in {"symbols", "default"} else _numbers_for_times(value) for key, value in kept.items()
        }
    return node
