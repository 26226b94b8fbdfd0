"""From settings to a bucket: what each cloud knows, what is refused, and what never shows."""

from pathlib import Path

import pytest
import yaml
from fakes import PIPELINE

from app.errors import BadSettings
from app.models.model_store import open_store
from app.models.store_access import StoreAccess, open_bucket
from app.settings.reading import load_settings

CANARY = "c4n4ry-53cr3t"
KEY = "eA=="  # base64, or the library refuses it


@pytest.fixture
def settings(tmp_path):
    def make(**store_options):
        file = tmp_path / "worker.yaml"
        models = {"store": "s3://models/production", "store_options": store_options}
        file.write_text(yaml.safe_dump({"pipelines": [PIPELINE], "models": models}))
        return load_settings(file)

    return make


@pytest.mark.parametrize(
    ("url", "access", "kind"),
    [
        ("s3://bucket/prefix", StoreAccess(), "S3Store"),
        ("s3://bucket", StoreAccess(region="eu-west-1", access_key_id="me", secret_access_key="x"), "S3Store"),
        ("gs://bucket/prefix", StoreAccess(), "GCSStore"),
        ("az://container/prefix", StoreAccess(account_name="me", account_key=KEY), "AzureStore"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_cloud_is_opened_and_nothing_is_asked_of_it(url, access, kind):
    scheme = url.partition(":")[0]
    assert type(open_bucket(url, scheme, access)).__name__ == kind
    assert open_store(url, Path("/"), access=access).url == url


@pytest.mark.parametrize(
    ("url", "access", "message"),
    [
        (
            "gs://bucket",
            StoreAccess(region="eu"),
            r"region mean nothing to gs://, which knows endpoint, service_account",
        ),
        ("s3://bucket", StoreAccess(account_name="me"), "account_name mean nothing to s3://"),
        ("az://container", StoreAccess(access_key_id="me"), "access_key_id mean nothing to az://"),
        ("az://container", StoreAccess(), "cannot be opened: .*Account must be specified"),
        ("s3://", StoreAccess(), "cannot be opened"),
        ("s3:///prefix", StoreAccess(), "cannot be opened"),
        ("file2://x", StoreAccess(), "has the scheme 'file2', allowed are file://, s3://, gs://, az://"),
        ("S3://bucket", StoreAccess(), "has the scheme 'S3'"),
        ("http://bucket", StoreAccess(), "has the scheme 'http'"),
    ],
)
def test_what_a_cloud_does_not_know_is_refused_by_name(url, access, message, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(BadSettings, match=message):
        open_store(url, Path("/"), access=access)


def test_settings_reach_the_store(settings, tmp_path):
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    access = settings(
        endpoint="http://127.0.0.1:9000",
        allow_http=True,
        region="us-east-1",
        access_key_id="me",
        secret_access_key_file="secret",  # pragma: allowlist secret
    ).models.store_options.access()
    assert access == StoreAccess(
        endpoint="http://127.0.0.1:9000",
        allow_http=True,
        region="us-east-1",
        access_key_id="me",
        secret_access_key=CANARY,
    )


def test_secrets_do_not_show(settings):
    found = settings(access_key_id="me", secret_access_key=CANARY, session_token=CANARY, account_key=CANARY)
    assert CANARY not in repr(found)
    assert CANARY not in found.model_dump_json()
    assert CANARY not in repr(found.models.store_options.access())


def test_secrets_come_from_the_environment_too(settings, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS__STORE_OPTIONS__ACCESS_KEY_ID", "me")
    monkeypatch.setenv("INFERENCE_MODELS__STORE_OPTIONS__SECRET_ACCESS_KEY", CANARY)
    assert settings().models.store_options.access().secret_access_key == CANARY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"access_key_id": "me"}, "are needed together"),
        ({"secret_access_key": CANARY}, "are needed together"),
        ({"endpoint": "http://127.0.0.1:9000"}, "nothing would be encrypted; set allow_http"),
        ({"endpoint": f"https://me:{CANARY}@host"}, "credentials belong in access_key_id"),
        ({"secret_access_key": CANARY, "secret_access_key_file": "x", "access_key_id": "me"}, "choose one"),
        ({"access_key_id": "me", "secret_access_key_file": "none"}, "cannot read"),
        ({"ca_file": "none"}, "cannot read"),
        ({"service_account_file": "none"}, "cannot read"),
        ({"bucket": "x"}, "store_options.bucket: Extra inputs are not permitted"),
        ({"account_key": ["x", CANARY]}, "account_key"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_by_name(settings, options, message):
    with pytest.raises(BadSettings, match=message) as refused:
        settings(**options)
    assert CANARY not in str(refused.value)
