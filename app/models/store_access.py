"""How a bucket is reached: what the settings say, in the client library's words.

What is not said here, the library takes from the environment that the clouds' own tools use (AWS_ACCESS_KEY_ID,
AWS_REGION, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME …) and then from the machine's own role.
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from app.errors import BadSettings

Scheme = Literal["s3", "gs", "az"]
SCHEMES: tuple[Scheme, ...] = ("s3", "gs", "az")

CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=20)  # between two pieces of an answer: a large model may take as long as it moves
REQUEST_TIMEOUT = timedelta(minutes=10)  # 1 GiB at 2 MB/s
# A worker starts without a store no sooner than this says so; a dead server is one message after about 5 s.
RETRIES: dict[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """What the settings say about the bucket; None is left to the environment. Secrets do not show in its repr."""

    endpoint: str | None = None
    region: str | None = None
    allow_http: bool = False
    ca_file: Path | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    service_account_file: Path | None = None
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)


# Which of them each cloud knows, and what the library calls those that it names otherwise.
_KNOWN: dict[Scheme, tuple[str, ...]] = {
    "s3": ("endpoint", "region", "access_key_id", "secret_access_key", "session_token"),
    "gs": ("endpoint", "service_account_file"),
    "az": ("endpoint", "account_name", "account_key"),
}
_RENAMED = {("gs", "endpoint"): "base_url", ("gs", "service_account_file"): "service_account"}
_FOR_ALL = ("allow_http", "ca_file")


def open_bucket(url: str, scheme: Scheme, access: StoreAccess) -> ObjectStore:
    """The bucket at `url`; nothing is asked of it yet. Raises BadSettings for what this cloud does not know."""
    known = _KNOWN[scheme]
    given = {name: value for name in StoreAccess.__dataclass_fields__ if (value := getattr(access, name))}
    if unknown := sorted(given.keys() - set(known) - set(_FOR_ALL)):
        raise BadSettings(
            f"models.store_options: {', '.join(unknown)} mean nothing to {scheme}://, which knows {', '.join(known)}"
        )
    config: Any = {_RENAMED.get((scheme, name), name): str(value) for name, value in given.items() if name in known}
    client: Any = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT, "timeout": REQUEST_TIMEOUT}
    # the library reads the environment for us, but forgets this one name as soon as it is given time-outs
    if access.allow_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"true", "1"}:
        client["allow_http"] = True
    if access.ca_file is not None:
        client["root_certificate"] = access.ca_file.read_bytes()
    kinds: dict[Scheme, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    try:
        opened: ObjectStore = kinds[scheme].from_url(url, config=config, client_options=client, retry_config=RETRIES)
    except (BaseError, ValueError) as exc:
        reason = str(exc).partition("\n")[0]
        raise BadSettings(f"models.store: {url!r} with its options cannot be opened: {reason}") from exc
    return opened
