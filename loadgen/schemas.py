"""The Avro schemas of the topics: files in a directory, older writer versions in its `history/`.

A schema here is known by its file's stem: `churn_event` is today's, `history/churn_event_v1` an older
writer's.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema

from loadgen.errors import BadOption
from loadgen.wire import WireFormat

CURRENT = "current"


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """One schema and what is derived from it once.

    version: "current", or the number an older writer version has in its file name.
    text: the file's JSON, as a registry stores it. parsed: for fastavro. fingerprint: CRC-64-AVRO, on-wire
    order.
    """

    version: str
    text: str
    parsed: Any
    fingerprint: bytes

    @staticmethod
    def parse(text: str, version: str = CURRENT) -> "AvroSchema":
        """Derive it from a file's text. Raises BadOption if that is not the Avro schema of a record."""
        try:
            raw = json.loads(text)
            parsed = fastavro.parse_schema(raw)
            canonical = fastavro.schema.to_parsing_canonical_form(raw)
            fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
        except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException) as error:
            raise BadOption(f"not an Avro schema: {error}") from error
        if not isinstance(parsed, dict) or parsed.get("type") != "record":
            raise BadOption("a topic's schema must be a record")
        return AvroSchema(version=version, text=text, parsed=parsed, fingerprint=fingerprint)

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The record's fields, as written in the file."""
        fields: list[dict[str, Any]] = json.loads(self.text)["fields"]
        return fields

    def columnar(self, wire_format: WireFormat, *, extra: tuple[dict[str, Any], ...] = ()) -> str:
        """Translate for the columnar codec: the header as first fields, enums as index, plain longs."""
        fields = [{"name": field["name"], "type": _plain(field["type"])} for field in self.fields]
        return json.dumps({"type": "record", "name": "Framed", "fields": wire_format.prefixed([*fields, *extra])})


def _plain(avro_type: Any) -> Any:  # noqa: ANN401 - an Avro type is a string, a list or an object
    """Return the type without what the columnar codec would not leave as numbers and strings."""
    if isinstance(avro_type, list):
        return [_plain(branch) for branch in avro_type]
    if isinstance(avro_type, dict):
        if avro_type["type"] == "enum":
            return "int"  # an enum is its index on the wire
        if avro_type["type"] == "array":
            return {"type": "array", "items": _plain(avro_type["items"])}
        return avro_type["type"] if "logicalType" in avro_type else avro_type
    return avro_type


@dataclass(frozen=True, slots=True)
class SchemaDirectory:
    """Schema files below one directory."""

    path: Path

    def current(self, stem: str) -> AvroSchema:
        """Return the schema of `<stem>.avsc`. Raises BadOption if absent or malformed."""
        return self._read(self.path / f"{stem}.avsc", CURRENT)

    def history(self, stem: str) -> list[AvroSchema]:
        """Return the older writer versions of a schema, oldest first."""
        pattern = re.compile(re.escape(stem) + r"_v(\d+)$")
        found = {
            int(match[1]): file
            for file in (self.path / "history").glob(f"{stem}_v*.avsc")
            if (match := pattern.match(file.stem))
        }
        return [self._read(found[number], str(number)) for number in sorted(found)]

    def writers(self, stem: str, versions: str) -> list[AvroSchema]:
        """Return the versions an option names: "current", "all", or a list such as "1,2,current".

        Raises BadOption for a version that is not there.
        """
        known = {schema.version: schema for schema in [*self.history(stem), self.current(stem)]}
        wanted = list(known) if versions == "all" else [name.strip() for name in versions.split(",")]
        for name in wanted:
            if name not in known:
                raise BadOption(f"--writer-versions: {stem} has no version {name!r}; there are {', '.join(known)}")
        return [known[name] for name in dict.fromkeys(wanted)]

    def by_fingerprint(self) -> dict[bytes, AvroSchema]:
        """Return every schema below the directory, by its fingerprint."""
        table = {}
        for file in sorted(self.path.rglob("*.avsc")):
            schema = self._read(file, file.stem)
            table[schema.fingerprint] = schema
        return table

    @staticmethod
    def _read(file: Path, version: str) -> AvroSchema:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise BadOption(f"--schemas: cannot read {file}: {error.strerror}") from error
        try:
            return AvroSchema.parse(text, version)
        except BadOption as error:
            raise BadOption(f"--schemas: {file}: {error}") from error
