"""The section `serving:` refuses what makes no sense, by name, and shows no secret."""

import pytest
from pydantic import ValidationError

from app.serving.settings import Serving


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"batch": {"slo_s": 0.1, "max_wait_s": 0.1}}, "max_wait_s and slo_s are both set"),
        ({"access": {"jwt_algorithms": ["HS256", "RS256"]}}, "cannot be beside algorithms with a public key"),
        ({"access": {"jwt_algorithms": ["none"]}}, "access.jwt_algorithms.0"),
        ({"access": {"api_keys": "a", "api_keys_file": "b"}}, "api_keys and api_keys_file are both set"),
        ({"access": {"api_keys_file": "/nowhere/keys"}}, "cannot read /nowhere/keys"),
        ({"tls": {"cert_file": "nowhere.pem"}}, "cert_file and key_file are needed together"),
        ({"tls": {"client_ca_file": "nowhere.pem"}}, "client_ca_file needs cert_file and key_file"),
        ({"tls": {"cert_file": "/nowhere/a", "key_file": "/nowhere/b"}}, "cannot read /nowhere/a"),
        ({"cors_origins": ["shop.example"]}, "cors_origins.0"),
        ({"predict_route": "predict"}, "predict_route"),
        ({"limits": {"body_bytes": 0}}, "limits.body_bytes"),
        ({"limits": {"body_bytes": 2000, "open_bytes": 1999}}, "open_bytes (1999) is less than body_bytes (2000)"),
        ({"limits": {"answer_s": float("nan")}}, "limits.answer_s"),
        ({"port": 65536}, "port"),
        ({"hosts": "x"}, "hosts"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(section, said):
    with pytest.raises(ValidationError) as refusal:
        Serving(**section)
    shown = [f"{'.'.join(map(str, error['loc']))} {error['msg']}" for error in refusal.value.errors()]
    assert said in " ".join(shown)


def test_keys_are_never_shown():
    section = Serving(access={"api_keys": "open sesame", "admin_keys": "open sesame", "jwt_key": "open sesame"})
    assert "sesame" not in repr(section)
    assert "sesame" not in section.model_dump_json()
    assert section.access.secret("api_keys") == "open sesame"
