"""Files and environment → frozen Settings. The only place that reads either.

YAML file, then `INFERENCE_…` environment names (nested with `__`, lists as JSON), which win. A name nobody
knows is an error in both. Secrets may be given as `*_file`, a path whose content is the secret. Relative paths
written in the file are relative to the file; defaults and the environment's to the working directory.
"""

import os
import re
import socket
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from yaml.constructor import ConstructorError

from app.audit.policy import AuditSettings
from app.errors import BadSettings
from app.kafka.client_config import ALLOWED_CLIENT_PROPERTIES
from app.lag.lag_settings import LagSettings
from app.models.store_access import StoreAccess
from app.monitor.monitor_settings import MonitorSettings
from app.sections import Name, Seconds, Section, WithSecrets, check_file
from app.serving.settings import Serving

PREFIX = "INFERENCE_"
DELIMITER = "__"
# Names that other tools use already; the prefixed name wins.
ALIASES = {
    "KAFKA_BOOTSTRAP_SERVERS": "INFERENCE_KAFKA__BOOTSTRAP_SERVERS",
    "KAFKA_GROUP_ID": "INFERENCE_KAFKA__GROUP_ID",
    "SCHEMA_REGISTRY_URL": "INFERENCE_SCHEMAS__REGISTRY_URL",
    "AIP_HTTP_PORT": "INFERENCE_SERVING__PORT",
    "AIP_HEALTH_ROUTE": "INFERENCE_SERVING__HEALTH_ROUTE",
    "AIP_PREDICT_ROUTE": "INFERENCE_SERVING__PREDICT_ROUTE",
}

HandlerPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]


