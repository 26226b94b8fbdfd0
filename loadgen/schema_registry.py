"""The schema registry: what we write is registered there, what we read is looked up there."""

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from loadgen.errors import BadOption, RegistryFailed
from loadgen.schemas import AvroSchema

TIMEOUT_S = 10.0


class SchemaRegistry:
    """A Confluent-compatible registry behind one URL. Ids are remembered; they never change their meaning."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = SchemaRegistryClient({"url": url, "timeout": TIMEOUT_S})
        self._schemas: dict[int, AvroSchema | None] = {}

    def register(self, topic: str, schema: AvroSchema) -> int:
        """Register under `<topic>-value`; returns the id. Registering twice is the same id.

        Raises RegistryFailed if the registry refuses (an incompatible schema) or does not answer.
        """
        try:
            return self._client.register_schema(f"{topic}-value", Schema(schema.text, "AVRO"))
        except SchemaRegistryError as error:
            raise RegistryFailed(
                f"{self._url} refused {topic}-value version {schema.version}: {error.error_message}"
            ) from error
        except Exception as error:
            raise RegistryFailed(f"{self._url} did not answer: {error}") from error

    def schema(self, schema_id: int) -> AvroSchema | None:
        """Return the schema of an id, or None if the registry knows no such id (or not as an Avro record)."""
        if schema_id not in self._schemas:
            self._schemas[schema_id] = self._look_up(schema_id)
        return self._schemas[schema_id]

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _look_up(self, schema_id: int) -> AvroSchema | None:
        try:
            text = self._client.get_schema(schema_id).schema_str
        except SchemaRegistryError as error:
            if error.http_status_code in {400, 404, 422}:
                return None
            raise RegistryFailed(f"{self._url}: schema {schema_id}: {error.error_message}") from error
        except Exception as error:
            raise RegistryFailed(f"{self._url} did not answer: {error}") from error
        try:
            return AvroSchema.parse(text or "", str(schema_id))
        except BadOption:
            return None
