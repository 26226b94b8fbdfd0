"""The section `serving:` of the settings: where requests come in, who may send them, and how many."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from app.sections import Name, Seconds, Section, WithSecrets, check_file

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Route = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/:-]*$", max_length=200)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^\s/@]+)$", max_length=300)]


class OnlineBatch(Section):
    """How concurrent requests share a batch; a lone one never waits."""

    max_rows: Annotated[int, Field(ge=1, le=100_000)] = Field(
        512, description="1 gives each request a batch of its own"
    )
    max_wait_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        0.002,
        description="How long a request waits for others that have begun to arrive, or while the server's loop is busy",
    )
    slo_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = Field(
        None, description="Instead of max_wait_s: how old a request should be at most when it is answered"
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.slo_s is not None and "max_wait_s" in self.model_fields_set:
            raise ValueError("max_wait_s and slo_s are both set; choose one")
        return self


class Limits(Section):
    """What one client may cost the others."""

    body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = Field(
        4_194_304, description="Of one request, or of one WebSocket message; more is answered with 413"
    )
    request_rows: Count = Field(10_000, description="Rows in one request; more is answered with 413")
    waiting_rows: Count = Field(20_000, description="Rows that wait to be scored; more is answered with 429")
    concurrent_requests: Count = Field(1_024, description="More at the same time are answered with 429")
    open_bytes: Annotated[int, Field(ge=1024, le=1_099_511_627_776)] = Field(
        268_435_456, description="Of all requests that are being received or answered; more is answered with 429"
    )
    connections: Count = Field(
        4_096,
        description="Open at the same time; a new one takes the place of one that waits for a request, else it may ask "
        "for a probe, and is answered with 503",
    )
    receive_s: Seconds = Field(
        10.0,
        description="For a whole request to arrive, and for its client to read some more of the answer; slower "
        "connections are cut",
    )
    idle_s: Seconds = Field(
        60.0, description="How long a connection is kept for its next request, and a gRPC stream for its next message"
    )
    answer_s: Seconds = Field(10.0, description="From a request's arrival to 504")

    @model_validator(mode="after")
    def _one_body_has_room(self) -> Self:
        if self.open_bytes < self.body_bytes:
            raise ValueError(
                f"open_bytes ({self.open_bytes}) is less than body_bytes ({self.body_bytes}): "
                "the largest body would never have room"
            )
        return self


class Access(WithSecrets):
    """Who may ask. Without keys and tokens: everybody for predictions, and nobody for administration."""

    api_keys: SecretStr | None = Field(
        None, description="For predictions, one on each line: `X-API-Key`, or `Authorization: Bearer`"
    )
    api_keys_file: Path | None = None
    admin_keys: SecretStr | None = Field(None, description="For everything, one on each line")
    admin_keys_file: Path | None = None
    open_description: bool = Field(
        default=True, description="Whether `/openapi.json` and `/docs`, which name the model's fields, need no key"
    )
    jwt_key: SecretStr | None = Field(
        None, description="What JSON Web Tokens are verified with: a PEM public key, a JSON Web Key (Set), or a secret"
    )
    jwt_key_file: Path | None = None
    jwt_algorithms: Annotated[
        tuple[Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...],
        Field(min_length=1),
    ] = ("RS256",)
    jwt_issuer: str | None = Field(None, description="Required of the claim `iss`")
    jwt_audience: str | None = Field(None, description="Required to be in the claim `aud`")
    jwt_predict_scope: str | None = Field(None, description="Required in the claim `scope` for predictions")
    jwt_admin_scope: str = Field("inference.admin", description="Required in the claim `scope` for administration")

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        shared = {name for name in self.jwt_algorithms if name.startswith("HS")}
        if shared and shared != set(self.jwt_algorithms):  # a public key must never be taken for a secret
            raise ValueError("jwt_algorithms: HS… (a shared secret) cannot be beside algorithms with a public key")
        return self


class Tls(WithSecrets):
    """HTTPS, when both files are given."""

    cert_file: Path | None = Field(None, description="PEM certificate of this server, with its chain")
    key_file: Path | None = Field(None, description="PEM key of that certificate")
    key_password: SecretStr | None = None
    key_password_file: Path | None = None
    client_ca_file: Path | None = Field(
        None, description="PEM authorities; clients must then show a certificate of theirs"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file are needed together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file")
        for name in ("cert_file", "key_file", "client_ca_file"):
            if (file := getattr(self, name)) is not None:
                check_file(name, file)
        return self


class Grpc(Section):
    """gRPC beside HTTP: the same host, limits, access and certificates."""

    port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        None, description="50051 is usual; 0 takes a free one and logs it; default: no gRPC"
    )
    reflection: bool = Field(default=True, description="Whether clients may ask which services and messages there are")
    connection_age_s: Seconds | None = Field(
        None, description="Older connections are told to reconnect, so that new servers get their share"
    )


class Serving(Section):
    """Requests over HTTP and gRPC: `inference-worker serve`. Models, batches and rollouts are those of `pipelines`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8000, description="0 takes a free one and logs it")
    pipeline: Name | None = Field(None, description="Whose model `/predict` asks; default: the first pipeline's")
    batch: OnlineBatch = OnlineBatch()
    limits: Limits = Limits()
    access: Access = Access()
    tls: Tls = Tls()
    grpc: Grpc = Grpc()
    cors_origins: tuple[Origin, ...] = Field((), description="Of web pages that may ask from a browser; default: none")
    health_route: Route | None = Field(None, description="One more route that answers as `/ping`; Vertex AI names it")
    predict_route: Route | None = Field(
        None, description="One more route that takes `instances` and gives `predictions`; Vertex AI names it"
    )
    drain_delay_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        0.0,
        description="From SIGTERM on, connections are still taken for so long while `/readyz` says 503: until whoever "
        "balances requests has heard of it",
    )
    drain_timeout_s: Seconds = Field(20.0, description="After that, what is being answered may take so long")
