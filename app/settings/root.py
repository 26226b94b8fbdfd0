"""All sections as one, which the environment overrides, and what they have to agree on.

Every name has its environment name, `INFERENCE_…` and the path with `__`; a few that other tools use already are
understood as well.
"""

import os
import socket
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.audit.policy import AuditSettings
from app.lag.lag_settings import LagSettings
from app.monitor.monitor_settings import MonitorSettings
from app.observe.tracing_settings import TracingSettings
from app.sections import Name, Seconds, Section
from app.serving.settings import Serving
from app.settings.connections import Kafka, Schemas
from app.settings.models import Models
from app.settings.pipelines import Pipeline, topic_loop

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
    drain_timeout_s: Seconds = Field(
        20.0, description="From SIGTERM to exit 3; keep it 10 s below the pod's grace period"
    )


class Delivery(Section):
    """What is promised, and how often it is made durable."""

    mode: Literal["exactly_once", "at_least_once"] = "exactly_once"
    commit_interval_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.1
    transaction_timeout_s: Annotated[float, Field(ge=1, le=900, allow_inf_nan=False)] = 10.0
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "none"


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
    tracing: TracingSettings = TracingSettings()

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
        if loop := topic_loop(self.pipelines):
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