class Security(WithSecrets):
    """How to prove who we are to the broker, and the broker to us."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = Field(None, description="File whose content is the password")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; default: the system's")
    cert_file: Path | None = Field(None, description="PEM certificate of this client, for mutual TLS")
    key_file: Path | None = Field(None, description="PEM key of that certificate")
    key_password: SecretStr | None = None
    key_password_file: Path | None = None
    oauth_token_url: str | None = Field(None, description="OpenID Connect token endpoint, for OAUTHBEARER")
    oauth_client_id: str | None = None
    oauth_client_secret: SecretStr | None = None
    oauth_client_secret_file: Path | None = None
    oauth_scope: str | None = None
    oauth_ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust for the token endpoint; default: the system's"
    )

    @field_validator("oauth_token_url")
    @classmethod
    def _no_credentials(cls, url: str | None) -> str | None:
        return _without_credentials(url, "oauth_client_id and oauth_client_secret_file")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("SASL") and self.mechanism is None:
            raise ValueError(f"protocol {self.protocol} needs a mechanism")
        if not self.protocol.startswith("SASL") and self.mechanism is not None:
            raise ValueError(f"mechanism {self.mechanism} needs protocol SASL_SSL or SASL_PLAINTEXT")
        if self.mechanism == "OAUTHBEARER" and not (self.oauth_token_url and self.oauth_client_id):
            raise ValueError("mechanism OAUTHBEARER needs oauth_token_url and oauth_client_id")
        if self.mechanism not in {None, "OAUTHBEARER"} and not self.username:
            raise ValueError(f"mechanism {self.mechanism} needs a username")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file are needed together")
        for name in ("ca_file", "cert_file", "key_file", "oauth_ca_file"):
            if (file := getattr(self, name)) is None:
                continue
            if name != "oauth_ca_file" and not self.protocol.endswith("SSL"):
                raise ValueError(f"{name} is of no use with protocol {self.protocol}, which does not encrypt")
            check_file(name, file)
        return self

    def properties(self) -> dict[str, str]:
        """As librdkafka properties, secrets in the clear."""
        oauth = self.mechanism == "OAUTHBEARER"
        found = {
            "security.protocol": self.protocol,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.secret("password"),
            "ssl.ca.location": str(self.ca_file) if self.ca_file else None,
            "ssl.certificate.location": str(self.cert_file) if self.cert_file else None,
            "ssl.key.location": str(self.key_file) if self.key_file else None,
            "ssl.key.password": self.secret("key_password"),
            "sasl.oauthbearer.method": "oidc" if oauth else None,
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": self.secret("oauth_client_secret"),
            "sasl.oauthbearer.scope": self.oauth_scope,
            "https.ca.location": str(self.oauth_ca_file) if self.oauth_ca_file else None,
        }
        return {name: value for name, value in found.items() if value is not None}


class Kafka(Section):
    """The cluster and our membership of a consumer group."""

    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: Name = "inference-workers"
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic",
        description="`consumer` is KIP-848, brokers 4.0 and newer; failure detection is then the broker's",
    )
    session_timeout_s: Seconds = Field(10.0, description="Classic only: how soon a dead worker is noticed")
    start_from: Literal["earliest", "latest", "fail"] = Field(
        "earliest", description="For a new group, and when retention overtook the committed offset"
    )
    security: Security = Security()
    client: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Further librdkafka properties, from an allow-list"
    )

    @field_validator("client")
    @classmethod
    def _allowed(cls, client: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        if refused := sorted(client.keys() - ALLOWED_CLIENT_PROPERTIES):
            allowed = ", ".join(sorted(ALLOWED_CLIENT_PROPERTIES))
            raise ValueError(f"{', '.join(refused)} may not be set; allowed are {allowed}")
        return client


class Worker(Section):
    """This worker: one process, or several that are started and stopped as one."""

    instance_id: Name | None = Field(
        None,
        description="Makes the transactional id; default: the host name. No two live workers may share one",
    )
    static_membership: bool = Field(
        default=False, description="Classic only, for stable identities such as a StatefulSet's"
    )
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="So many share the partitions; if more than 1, a supervisor starts them again when they end",
    )
    memory_budget_bytes: Annotated[int, Field(ge=8_388_608)] = Field(
        134_217_728,
        description="Of each process: for its clients' queues and our buffers together, shared by the pipelines",
    )
    drain_timeout_s: Seconds = Field(20.0, description="From SIGTERM to exit 3; keep it below the pod's grace period")


class Schemas(WithSecrets):
    """Where writer schemas come from, and so the wire format."""

    registry_url: str | None = Field(None, description="Set: Confluent framing. Unset: Avro single-object encoding")
    registry_username: str | None = None
    registry_password: SecretStr | None = None
    registry_password_file: Path | None = None
    directory: Path = Field(Path("schemas"), description="*.avsc, read recursively; reader and output schemas too")
    auto_register: bool = Field(default=False, description="Register the output schema instead of only checking it")

    @field_validator("registry_url")
    @classmethod
    def _no_credentials(cls, url: str | None) -> str | None:
        return _without_credentials(url, "registry_username and registry_password_file")

    def password(self) -> str | None:
        """The registry's password."""
        return self.secret("registry_password")


class Batch(Section):
    """Bounds of one micro-batch; the first one reached makes it due."""

    max_records: Annotated[int, Field(ge=1, le=100_000)] = 512
    max_bytes: Annotated[int, Field(ge=1, le=1_073_741_824)] = Field(
        4_194_304, description="At most a sixteenth of the pipeline's share of worker.memory_budget_bytes"
    )
    max_wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.01
    slo_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = Field(
        None,
        description="Instead of max_wait_s: how old a record should be at most, by its own timestamp, when its outcome "
        "is durable. Batches wait for company as long as that allows; transactions then last a quarter of it at most",
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.slo_s is not None and "max_wait_s" in self.model_fields_set:
            raise ValueError("max_wait_s and slo_s are both set; choose one")
        return self


class DeadLetterLimitSettings(Section):
    """More dead letters than this within the window stop the worker: something else is wrong."""

    records: Annotated[int, Field(ge=0)] = 1000
    window_s: Seconds = 60.0


class FallbackSettings(Section):
    """Who answers while a model version itself fails (its golden rows fail too), each only after the one before."""

    previous: bool = Field(
        default=False,
        description="The version before stable, which is kept loaded for that. (Where another arm of a rollout fails, "
        "stable answers whatever is set here)",
    )
    constant: bool = Field(
        default=False, description="The answer that the failing version's manifest has under `fallback`, if it has one"
    )
    retry_s: Seconds = Field(10.0, description="A version that failed is left alone for so long, then tried once")


class MonitoringSettings(Section):
    """What the worker says of its own predictions, beside them and in the same transaction (docs/MONITORING.md)."""

    summary_topic: TopicName | None = Field(
        None,
        description="Where summaries of the predictions go, `ModelSummary`; it has to be there at start. Unset: none",
    )
    bucket_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        10, description="A summary is of predictions of one such stretch of time, counted from the epoch"
    )
    interval_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        1.0,
        description="How often summaries are written in at_least_once; in exactly_once each transaction has its own",
    )
    low_confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.6, description="Predictions with less confidence are counted apart"
    )
    sample_topic: TopicName | None = Field(
        None,
        description="Where a sample of the predictions goes as well, by key; it has to be there at start. Unset: none",
    )
    sample_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        1.0, description="Of the keys; whether a key is in the sample depends on it and on this share alone"
    )

    @property
    def topics(self) -> tuple[str, ...]:
        """Those that are written to."""
        return tuple(topic for topic in (self.summary_topic, self.sample_topic) if topic is not None)


