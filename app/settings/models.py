"""The section of the models: their store, how a bucket is reached, and the cache of their answers."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from app.models.store_access import StoreAccess
from app.sections import Name, Seconds, Section, WithSecrets, check_file, without_credentials


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
        return without_credentials(url, "redis_username and redis_password_file")

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
        return without_credentials(url, "access_key_id and secret_access_key_file")

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
    threads_per_run: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Threads of ONNX Runtime for one run in a worker; default: all CPUs that the process may use. With "
        "half of them or fewer, batches of a backlog run side by side: docs/OPERATIONS.md",
    )
    cache: ModelCache = ModelCache()
