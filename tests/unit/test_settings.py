"""Settings say what is wrong by field and value, know no unknown names, and show no secret."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from app.errors import BadSettings
from app.kafka.client_config import ALLOWED_CLIENT_PROPERTIES, ClientPolicy
from app.settings.reading import environment_names, load_settings, settings_of

CONTRACT = """
kafka:
  bootstrap_servers: "127.0.0.1:9092"
  group_id: churn-workers
  group_protocol: classic              # or consumer
  session_timeout_s: 10
  start_from: earliest
  security: {protocol: PLAINTEXT}
  client: {}
worker: {instance_id: null, static_membership: false, processes: 1, memory_budget_bytes: 134217728, drain_timeout_s: 20}
schemas: {registry_url: null, directory: schemas, auto_register: false}
pipelines:
  - name: churn
    input_topics: [churn.events]
    output_topic: churn.predictions
    dead_letter_topic: churn.dead-letters
    model: churn
    output_partitioning: source
    batch: {max_records: 512, max_bytes: 4194304, max_wait_s: 0.01, slo_s: null}
    dead_letter_limit: {records: 1000, window_s: 60}
delivery: {mode: exactly_once, commit_interval_s: 0.1, transaction_timeout_s: 10, compression: none}
models: {store: "file://var/models", rollout_poll_s: 2}
http: {host: 127.0.0.1, port: 8080}
log: {level: info, format: console}
"""
CANARY = "c4n4ry-53cr3t"


def pipeline(name="churn", inputs=("in",), output="out", dead="dead", **more):
    return {"name": name, "input_topics": list(inputs), "output_topic": output, "dead_letter_topic": dead,
            "model": "churn"} | more  # fmt: skip


MINIMAL = {"pipelines": [pipeline()]}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("INFERENCE_") or name in {
            "KAFKA_BOOTSTRAP_SERVERS",
            "KAFKA_GROUP_ID",
            "SCHEMA_REGISTRY_URL",
        }:
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path):
    def load_text(content):
        file = tmp_path / "worker.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return load_settings(file)

    return load_text


def refused(load, content) -> str:
    with pytest.raises(BadSettings) as caught:
        load(content)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None or CANARY not in str(caught.value.__cause__)
    return str(caught.value)


def test_the_whole_contract_loads(load, tmp_path):
    settings = load(CONTRACT)
    assert settings.kafka.group_id == "churn-workers"
    assert settings.pipelines[0].batch.max_wait_s == 0.01
    assert settings.schemas.directory == tmp_path / "schemas"
    assert settings.models.store == f"file://{tmp_path}/var/models"
    assert settings.delivery.mode == "exactly_once"


def test_the_contract_states_the_defaults(load):
    minimal = {"kafka": {"group_id": "churn-workers"}}
    minimal["pipelines"] = [pipeline("churn", ["churn.events"], "churn.predictions", "churn.dead-letters")]
    defaults, contract = load(minimal).model_dump(), load(CONTRACT).model_dump()
    for section, where in (("schemas", "directory"), ("models", "store")):  # the file's are relative to the file
        defaults[section].pop(where)
        contract[section].pop(where)
    assert defaults == contract


def test_the_deployed_pipelines_load():
    files = sorted((Path(__file__).parents[2] / "deploy").rglob("pipelines/*.yaml"))
    assert all(load_settings(file).pipelines for file in files)


def test_absolute_paths_and_stores_elsewhere_are_left_alone(load):
    content = MINIMAL | {"models": {"store": "file:///srv/models"}, "schemas": {"directory": "/srv/schemas"}}
    settings = load(content)
    assert (settings.models.store, settings.schemas.directory) == ("file:///srv/models", Path("/srv/schemas"))
    assert load(MINIMAL | {"models": {"store": "s3://bucket/models"}}).models.store == "s3://bucket/models"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kafca": {}} | MINIMAL, "unknown sections: kafca; known: kafka, worker"),
        ({1: {}} | MINIMAL, "unknown sections: 1"),
        ({"_env_file": "x"} | MINIMAL, "unknown sections: _env_file"),
        (MINIMAL | {"kafka": {"group": "x"}}, "kafka.group: Extra inputs are not permitted"),
        (MINIMAL | {"kafka": {"security": {"pasword": CANARY}}}, "kafka.security.pasword: Extra inputs"),
        ({"pipelines": [pipeline(batch={"max_record": 1})]}, "pipelines.0.batch.max_record: Extra inputs"),
        ({"pipelines": [pipeline(batch={"max_records": 0})]}, "pipelines.0.batch.max_records: .* (found 0)"),
        ({"pipelines": [pipeline(batch={"max_records": "many"})]}, "max_records: .*integer.* (found 'many')"),
        ({"pipelines": [pipeline(batch={"max_wait_s": float("inf")})]}, "max_wait_s: .* (found inf)"),
        ({"pipelines": [pipeline(batch={"slo_s": 0})]}, "slo_s: .*greater than 0.*"),
        ({"pipelines": [pipeline(batch={"slo_s": 0.1, "max_wait_s": 0.01})]}, ".*max_wait_s and slo_s are both set.*"),
        ({"pipelines": [pipeline(inputs=[])]}, "input_topics: .*at least 1"),
        ({"pipelines": [pipeline(inputs=["a b"])]}, "input_topics.0: .* (found 'a b')"),
        ({"pipelines": []}, "pipelines: .*at least 1"),
        ({}, "pipelines: Field required"),
        (MINIMAL | {"delivery": {"mode": "at_most_once"}}, "delivery.mode: .*'exactly_once' or 'at_least_once'.*"),
        (MINIMAL | {"delivery": {"acks": "7x"}}, "delivery.acks: Extra inputs"),
        (MINIMAL | {"http": {"port": 70_000}}, "http.port: .* (found 70000)"),
        (MINIMAL | {"worker": {"processes": 0}}, "worker.processes: .* (found 0)"),
        (MINIMAL | {"worker": {"processes": 65}}, "worker.processes: .* (found 65)"),
        (MINIMAL | {"worker": {"drain_timeout_s": -1}}, "worker.drain_timeout_s: .* (found -1)"),
        (MINIMAL | {"log": "debug"}, "log: .*"),
        (MINIMAL | {"kafka": {"security": CANARY}}, "kafka.security: .*"),
        (MINIMAL | {"kafka": {"client": {"acks": 0}}}, "kafka.client: acks may not be set; allowed are .*linger.ms"),
        (MINIMAL | {"kafka": {"client": {"sasl.password": CANARY}}}, "kafka.client: sasl.password may not be set"),
        (MINIMAL | {"kafka": {"client": {"sasl.password": [CANARY]}}}, "kafka.client.sasl.password"),
        (MINIMAL | {"kafka": {"security": {"password": 12345}}}, "kafka.security.password: .*(found '…')"),
        (MINIMAL | {"kafka": {"security": {"protocol": "SASL_SSL"}}}, "kafka.security: protocol SASL_SSL needs a mech"),
        (MINIMAL | {"kafka": {"security": {"mechanism": "PLAIN"}}}, "mechanism PLAIN needs protocol SASL_SSL"),
        (
            MINIMAL | {"kafka": {"security": {"protocol": "SASL_SSL", "mechanism": "PLAIN", "password": CANARY}}},
            "mechanism PLAIN needs a username",
        ),
        (
            MINIMAL | {"kafka": {"security": {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER"}}},
            "needs oauth_token_url and oauth_client_id",
        ),
        (MINIMAL | {"schemas": {"registry_url": f"http://me:{CANARY}@registry"}}, "credentials belong in registry_us"),
        (
            MINIMAL | {"kafka": {"group_protocol": "consumer"}, "worker": {"static_membership": True}},
            "static_membership needs kafka.group_protocol classic",
        ),
        ([1], "expected sections such as `kafka:`.*found list"),
        ("", "expected sections .*found NoneType"),
    ],
)
def test_a_bad_setting_is_named_with_its_field_and_value(load, content, message):
    found = refused(load, content)
    assert all(part in found for part in message.split(".*")), found


@pytest.mark.parametrize(
    ("pipelines", "message"),
    [
        ([pipeline(output="in")], "input, output and dead-letter topics must all be different"),
        ([pipeline(dead="in")], "input, output and dead-letter topics must all be different"),
        ([pipeline(dead="out")], "input, output and dead-letter topics must all be different"),
        ([pipeline("a"), pipeline("a", ["x"])], "two pipelines are named a"),
        (
            [pipeline("a", ["in", "x"], group_id="g"), pipeline("b", ["y", "in"], group_id="g")],
            "pipelines a and b read topic in in the same group g: each would get half of it",
        ),
        ([pipeline("a", ["x"], "y"), pipeline("b", ["y"], "x")], "round for ever through the topics x -> y -> x"),
        (
            [pipeline("a", ["x"], "y"), pipeline("b", ["y"], "z"), pipeline("c", ["z"], "o", "x")],
            "round for ever through the topics x -> y -> z -> x",
        ),
    ],
)
def test_pipelines_that_would_get_in_each_others_way_are_refused(load, pipelines, message):
    assert message in refused(load, {"pipelines": pipelines})


def test_pipelines_may_share_topics_where_that_does_no_harm(load):
    settings = load({"pipelines": [pipeline("a"), pipeline("b"), pipeline("c", ["out"], "final")]})
    assert [settings.group_id_of(one) for one in settings.pipelines] == [
        "inference-workers-a",
        "inference-workers-b",
        "inference-workers-c",
    ]


def test_a_single_pipeline_uses_the_group_as_it_is_unless_it_names_its_own(load):
    settings = load(MINIMAL | {"kafka": {"group_id": "g"}})
    assert settings.group_id_of(settings.pipelines[0]) == "g"
    own = load({"pipelines": [pipeline(group_id="mine")]})
    assert own.group_id_of(own.pipelines[0]) == "mine"


def test_the_instance_is_the_host_unless_named(load):
    assert load(MINIMAL).instance_id
    assert load(MINIMAL | {"worker": {"instance_id": "w-0"}}).instance_id == "w-0"


# ------------------------------------------------------------------------------------------ environment


def test_the_environment_wins_over_the_file_and_leaves_its_neighbours(load, monkeypatch):
    monkeypatch.setenv("INFERENCE_KAFKA__GROUP_ID", "from-environment")
    monkeypatch.setenv("INFERENCE_KAFKA__SECURITY__USERNAME", "me")
    monkeypatch.setenv("INFERENCE_HTTP__PORT", "0")
    monkeypatch.setenv("INFERENCE_WORKER__STATIC_MEMBERSHIP", "true")
    settings = load(MINIMAL | {"kafka": {"group_id": "file", "bootstrap_servers": "b:1", "session_timeout_s": 6}})
    assert (settings.kafka.group_id, settings.kafka.bootstrap_servers) == ("from-environment", "b:1")
    assert (settings.kafka.session_timeout_s, settings.kafka.security.username) == (6, "me")
    assert (settings.http.port, settings.worker.static_membership) == (0, True)


def test_lists_and_maps_come_as_json(load, monkeypatch):
    monkeypatch.setenv("INFERENCE_PIPELINES", json.dumps([pipeline("other")]))
    monkeypatch.setenv("INFERENCE_KAFKA__CLIENT", '{"linger.ms": 5}')
    settings = load(MINIMAL)
    assert [one.name for one in settings.pipelines] == ["other"]
    assert settings.kafka.client == {"linger.ms": 5}


@pytest.mark.parametrize("name", ["INFERENCE_PIPELINES", "INFERENCE_KAFKA", "INFERENCE_KAFKA__CLIENT"])
def test_json_that_is_none_is_named_and_not_shown(load, monkeypatch, name):
    monkeypatch.setenv(name, f"[{CANARY}")
    message = refused(load, MINIMAL)
    assert name.split("_")[1].lower() in message
    assert "JSON" in message


@pytest.mark.parametrize(
    "name",
    ["INFERENCE_KAFKA__GROUPID", "INFERENCE_KAFKA_GROUP_ID", "INFERENCE_FOO", "INFERENCE_PIPELINES__0__NAME",
     "inference_foo", "INFERENCE_KAFKA__CLIENT__LINGER"],
)  # fmt: skip
def test_an_environment_name_that_nobody_knows_is_refused(load, monkeypatch, name):
    monkeypatch.setenv(name, CANARY)
    assert f"unknown environment names: {name}" in refused(load, MINIMAL)


def test_every_environment_name_is_known(load, monkeypatch):
    assert {"INFERENCE_KAFKA__SECURITY__PASSWORD_FILE", "INFERENCE_LOG__LEVEL", "INFERENCE_PIPELINES"} <= set(
        environment_names()
    )
    monkeypatch.setenv("INFERENCE_LOG__LEVEL", "debug")
    assert load(MINIMAL).log.level == "debug"


def test_common_names_are_accepted_and_the_prefixed_ones_win(load, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "alias:1")
    monkeypatch.setenv("KAFKA_GROUP_ID", "alias-group")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://alias")
    monkeypatch.setenv("INFERENCE_KAFKA__GROUP_ID", "prefixed")
    settings = load(MINIMAL | {"kafka": {"bootstrap_servers": "file:1"}})
    assert settings.kafka.bootstrap_servers == "alias:1"
    assert settings.kafka.group_id == "prefixed"
    assert settings.schemas.registry_url == "http://alias"


def test_a_bad_value_in_the_environment_is_named_as_well(load, monkeypatch):
    monkeypatch.setenv("INFERENCE_HTTP__PORT", "eighty")
    assert "http.port" in refused(load, MINIMAL)


def test_embedded_settings_ignore_the_environment(monkeypatch):
    monkeypatch.setenv("INFERENCE_HTTP__PORT", "1")
    monkeypatch.setenv("KAFKA_GROUP_ID", "alias")
    settings = settings_of(MINIMAL)
    assert (settings.http.port, settings.kafka.group_id) == (8080, "inference-workers")


# ------------------------------------------------------------------------------------------ files and secrets


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadSettings, match=r"cannot read .*absent.yaml: No such file"):
        load_settings(tmp_path / "absent.yaml")
    with pytest.raises(BadSettings, match="Is a directory"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        f'kafka: {{security: {{password: "{CANARY}}}}}',
        f"kafka:\n  security:\n    password: {CANARY}: {CANARY}\n",
        f"kafka: [{CANARY}",
        f"password: *{CANARY}",
        "a: \x00",
    ],
)
def test_what_is_no_yaml_is_refused_without_quoting_it(load, text):
    assert "is not valid YAML" in refused(load, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "worker.yaml").write_bytes(b"kafka: \xff")
    with pytest.raises(BadSettings, match="is not UTF-8"):
        load_settings(tmp_path / "worker.yaml")


SASL = {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "me"}


def test_a_secret_is_read_from_its_file_next_to_the_settings(load, tmp_path):
    (tmp_path / "password.txt").write_text(f"{CANARY}\n", encoding="utf-8")
    (tmp_path / "registry.txt").write_text(CANARY, encoding="utf-8")
    settings = load(
        MINIMAL
        | {
            "kafka": {"security": SASL | {"password_file": "password.txt"}},  # pragma: allowlist secret
            "schemas": {
                "registry_url": "http://r",
                "registry_password_file": "registry.txt",  # pragma: allowlist secret
            },
        }
    )
    assert settings.kafka.security.properties() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": CANARY,
    }
    assert settings.schemas.password() == CANARY


def test_a_secret_from_the_environment_never_shows(load, monkeypatch):
    for name in (
        "KAFKA__SECURITY__PASSWORD",
        "KAFKA__SECURITY__KEY_PASSWORD",
        "KAFKA__SECURITY__OAUTH_CLIENT_SECRET",
        "SCHEMAS__REGISTRY_PASSWORD",
    ):
        monkeypatch.setenv(f"INFERENCE_{name}", CANARY)
    settings = load(MINIMAL | {"kafka": {"security": SASL}})
    for text in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert CANARY not in text
    properties = settings.kafka.security.properties()
    assert properties["sasl.password"] == properties["ssl.key.password"] == CANARY
    assert CANARY not in repr(ClientPolicy("b:1", "id", properties))


def test_a_secret_never_shows_beside_another_fields_error(load):
    message = refused(
        load, MINIMAL | {"kafka": {"security": SASL | {"password": CANARY, "protocol": "SASL"}}, "http": {"port": -1}}
    )
    assert "kafka.security.protocol" in message
    assert "http.port" in message


@pytest.mark.parametrize("name", ["password", "key_password", "oauth_client_secret"])
def test_a_secret_and_its_file_may_not_both_be_given(load, tmp_path, name):
    (tmp_path / "secret").write_text(CANARY, encoding="utf-8")
    message = refused(load, MINIMAL | {"kafka": {"security": SASL | {name: CANARY, f"{name}_file": "secret"}}})
    assert f"kafka.security: {name} and {name}_file are both set; choose one" in message


def test_a_secret_from_the_environment_and_one_from_a_file_are_two(load, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(CANARY, encoding="utf-8")
    monkeypatch.setenv("INFERENCE_SCHEMAS__REGISTRY_PASSWORD", CANARY)
    message = refused(load, MINIMAL | {"schemas": {"registry_password_file": "secret"}})
    assert "schemas: registry_password and registry_password_file are both set" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"", "is empty"), (b" \n", "is empty"), (CANARY.encode() + b"\xff", "is not UTF-8 text")],
)
@pytest.mark.parametrize("name", ["password_file", "key_password_file", "oauth_client_secret_file"])
def test_a_secret_file_without_a_secret_is_named(load, tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    message = refused(load, MINIMAL | {"kafka": {"security": SASL | {name: "secret"}}})
    assert f"kafka.security: {name}: " in message
    assert str(tmp_path / "secret") in message
    assert problem in message


def test_a_secret_file_that_vanishes_after_the_settings_were_read_is_named(load, tmp_path):
    (tmp_path / "secret").write_text(CANARY, encoding="utf-8")
    settings = load(MINIMAL | {"schemas": {"registry_password_file": "secret"}})
    (tmp_path / "secret").unlink()
    with pytest.raises(BadSettings, match=r"registry_password_file: cannot read .*secret: No such file"):
        settings.schemas.password()


@pytest.fixture
def pem_files(tmp_path):
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("-----BEGIN …", encoding="utf-8")


def test_tls_and_oauth_become_librdkafka_properties(load, tmp_path, pem_files):
    security = {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER", "oauth_token_url": "https://t",
                "oauth_client_id": "id", "oauth_client_secret": CANARY, "oauth_scope": "kafka",
                "oauth_ca_file": "ca.pem", "ca_file": "ca.pem", "cert_file": str(tmp_path / "cert.pem"),
                "key_file": "key.pem"}  # fmt: skip
    assert load(MINIMAL | {"kafka": {"security": security}}).kafka.security.properties() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://t",
        "sasl.oauthbearer.client.id": "id",
        "sasl.oauthbearer.client.secret": CANARY,
        "sasl.oauthbearer.scope": "kafka",
        "https.ca.location": str(tmp_path / "ca.pem"),
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "ssl.certificate.location": str(tmp_path / "cert.pem"),
        "ssl.key.location": str(tmp_path / "key.pem"),
    }


@pytest.mark.parametrize(
    ("security", "message"),
    [
        ({"protocol": "SSL", "key_file": "key.pem"}, "cert_file and key_file are needed together"),
        ({"protocol": "SSL", "cert_file": "cert.pem"}, "cert_file and key_file are needed together"),
        ({"protocol": "SSL", "ca_file": "absent.pem"}, "ca_file: cannot read "),
        ({"protocol": "SSL", "ca_file": "."}, "ca_file: cannot read "),
        ({"protocol": "SSL", "cert_file": "absent.pem", "key_file": "key.pem"}, "cert_file: cannot read "),
        ({"protocol": "SSL", "cert_file": "cert.pem", "key_file": "absent.pem"}, "key_file: cannot read "),
        ({"ca_file": "ca.pem"}, "ca_file is of no use with protocol PLAINTEXT, which does not encrypt"),
        (
            {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", "username": "me", "ca_file": "ca.pem"},
            "ca_file is of no use with protocol SASL_PLAINTEXT",
        ),
        ({"oauth_token_url": f"https://me:{CANARY}@issuer"}, "credentials belong in oauth_client_id and"),
    ],
)
def test_tls_settings_that_cannot_work_are_refused_when_they_load(load, pem_files, security, message):
    found = refused(load, MINIMAL | {"kafka": {"security": security}})
    assert "kafka.security" in found
    assert message in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kafka: {group_id: a}\nkafka: {group_id: b}\n", "line 2, column 1: the key kafka is there twice"),
        ("kafka:\n  group_id: a\n  group_id: b\n", "line 3, column 3: the key group_id is there twice"),
        (f"kafka: {{security: {{password: {CANARY}, password: {CANARY}}}}}", "line 1, column"),
        ("pipelines:\n- {name: a, model: x,\n   name: b}\n", "line 3, column 4: the key name is there twice"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_its_line(load, text, problem):
    message = refused(load, text)
    assert problem in message
    assert "twice" in message


# ------------------------------------------------------------------------------------------ client properties


def test_allowed_client_properties_pass(load):
    client = {"linger.ms": 5, "client.rack": "a", "socket.keepalive.enable": True}
    assert load(MINIMAL | {"kafka": {"client": client}}).kafka.client == client


@pytest.mark.parametrize(
    "name",
    ["plugin.library.paths", "ssl.engine.location", "enable.auto.commit", "acks", "isolation.level", "sasl.password",
     "transactional.id", "group.id", "log_cb", "debug", "test.mock.num.brokers", "linger.ms ", "ssl.engine.id",
     "ssl.ca.location", "ssl.providers", "enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm",
     "security.protocol", "statistics.interval.ms", "logger", "oauth_cb", "sasl.oauthbearer.config",
     "https.ca.location", "offset.store.path", "PLUGIN.LIBRARY.PATHS"],
)  # fmt: skip
def test_other_client_properties_are_refused_wherever_they_come_from(load, name):
    assert name not in ALLOWED_CLIENT_PROPERTIES
    assert f"{name} may not be set" in refused(load, MINIMAL | {"kafka": {"client": {name: "x"}}})
    with pytest.raises(BadSettings, match="may not be set"):
        ClientPolicy("b:1", "id", extra={name: "x"})


def test_nothing_that_is_allowed_loads_code_or_touches_credentials_and_promises():
    words = ("plugin", "engine", "library", "path", "ssl", "sasl", "security", "https", "cb", "commit", "isolation",
             "acks", "idempotence", "transactional", "offset", "group.", "debug")  # fmt: skip
    assert [name for name in ALLOWED_CLIENT_PROPERTIES if any(word in name for word in words)] == []


# ------------------------------------------------------------------------------------------ docs/SECURITY.md


SECURITY_PAGE = (Path(__file__).parents[2] / "docs" / "SECURITY.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", SECURITY_PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_security_page_load(load, tmp_path, example):
    for file in re.findall(r"/run/secrets/([a-z.-]+)", example):
        (tmp_path / file).write_text("x", encoding="utf-8")
    settings = load(yaml.safe_dump(MINIMAL) + example.replace("/run/secrets", str(tmp_path)))
    assert settings.kafka.security.properties()


def test_the_security_page_has_an_example_of_each_mechanism():
    found = {name for name in ("SCRAM-SHA-512", "OAUTHBEARER", "cert_file") if any(name in one for one in EXAMPLES)}
    assert found == {"SCRAM-SHA-512", "OAUTHBEARER", "cert_file"}


def test_nobody_answers_for_a_failing_model_unless_that_is_asked_for(load):
    (plain,) = load(MINIMAL).pipelines
    assert (plain.fallback.previous, plain.fallback.constant, plain.on_model_failure) == (False, False, "stop")
    fallback = {"previous": True, "constant": True, "retry_s": 30}
    (careful,) = load({"pipelines": [pipeline(fallback=fallback, on_model_failure="dead_letter")]}).pipelines
    assert careful.fallback.model_dump() == fallback
    assert careful.on_model_failure == "dead_letter"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback": {"retry_s": 0}}, "pipelines.0.fallback.retry_s: Input should be greater than 0"),
        ({"fallback": {"previous": "often"}}, "pipelines.0.fallback.previous: Input should be a valid boolean"),
        ({"fallback": {"rule": True}}, "pipelines.0.fallback.rule: Extra inputs are not permitted"),
        ({"on_model_failure": "ignore"}, "pipelines.0.on_model_failure: Input should be 'stop' or 'dead_letter'"),
    ],
)
def test_a_fallback_that_makes_no_sense_is_named(load, options, message):
    assert message in refused(load, {"pipelines": [pipeline(**options)]})