class Pipeline(Section):
    """From some topics through one model to another topic."""

    name: Name
    input_topics: Annotated[tuple[TopicName, ...], Field(min_length=1)]
    output_topic: TopicName
    dead_letter_topic: TopicName
    model: Name
    group_id: Name | None = Field(None, description="Default: kafka.group_id, with `-<name>` if there are several")
    event_schema: str | None = Field(None, description="Reader schema; default: the model manifest's")
    prediction_schema: str | None = Field(None, description="Output schema; default: the model manifest's")
    output_partitioning: Literal["source", "key"] = "source"
    handler: HandlerPath | None = Field(
        None,
        description="`package.module:Class`, code of your own in the place of the manifest's feature or output mapping "
        "(docs/HANDLERS.md); it runs as the worker",
    )
    bad_output: Literal["dead_letter", "clip", "stop"] = Field(
        "dead_letter",
        description="For outputs that are not finite or outside the manifest's bounds; `clip` brings finite values to "
        "the nearest bound, `stop` ends the worker",
    )
    fallback: FallbackSettings = FallbackSettings()
    on_model_failure: Literal["stop", "dead_letter"] = Field(
        "stop",
        description="When the model itself fails and no fallback answers: `stop` ends the worker and rejects nothing; "
        "`dead_letter` goes on, up to dead_letter_limit",
    )
    shadow_topic: TopicName | None = Field(
        None,
        description="Where the comparisons of a shadow rollout go; if set, it has to be there at start. Default: "
        "`<output_topic>.shadow`, asked for when a shadow begins",
    )
    shadow_memory_bytes: Annotated[int, Field(ge=268_435_456, le=1_099_511_627_776)] = Field(
        1_073_741_824, description="What a shadow's process may use, beside worker.memory_budget_bytes"
    )
    batch: Batch = Batch()
    dead_letter_limit: DeadLetterLimitSettings = DeadLetterLimitSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        outputs = {self.output_topic, self.dead_letter_topic}
        if len(outputs) < 2 or outputs & set(self.input_topics):
            raise ValueError("input, output and dead-letter topics must all be different")
        if self.comparison_topic in outputs | set(self.input_topics):
            raise ValueError(f"shadow_topic: {self.comparison_topic} is another topic of the pipeline")
        others = outputs | {*self.input_topics, self.comparison_topic}
        for name in ("summary_topic", "sample_topic"):
            topic = getattr(self.monitoring, name)
            if topic in others:
                raise ValueError(f"monitoring.{name}: {topic} is another topic of the pipeline")
            others |= {topic} - {None}
        return self

    @property
    def comparison_topic(self) -> str:
        """Where the comparisons of a shadow go."""
        return self.shadow_topic or f"{self.output_topic}.shadow"


class Delivery(Section):
    """What is promised, and how often it is made durable."""

    mode: Literal["exactly_once", "at_least_once"] = "exactly_once"
    commit_interval_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.1
    transaction_timeout_s: Annotated[float, Field(ge=1, le=900, allow_inf_nan=False)] = 10.0
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "none"


