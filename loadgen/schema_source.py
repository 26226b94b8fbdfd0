"""Which schema wrote a record: asked of the registry or the directory, by the identity in its header."""

from dataclasses import dataclass
from pathlib import Path

from loadgen.schema_registry import SchemaRegistry
from loadgen.schemas import AvroSchema, SchemaDirectory
from loadgen.wire import CONFLUENT, SINGLE_OBJECT, WireFormat, schema_id_bytes


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """Where schemas live. A registry means Confluent framing; none means single-object encoding."""

    directory: Path
    registry_url: str | None = None


class SchemaSource:
    """Identities for what is written, schemas for what is read, in the wire format of the options."""

    def __init__(self, options: SchemaOptions) -> None:
        self.directory = SchemaDirectory(options.directory)
        self.wire_format: WireFormat = CONFLUENT if options.registry_url else SINGLE_OBJECT
        self._registry = SchemaRegistry(options.registry_url) if options.registry_url else None
        self._by_fingerprint: dict[bytes, AvroSchema] | None = None

    def identity(self, topic: str, schema: AvroSchema) -> bytes:
        """Return the identity of a schema that is about to write to a topic; a registry learns it by that."""
        if self._registry:
            return schema_id_bytes(self._registry.register(topic, schema))
        return schema.fingerprint

    def schema(self, identity: bytes) -> AvroSchema | None:
        """Return the schema that has this identity, or None if nobody knows it."""
        if self._registry:
            return self._registry.schema(int.from_bytes(identity, "big"))
        if self._by_fingerprint is None:
            self._by_fingerprint = self.directory.by_fingerprint()
        return self._by_fingerprint.get(identity)

    def close(self) -> None:
        """End the connections, if there are any."""
        if self._registry:
            self._registry.close()
