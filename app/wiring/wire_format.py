"""How records are framed, and who knows the schemas they were written with: the registry, or a directory."""

from typing import TYPE_CHECKING

from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock
from app.errors import NotReachable, SchemaRegistryUnavailable
from app.kafka.schema_lookups import BackgroundLookups
from app.ports import SchemaSource
from app.settings.root import Settings

if TYPE_CHECKING:
    from app.kafka.schema_registry import RegistrySchemas

# Of the records that a worker writes beside its predictions, and the monitor reads.
SUMMARY_SCHEMA, COMPARISON_SCHEMA = "ModelSummary", "ShadowComparison"


def wire_format(
    settings: Settings, topic: str, output: Schema, directory: SchemaDirectory, clock: Clock
) -> tuple[Framing, SchemaSource, bytes]:
    """How records are framed, where writer schemas come from, and the header of what is written to this topic.

    Raises NotReachable, and SchemaMissing if the registry lacks the output schema and nobody may register it.
    """
    registry = _registry(settings)
    header = _header(settings, registry, topic, output)
    return *_reading(registry, directory, clock), header


def reading_format(settings: Settings, directory: SchemaDirectory, clock: Clock) -> tuple[Framing, SchemaSource]:
    """The same for those who write nothing."""
    return _reading(_registry(settings), directory, clock)


def written_header(settings: Settings, topic: str, schema: Schema) -> bytes:
    """The frame of records of this topic. Raises what `wire_format` does."""
    return _header(settings, _registry(settings), topic, schema)


def _reading(
    registry: "RegistrySchemas | None", directory: SchemaDirectory, clock: Clock
) -> tuple[Framing, SchemaSource]:
    if registry is None:
        return SingleObjectFraming(), directory
    return ConfluentFraming(), BackgroundLookups(registry, clock)


def _header(settings: Settings, registry: "RegistrySchemas | None", topic: str, schema: Schema) -> bytes:
    if registry is None:
        return SingleObjectFraming.header(schema.fingerprint)
    try:
        schema_id = registry.output_id(f"{topic}-value", schema.text, register=settings.schemas.auto_register)
    except SchemaRegistryUnavailable as exc:
        raise NotReachable(f"schema registry {exc}") from exc
    return ConfluentFraming.header(schema_id)


def _registry(settings: Settings) -> "RegistrySchemas | None":
    url = settings.schemas.registry_url
    if url is None:
        return None
    # here, because its client takes a fifth of a worker's start to import (OAuth, HTTP): only those who need it pay
    from app.kafka.schema_registry import RegistryPolicy, RegistrySchemas  # noqa: PLC0415

    return RegistrySchemas(RegistryPolicy(url, settings.schemas.registry_username, settings.schemas.password()))