class ModelCache(WithSecrets):
    """Answers kept in front of each model version: in this process, and on request shared through Redis."""

    enabled: bool = Field(default=False, description="Pays for slow models and rows that come again: docs/CACHE.md")
    max_bytes: Annotated[int, Field(ge=0, le=1_099_511_627_776)] = Field(
        67_108_864, description="Of each loaded version in each process, beside worker.memory_budget_bytes"
    )
    ttl_s: Seconds = Field(300.0, description="How long an answer is kept, in this process and in Redis")
    redis_url: str | None = Field(None, description="redis://, rediss:// or unix://; trusted like the model store")
    redis_username: str | None = None
    redis_password: SecretStr | None = None
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust with rediss://; default: the system's"
    )
    budget_s: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = Field(
        0.003, description="What a batch may wait for Redis at most"
    )

    @field_validator("redis_url")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("expected redis://host:port/database, rediss:// or unix://")
        if url is not None and "?" in url:  # the client would take any of its options from there, time-outs too
            raise ValueError("options in the URL are not taken")
        return _without_credentials(url, "redis_username and redis_password_file")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [name for name in type(self).model_fields if name.startswith("redis_") and getattr(self, name)]
        if given and self.redis_url is None:
            raise ValueError(f"{', '.join(given)} is of no use without redis_url")
        if self.redis_ca_file is not None:
            if not (self.redis_url or "").startswith("rediss://"):
                raise ValueError("redis_ca_file needs a redis_url that begins with rediss://")
            check_file("redis_ca_file", self.redis_ca_file)
        return self

    def password(self) -> str | None:
        """The Redis password."""
        return self.secret("redis_password")


class StoreOptions(WithSecrets):
    """How to reach a bucket; what is not given here comes from the environment that the cloud's own tools use."""

    endpoint: str | None = Field(None, description="Of a server that speaks S3, of an emulator; default: the cloud's")
    region: str | None = Field(None, description="s3:// only")
    allow_http: bool = Field(default=False, description="Let the endpoint be http://: nothing is encrypted")
    ca_file: Path | None = Field(None, description="PEM file of further authorities to trust for the endpoint")
    access_key_id: str | None = Field(None, description="s3:// only")
    secret_access_key: SecretStr | None = None
    secret_access_key_file: Path | None = None
    session_token: SecretStr | None = None
    session_token_file: Path | None = None
    service_account_file: Path | None = Field(None, description="gs:// only: JSON key of the service account")
    account_name: str | None = Field(None, description="az:// only")
    account_key: SecretStr | None = None
    account_key_file: Path | None = None

    @field_validator("endpoint")
    @classmethod
    def _no_credentials(cls, url: str | None) -> str | None:
        return _without_credentials(url, "access_key_id and secret_access_key_file")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.endpoint and self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("endpoint is http://: nothing would be encrypted; set allow_http if that is meant")
        secret = self.secret_access_key is not None or self.secret_access_key_file is not None
        if (self.access_key_id is not None) != secret:
            raise ValueError("access_key_id and secret_access_key (or secret_access_key_file) are needed together")
        for name in ("ca_file", "service_account_file"):
            if (file := getattr(self, name)) is not None:
                check_file(name, file)
        return self

    def access(self) -> StoreAccess:
        """For the store, secrets in the clear."""
        return StoreAccess(
            endpoint=self.endpoint,
            region=self.region,
            allow_http=self.allow_http,
            ca_file=self.ca_file,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret("secret_access_key"),
            session_token=self.secret("session_token"),
            service_account_file=self.service_account_file,
            account_name=self.account_name,
            account_key=self.secret("account_key"),
        )


class Models(Section):
    """Where models come from."""

    store: str = Field(
        "file://var/models", description="`file://` and a folder, or `s3://`, `gs://`, `az://`, a bucket and a prefix"
    )
    store_options: StoreOptions = StoreOptions()
    rollout_poll_s: Seconds = Field(2.0, description="How often each pipeline looks for a new rollout page")
    providers: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        ("CPUExecutionProvider",),
        description="ONNX Runtime's execution providers, the preferred one first; one that this build of ONNX Runtime "
        "does not have is an error at start",
    )
    cache: ModelCache = ModelCache()


