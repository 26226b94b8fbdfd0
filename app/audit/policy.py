"""The settings section `audit:`, beside what it governs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.errors import BadSettings

KEY = "audit_key"  # the column of the record's key
ALL = "*"
SHORTEST_SECRET = 16  # characters; a shorter one can be guessed, and with it every hashed value

MaskMode = Literal["keep", "drop", "hash"]


class AuditSettings(BaseModel):
    """The lasting record of all predictions that `inference-worker audit` keeps and answers from: docs/AUDIT.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str = Field(
        "file://var/audit",
        description="`file://` and a folder, or `s3://`, `gs://`, `az://`, a bucket and a prefix; reached with "
        "models.store_options",
    )
    pipelines: tuple[str, ...] | None = Field(None, description="Names of those that are kept; default: all")
    features: tuple[str, ...] = Field(
        (),
        description="Fields of the events to keep beside their predictions, `*` for all; input_topics are read too",
    )
    group_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)] | None = Field(
        None, description="Consumer group of the sink; default: kafka.group_id with `-audit`"
    )
    file_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        500_000, description="A file is closed at so many rows, at file_bytes, at file_age_s, and at midnight UTC"
    )
    file_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = Field(
        67_108_864, description="Of its columns in memory; on disk it is several times smaller"
    )
    file_age_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        300.0, description="How long a row may wait for its file: what the trail is behind the topic at most"
    )
    memory_budget_bytes: Annotated[int, Field(ge=8_388_608)] = Field(
        268_435_456, description="Rows that wait for their files, of all partitions together; beyond, reading pauses"
    )
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="`audit expire` deletes what is older; default: nothing is"
    )
    mask: dict[str, MaskMode] = Field(
        default_factory=dict,
        description="Field of the prediction, one of `features`, or `audit_key`, to `keep`, `drop` or `hash` "
        "(HMAC-SHA-256 with mask_secret, so that equal values stay equal)",
    )
    mask_secret: SecretStr | None = None
    mask_secret_file: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.mask and KEY not in self.mask:
            raise ValueError(f"mask says nothing of {KEY}, which often holds what a field holds: keep, drop or hash it")
        if self.mask_secret is not None and self.mask_secret_file is not None:
            raise ValueError("mask_secret and mask_secret_file are both set; choose one")
        if "hash" in self.mask.values():
            self._check_secret()
        return self

    def _check_secret(self) -> None:
        try:
            secret = self.secret()
        except BadSettings as exc:
            raise ValueError(str(exc).removeprefix("audit.")) from None
        if secret is None:
            raise ValueError("mask: `hash` needs mask_secret_file (or mask_secret)")
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"mask_secret: at least {SHORTEST_SECRET} characters, or hashes can be guessed")

    def features_of(self, fields: Sequence[str]) -> frozenset[str]:
        """Which of an event's fields are kept."""
        return frozenset(fields if ALL in self.features else set(self.features) & set(fields))

    def secret(self) -> bytes | None:
        """What values are hashed with, if it is set. Raises BadSettings if its file cannot be read."""
        if self.mask_secret is not None:
            return self.mask_secret.get_secret_value().encode()
        if self.mask_secret_file is None:
            return None
        try:
            return self.mask_secret_file.read_bytes().strip()
        except OSError as exc:
            raise BadSettings(f"audit.mask_secret_file: cannot read {self.mask_secret_file}: {exc.strerror}") from exc
