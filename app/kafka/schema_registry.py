"""A Confluent-compatible schema registry: writer schemas by id, and the id of our output schema.

Its client raises its HTTP library's errors for an outage; those are never poison, so they become
SchemaRegistryUnavailable. Only the registry's own "no such id" counts against a record.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import stamina
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from app.avro.framing import ConfluentFraming
from app.errors import DecodeFailed, Reason, SchemaIncompatible, SchemaMissing, SchemaRegistryUnavailable

REQUEST_TIMEOUT_S = 3.0
LOOKUPS = 3  # of an id nobody knows: registered a moment ago, it may not have reached every replica
LOOKUP_WAIT_S = 0.2


class _NotYetKnown(Exception):
    pass


@dataclass(frozen=True, slots=True)
class RegistryPolicy:
    """Where the registry is; `username` and `password` for basic authentication."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class RegistrySchemas:
    """Writer schemas by the id in a record's Confluent header. Caching is the decoder's."""

    def __init__(self, policy: RegistryPolicy) -> None:
        config: dict[str, object] = {"url": policy.url, "timeout": REQUEST_TIMEOUT_S, "max.retries": 1}
        if policy.username is not None:
            config["basic.auth.user.info"] = f"{policy.username}:{policy.password or ''}"
        self._url = policy.url
        self._client = SchemaRegistryClient(config)

    def by_header(self, header: bytes) -> str:
        """The JSON text of the writer schema with this id.

        Raises DecodeFailed (unknown_schema, unsupported_schema) or SchemaRegistryUnavailable.
        """
        schema_id = ConfluentFraming.schema_id(header)
        try:
            schema = self._known(schema_id)
        except _NotYetKnown as exc:
            raise DecodeFailed(Reason.UNKNOWN_SCHEMA, f"schema id {schema_id} is not in {self._url}") from exc
        if schema.schema_type not in {None, "AVRO"} or schema.references:
            what = "it has references" if schema.references else f"it is {schema.schema_type}"
            raise DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"schema id {schema_id}: {what}; only plain Avro is read")
        return schema.schema_str or ""

    def output_id(self, subject: str, schema_text: str, *, register: bool) -> int:
        """The id of our output schema under `subject`; registered first if `register` says so.

        Raises SchemaMissing if it is not there, SchemaIncompatible if the registry refuses it, or
        SchemaRegistryUnavailable.
        """
        schema = Schema(schema_text, "AVRO")
        with self._translated():
            try:
                if register:
                    return int(self._client.register_schema(subject, schema))
                return int(self._client.lookup_schema(subject, schema).schema_id or 0)
            except SchemaRegistryError as exc:
                if exc.http_status_code == 404:
                    msg = (
                        f"the output schema is not registered under {subject!r} in {self._url}: register it, "
                        "or set schemas.auto_register: true"
                    )
                    raise SchemaMissing(msg) from exc
                if exc.http_status_code in {409, 422}:
                    raise SchemaIncompatible(f"{self._url} refuses the schema of {subject!r}: {exc}") from exc
                raise

    def _known(self, schema_id: int) -> Schema:
        for attempt in stamina.retry_context(
            on=_NotYetKnown, attempts=LOOKUPS, wait_initial=LOOKUP_WAIT_S, wait_jitter=0, timeout=None
        ):
            with attempt, self._translated():
                try:
                    return self._client.get_schema(schema_id)
                except SchemaRegistryError as exc:
                    if exc.http_status_code == 404:
                        raise _NotYetKnown from exc
                    raise
        raise AssertionError("unreachable: the last attempt raises")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SchemaRegistryError as exc:
            raise SchemaRegistryUnavailable(f"{self._url}: {exc}") from exc
        except (httpx2.HTTPError, OSError, ValueError) as exc:  # ValueError: an answer that is not JSON
            raise SchemaRegistryUnavailable(f"{self._url}: {type(exc).__name__}: {exc}") from exc
