"""The sections that say whom we talk to, and as whom: the cluster, and where schemas come from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from app.kafka.client_config import ALLOWED_CLIENT_PROPERTIES
from app.sections import Name, Seconds, Section, WithSecrets, check_file, without_credentials


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
        return without_credentials(url, "oauth_client_id and oauth_client_secret_file")

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
        return without_credentials(url, "registry_username and registry_password_file")

    def password(self) -> str | None:
        """The registry's password."""
        return self.secret("registry_password")
