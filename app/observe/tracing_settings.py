"""The section `tracing:` of the settings, and which of OpenTelemetry's own environment names mean the same.

The rule: `tracing.enabled` alone switches tracing on, and OTEL_SDK_DISABLED=true switches it off again. While it is on,
the names in STANDARD_NAMES fill settings that neither the file nor an `INFERENCE_` name has set, those for traces
before those for everything. Other `OTEL_` names have no effect, and a line in the log at start says which were found.
While it is off, none is looked at: an environment made for other programs stops no worker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator

from app.errors import BadSettings
from app.sections import Name, Seconds, WithSecrets, check_file

TRACES_PATH = "/v1/traces"
DEFAULT_PORTS = {"http/protobuf": 4318, "grpc": 4317}
LONGEST_LIST = 8_192  # characters, of headers and of attributes

STANDARD_NAMES = {
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "endpoint",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "endpoint",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "protocol",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "protocol",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "headers",
    "OTEL_EXPORTER_OTLP_HEADERS": "headers",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "ca_file",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca_file",
    "OTEL_SERVICE_NAME": "service_name",
    "OTEL_RESOURCE_ATTRIBUTES": "resource_attributes",
}
DISABLED = "OTEL_SDK_DISABLED"
PREFIX = "OTEL_"

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TracingSettings(WithSecrets):
    """Spans of batches and requests, sent by OTLP to whoever collects them (docs/TRACING.md)."""

    enabled: bool = Field(default=False, description="Needs the extra `tracing`")
    endpoint: str | None = Field(
        None,
        description="http:// or https:// and where the collector listens; `/v1/traces` is added for http/protobuf if "
        "it does not end so. Default: http://127.0.0.1:4318, with grpc port 4317",
    )
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: SecretStr | None = Field(None, description="Sent with each export: `name=value,name=value`, URL-encoded")
    headers_file: Path | None = Field(None, description="File whose content they are")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust with https://")
    service_name: Name = "inference-worker"
    resource_attributes: str = Field(
        "", max_length=LONGEST_LIST, description="Of all spans: `name=value,name=value`, URL-encoded"
    )
    sample_ratio: Share = Field(
        0.01, description="Of the batches without a sampled record, and of the requests without a trace context"
    )
    parent_traces_per_s: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        5.0,
        description="So many batches, and so many requests, are traced a second because a sender has sampled them; 0 "
        "heeds no sender",
    )
    records_read: Annotated[int, Field(ge=0, le=100_000)] = Field(
        64,
        description="Of every 512 records of a batch, or fewer, the headers of so many are looked at for a trace "
        "context, evenly spread",
    )
    most_links: Annotated[int, Field(ge=1, le=1_000)] = Field(
        32, description="Records or requests that the span of a batch is linked to"
    )
    timeout_s: Seconds = Field(5.0, description="Of one export, its retries included; then its spans are lost")
    queue_spans: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4_096, description="Spans that wait to be exported; more are lost, and counted"
    )
    close_timeout_s: Annotated[Seconds, Field(le=60)] = Field(
        2.0, description="For the last spans, when the process ends"
    )

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if "@" in url:  # it is shown in messages and logs
            raise ValueError("credentials belong in headers_file, not in the URL")
        try:
            parts = urlsplit(url)
            sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            sound = False
        if not sound or parts.query or parts.fragment or any(char.isspace() or not char.isprintable() for char in url):
            raise ValueError("expected http://host:port or https://host:port")
        return url

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_file("ca_file", file)
        return file

    @field_validator("resource_attributes")
    @classmethod
    def _pairs(cls, text: str) -> str:
        pairs_of("resource_attributes", text)
        return text

    @field_validator("headers")
    @classmethod
    def _header_pairs(cls, headers: SecretStr | None) -> SecretStr | None:
        if headers is not None:
            header_pairs(headers.get_secret_value())
        return headers

    def url(self) -> str:
        """Where spans go."""
        base = (self.endpoint or f"http://127.0.0.1:{DEFAULT_PORTS[self.protocol]}").rstrip("/")
        return base if self.protocol == "grpc" or base.endswith(TRACES_PATH) else base + TRACES_PATH

    def sent_headers(self) -> dict[str, str]:
        """In the clear. Raises BadSettings if their file has become unreadable, or has something else in it."""
        try:
            return header_pairs(self.secret("headers") or "")
        except ValueError as exc:
            raise BadSettings(f"tracing.headers_file: {exc}") from None


def pairs_of(what: str, text: str) -> dict[str, str]:
    """`name=value,name=value`, URL-decoded. Raises ValueError, which does not quote what may be a secret."""
    found = {}
    for number, item in enumerate(filter(None, (item.strip() for item in text.split(","))), 1):
        name, equals, value = item.partition("=")
        name = unquote(name.strip())
        if not equals or not name or not name.isprintable():
            raise ValueError(f"{what}: item {number} is no name=value")
        found[name] = unquote(value.strip())
    return found


def header_pairs(text: str) -> dict[str, str]:
    """The same for headers, whose names are in lower case. Raises ValueError."""
    if len(text) > LONGEST_LIST:
        raise ValueError(f"headers: more than {LONGEST_LIST} characters")
    found = {}
    for number, (name, value) in enumerate(pairs_of("headers", text).items(), 1):
        if not (name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
            raise ValueError(f"headers: the name of item {number} is none of a header")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers: the value of item {number} is none of a header")
        found[name.lower()] = value
    return found


def with_standard_names(tracing: TracingSettings, environment: Mapping[str, str]) -> TracingSettings:
    """The settings as the module's rule has them. Raises BadSettings, naming the environment's name."""
    if not tracing.enabled:
        return tracing
    if environment.get(DISABLED, "").strip().lower() == "true":
        return tracing.model_copy(update={"enabled": False})
    given = {field for field in tracing.model_fields_set if getattr(tracing, field) is not None}
    given |= {"headers"} if "headers_file" in given else set()
    for name, field in STANDARD_NAMES.items():
        value = environment.get(name, "").strip()  # by the standard empty is not set
        if not value or field in given:
            continue
        if name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" and _other_path(tracing, environment, value):
            raise BadSettings(f"{name}: has to end in {TRACES_PATH} with http/protobuf (found {_shown(value)!r})")
        tracing = _with(tracing, name, field, value)
        given.add(field)
    named = pairs_of("resource_attributes", tracing.resource_attributes).get("service.name")
    if named and "service_name" not in given:  # the standard's own second place for it
        tracing = _with(tracing, "OTEL_RESOURCE_ATTRIBUTES, service.name", "service_name", named)
    return tracing


def names_without_effect(environment: Mapping[str, str]) -> list[str]:
    """`OTEL_` names that say something to other programs and nothing to this one."""
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in {*STANDARD_NAMES, DISABLED})


def _with(tracing: TracingSettings, name: str, field: str, value: str) -> TracingSettings:
    content: dict[str, Any] = {key: getattr(tracing, key) for key in tracing.model_fields_set}
    try:
        return TracingSettings(**{**content, field: value})
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        shown = "" if field == "headers" else f" (found {_shown(value)!r})"
        raise BadSettings(f"{name}: {error['msg'].removeprefix('Value error, ')}{shown}") from None


def _other_path(tracing: TracingSettings, environment: Mapping[str, str], url: str) -> bool:
    """By the standard this name is the whole URL; ours has always the standard's path."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    named = next((environment[name] for name in names if environment.get(name)), "http/protobuf")
    protocol = tracing.protocol if "protocol" in tracing.model_fields_set else named.strip()
    return protocol != "grpc" and not url.rstrip("/").endswith(TRACES_PATH)


def _shown(value: str) -> str:
    return "…" if "@" in value else value[:200]
