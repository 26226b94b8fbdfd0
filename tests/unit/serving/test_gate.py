"""Who gets in, and that nothing but a good key or token does."""

import base64
import hmac
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fakes import NOW_MS, ManualClock
from joserfc import jwk, jwt
from rest_world import RestWorld

from app.errors import BadSettings
from app.serving.gate import Gate, TokenPolicy
from app.serving.refusals import NotAllowed

NOW_S = NOW_MS // 1000
SECRET = "a secret of the tests that is long enough"  # pragma: allowlist secret


@pytest.fixture(scope="module")
def rsa_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public.decode()


def signed(private, algorithm="RS256", kind="RSA", **claims):
    page = {"exp": NOW_S + 60, "iss": "issuer", "aud": "inference", "scope": "inference.predict"} | claims
    page = {name: value for name, value in page.items() if value is not None}
    return "Bearer " + jwt.encode({"alg": algorithm}, page, jwk.JWKRegistry.import_key(private, kind))


def gate_for(public, **changes):
    options = {"issuer": "issuer", "audience": "inference", "predict_scope": "inference.predict"} | changes
    return Gate([], [], TokenPolicy(public, **options), ManualClock())


def test_without_keys_and_tokens_everybody_may_ask_and_nobody_may_administrate():
    gate = Gate([], [], None, ManualClock())
    gate.admit(None, None)
    with pytest.raises(NotAllowed, match="administration is off"):
        gate.admit_admin(None, "anything")


@pytest.mark.parametrize(
    ("authorization", "key"), [(None, "caller"), ("Bearer caller", None), ("bearer caller", None), (None, "boss")]
)
def test_a_key_is_taken_from_either_header(authorization, key):
    Gate(["caller"], ["boss"], None, ManualClock()).admit(authorization, key)


@pytest.mark.parametrize(
    ("authorization", "key"),
    [(None, None), ("", ""), (None, "Caller"), ("Basic caller", None), ("caller", None), (None, "x" * 1_000_000)],
)
def test_anything_else_is_not(authorization, key):
    with pytest.raises(NotAllowed) as refusal:
        Gate(["caller"], ["boss"], None, ManualClock()).admit(authorization, key)
    assert not refusal.value.known
    assert "caller" not in str(refusal.value)


def test_a_callers_key_is_known_and_does_not_administrate():
    gate = Gate(["caller"], ["boss"], None, ManualClock())
    gate.admit_admin(None, "boss")
    with pytest.raises(NotAllowed) as refusal:
        gate.admit_admin(None, "caller")
    assert refusal.value.known


def test_a_good_token_is_let_in_as_far_as_its_scope_goes(rsa_key):
    private, public = rsa_key
    gate = gate_for(public)
    gate.admit(signed(private), None)
    gate.admit_admin(signed(private, scope="inference.predict inference.admin"), None)
    with pytest.raises(NotAllowed) as refusal:
        gate.admit_admin(signed(private), None)
    assert refusal.value.known


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S - 60},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW_S + 600},
        {"iss": "other"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"scope": "other"},
        {"scope": None},
        {"scope": 5},
    ],
    ids=str,
)
def test_a_token_that_is_not_all_right_is_refused(rsa_key, claims):
    private, public = rsa_key
    with pytest.raises((NotAllowed, TypeError)) as refusal:
        gate_for(public).admit(signed(private, **claims), None)
    assert refusal.type is NotAllowed


def test_tokens_signed_otherwise_are_refused(rsa_key):
    private, public = rsa_key
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    head, _, tail = signed(private).rpartition(".")
    none = "eyJhbGciOiJub25lIn0." + signed(private).split(".")[1] + "."
    forged = [signed(other.decode()), f"{head}.{tail[::-1]}", f"{head}.", f"Bearer {none}", "Bearer a.b.c", "Bearer .."]
    for gate in (gate_for(public), gate_for(public, predict_scope=None)):  # without a scope it is verified all the same
        for token in forged:
            with pytest.raises(NotAllowed):
                gate.admit(token, None)


def test_a_public_key_is_never_taken_for_a_secret(rsa_key):
    _, public = rsa_key
    claims = {"exp": NOW_S + 60, "iss": "issuer", "aud": "inference", "scope": "inference.predict"}
    parts = [base64.urlsafe_b64encode(json.dumps(page).encode()).rstrip(b"=") for page in ({"alg": "HS256"}, claims)]
    mac = hmac.digest(public.strip().encode(), b".".join(parts), "sha256")
    token = b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    with pytest.raises(NotAllowed):
        gate_for(public).admit(f"Bearer {token}", None)


def test_a_secret_and_a_key_set_will_do_as_well(rsa_key):
    private, public = rsa_key
    gate_for(SECRET, algorithms=("HS256",)).admit(signed(SECRET, "HS256", "oct"), None)
    page = jwk.KeySet([jwk.RSAKey.import_key(public, {"kid": "1"})]).as_dict()

    token = jwt.encode(
        {"alg": "RS256", "kid": "1"},
        {"exp": NOW_S + 60, "iss": "issuer", "aud": "inference", "scope": "inference.predict"},
        jwk.RSAKey.import_key(private),
    )
    gate_for(json.dumps(page)).admit(f"Bearer {token}", None)


@pytest.mark.parametrize("key", ["no PEM", "{", '{"keys": 5}', '{"kty": "RSA"}'])
def test_a_key_that_is_none_is_told_at_start(key):
    with pytest.raises(BadSettings, match=r"serving\.access\.jwt_key"):
        gate_for(key)


def test_every_route_that_predicts_asks_for_the_key_and_no_probe_does():
    with RestWorld(gate=Gate(["caller"], ["boss"], None, ManualClock())) as world:
        posts = ["/predict", "/predict/batch", "/batch_predict", "/invocations", "/v1/models/churn:predict",
                 "/v1/models/churn/versions/7:predict", "/v2/models/churn/infer", "/model/reload"]  # fmt: skip
        gets = ["/model/info", "/v1/models/churn", "/v1/models/churn/metadata", "/v2/models/churn"]
        answers = [world.post(path, {}) for path in posts] + [world.get(path) for path in gets]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
        with_key = [world.get(path, headers={"x-api-key": "caller"}).status_code for path in gets]
        assert with_key == [200] * 4
        assert world.post("/model/reload", headers={"x-api-key": "caller"}).status_code == 403
        probes = ["/health", "/livez", "/readyz", "/metrics", "/ping", "/v2", "/v2/health/live", "/v2/health/ready"]
        assert {world.get(path).status_code for path in probes} == {200}