class Http(Section):
    """Probes, metrics and the live page."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8080, description="0 takes a free one and logs it")


class Log(Section):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """Everything a worker can be told."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        nested_model_default_partial_update=True,
    )

    kafka: Kafka = Kafka()
    worker: Worker = Worker()
    schemas: Schemas = Schemas()
    pipelines: Annotated[tuple[Pipeline, ...], Field(min_length=1)]
    delivery: Delivery = Delivery()
    models: Models = Models()
    audit: AuditSettings = AuditSettings()
    monitor: MonitorSettings = MonitorSettings()
    lag: LagSettings = LagSettings()
    http: Http = Http()
    serving: Serving = Serving()
    log: Log = Log()

    @field_validator("pipelines")
    @classmethod
    def _names_differ(cls, pipelines: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        names = [pipeline.name for pipeline in pipelines]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two pipelines are named {', '.join(twice)}")
        return pipelines

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.worker.static_membership and self.kafka.group_protocol == "consumer":
            raise ValueError(
                "worker.static_membership needs kafka.group_protocol classic: with consumer, a restarted member is "
                "locked out of its own partitions"
            )
        taken: dict[tuple[str, str], str] = {}
        for pipeline in self.pipelines:
            for topic in pipeline.input_topics:
                slot = (self.group_id_of(pipeline), topic)
                if slot in taken:
                    raise ValueError(
                        f"pipelines {taken[slot]} and {pipeline.name} read topic {topic} in the same group {slot[0]}: "
                        "each would get half of it"
                    )
                taken[slot] = pipeline.name
        if loop := _loop(self.pipelines):
            raise ValueError(f"records would go round for ever through the topics {' -> '.join(loop)}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file."""
        del env_settings
        environment = EnvSettingsSource(settings_cls)
        aliased = {
            name.lower(): os.environ[alias]
            for alias, name in ALIASES.items()
            if alias in os.environ and name not in os.environ
        }
        environment.env_vars = {**environment.env_vars, **aliased}
        return (environment, init_settings)

    def group_id_of(self, pipeline: Pipeline) -> str:
        """The consumer group of a pipeline."""
        if pipeline.group_id:
            return pipeline.group_id
        return self.kafka.group_id if len(self.pipelines) == 1 else f"{self.kafka.group_id}-{pipeline.name}"

    @property
    def audit_group_id(self) -> str:
        """The consumer group of `audit run`."""
        return self.audit.group_id or f"{self.kafka.group_id}-audit"

    def identity_of(self, pipeline: Pipeline, slot: int = 0) -> str:
        """What no other live worker may share: the transactional id of a pipeline, and its static member's id.

        slot: which of `worker.processes`, from 0.
        """
        group_id = self.group_id_of(pipeline)
        identity = f"{group_id}-{self.instance_id}-{slot}"
        if [self.group_id_of(other) for other in self.pipelines].count(group_id) > 1:
            identity += f"-{pipeline.name}"  # two pipelines of one group must not fence each other
        return identity

    @property
    def instance_id(self) -> str:
        """What tells this worker from others."""
        return self.worker.instance_id or socket.gethostname()


def _loop(pipelines: tuple[Pipeline, ...]) -> list[str]:
    """Topics through which a record could come back to where it was, or nothing."""
    leads_to: dict[str, set[str]] = {}
    for pipeline in pipelines:
        for topic in pipeline.input_topics:
            leads_to.setdefault(topic, set()).update(
                {
                    pipeline.output_topic,
                    pipeline.dead_letter_topic,
                    pipeline.comparison_topic,
                    *pipeline.monitoring.topics,
                }
            )

    def follow(path: list[str]) -> list[str]:
        for topic in sorted(leads_to.get(path[-1], ())):
            if topic in path:
                return [*path[path.index(topic) :], topic]
            if found := follow([*path, topic]):
                return found
        return []

    return next((found for topic in sorted(leads_to) if (found := follow([topic]))), [])


def settings_text(file: Path) -> str:
    """The content of a settings file. Raises BadSettings if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise BadSettings(f"cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadSettings(f"{file} is not UTF-8: {exc}") from exc


def load_settings(file: Path, text: str | None = None) -> Settings:
    """Settings from a YAML file and the environment. text: the file's content, if it was read before.

    Raises BadSettings naming every field that is wrong, its value and what is allowed.
    """
    _refuse_unknown_environment()
    try:
        content = _EachKeyOnce(settings_text(file) if text is None else text).get_single_data()
    except yaml.YAMLError as exc:
        # the library's own message quotes the line, which may hold a secret
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = re.sub(r"'.{4,}'", "'…'", str(getattr(exc, "problem", type(exc).__name__)))
        raise BadSettings(f"{file} is not valid YAML{where}: {problem}") from None
    if not isinstance(content, dict):
        raise BadSettings(
            f"{file}: expected sections such as `kafka:` and `pipelines:`, found {type(content).__name__}"
        )
    if unknown := sorted(str(key) for key in content if key not in Settings.model_fields):
        raise BadSettings(f"{file}: unknown sections: {', '.join(unknown)}; known: {', '.join(Settings.model_fields)}")
    try:
        return Settings(**_relative_to(file.resolve().parent, content))
    except ValidationError as exc:
        raise BadSettings(_readable(file, exc)) from None  # its text quotes what was found, secrets too
    except SettingsError as exc:
        raise BadSettings(f"the environment: {exc}; lists and sections are written as JSON") from None


def settings_of(content: dict[str, Any]) -> Settings:
    """Settings from this content alone, whatever the environment says. Raises pydantic's ValidationError."""
    return _Embedded(**content)


class _Embedded(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The content only."""
        return (init_settings,)


def _relative_to(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The file's content with its relative paths made absolute."""

    def resolve(name: str, value: Any) -> Any:  # noqa: ANN401 - parsed YAML
        if isinstance(value, dict):
            return {key: resolve(str(key), item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        if name == "directory" or name.endswith("_file"):
            return str(folder / value)
        if name == "store" and value.startswith("file://"):
            return f"file://{folder / value.removeprefix('file://')}"
        return value

    return {key: resolve(str(key), value) for key, value in content.items()}


def _refuse_unknown_environment() -> None:
    known = {name.lower() for name in environment_names()}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.lower() not in known)
    if unknown:
        raise BadSettings(f"unknown environment names: {', '.join(unknown)}")


def environment_names(
    model: type[BaseModel] = Settings, prefix: str = PREFIX
) -> dict[str, tuple[type[BaseModel], str]]:
    """Every environment name that is understood → the section and field it sets."""
    names: dict[str, tuple[type[BaseModel], str]] = {}
    for field_name, info in model.model_fields.items():
        name = prefix + field_name.upper()
        names[name] = (model, field_name)
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= environment_names(kind, name + DELIMITER)
    return names


def _readable(file: Path, errors: ValidationError) -> str:
    lines = []
    for error in errors.errors(include_url=False):
        where = ".".join(str(part) for part in error["loc"]) or "settings"
        value = error.get("input")
        hidden = isinstance(value, (dict, list, tuple)) or error["type"] in _VALUE_NOT_SHOWN
        shown = "" if hidden else f" (found {_masked(where, value)!r})"
        lines.append(f"  {where}: {error['msg'].removeprefix('Value error, ')}{shown}")
    return f"{file} or the environment:\n" + "\n".join(lines)


# Absent, or in a place where no value belongs: a misspelt `pasword:` holds a secret all the same.
_VALUE_NOT_SHOWN = frozenset({"missing", "extra_forbidden", "model_type", "model_attributes_type"})


def _masked(where: str, value: Any) -> Any:  # noqa: ANN401 - any YAML scalar
    secret = any(word in where for word in ("password", "secret", "account_key", "session_token", "keys", "jwt_key"))
    return "…" if secret or "@" in str(value) else value  # user:password@host


class _EachKeyOnce(yaml.SafeLoader):
    """Of a key that is there twice YAML silently takes the last; here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        keys = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in keys:
                raise ConstructorError(None, None, f"the key {key.value} is there twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _without_credentials(url: str | None, instead: str) -> str | None:
    if url is not None and "@" in url:  # it is shown in messages and logs
        raise ValueError(f"credentials belong in {instead}, not in the URL")
    return url
