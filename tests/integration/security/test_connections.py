"""A worker proves who it is in three ways, and says what is wrong when it may not come in.

Every secret holds CANARY, and so do the wrong ones: whatever a worker says, it says no secret.
"""

import json
import socket
import subprocess
import sys
import time

import pytest
import yaml
from grants import documented_commands, grant, names_of
from secured_broker import CANARY, PASSWORD
from worker_process import ROOT, clean_environment, refused_start, running_worker

from app.kafka.checks import BrokerCheck
from app.settings.reading import settings_of
from app.wiring.clients import worker_client

pytestmark = pytest.mark.broker

WITHIN_S = 60  # alone it takes five to ten; the machine may be busy
DEBUG = {"level": "debug"}


@pytest.mark.parametrize("way", ["scram", "mtls", "oauth"])
def test_a_worker_predicts_and_shows_no_secret(secured, secured_lane, tmp_path, way):
    settings = secured_lane.settings(kafka=getattr(secured, f"over_{way}")(), log=DEBUG)
    exact, prefixed = documented_commands()
    grant(secured.kafka, exact[:-1] + prefixed, names_of(secured_lane, settings))
    environment = {}
    if way == "scram":  # the others take theirs from files
        del settings["kafka"]["security"]["password_file"]
        environment = {"INFERENCE_KAFKA__SECURITY__PASSWORD": PASSWORD}
    secured_lane.produce(500, poison=0.02)

    with running_worker(settings, tmp_path, **environment) as worker:
        verdict = secured_lane.verified()
        answers = [worker.get(path)[1] for path in ("/metrics", "/livez", "/readyz", "/")]
        assert worker.stop() == 0

    assert verdict.predictions == 490
    assert worker.said("started")
    assert not [text for text in (*answers, worker.log) if CANARY in text]


def refused(lane, kafka, folder, *expected):
    message, seconds = refused_start(lane.settings(kafka=kafka, log=DEBUG), folder)
    flat = " ".join(message.split())
    for part in ("BrokerRefused", *expected):
        assert part in flat, message
    assert CANARY not in message
    assert seconds < WITHIN_S


def test_a_broker_that_an_unknown_authority_vouches_for(secured, secured_lane, tmp_path):
    rogue = str(secured.files.rogue_ca)
    kafka = secured.over_scram(ca_file=rogue)
    refused(secured_lane, kafka, tmp_path, "certificate verify failed: unable to get local issuer certificate", rogue)


def test_a_broker_under_a_name_that_is_not_in_its_certificate(secured, secured_lane, tmp_path):
    kafka = secured.over_scram() | {"bootstrap_servers": secured.scram.replace("127.0.0.1", "localhost")}
    refused(secured_lane, kafka, tmp_path, "Hostname mismatch, certificate is not valid for 'localhost'")


def test_a_worker_without_a_client_certificate(secured, secured_lane, tmp_path):
    kafka = secured.over_mtls(cert_file=None, key_file=None, key_password_file=None)
    refused(secured_lane, kafka, tmp_path, "alert certificate required", "authority it trusts: cert_file and key_file")


def test_a_worker_with_the_wrong_password(secured, secured_lane, tmp_path):
    kafka = secured.over_scram(password_file=str(secured.files.wrong))
    refused(secured_lane, kafka, tmp_path, "SASL authentication error", "invalid credentials", "SCRAM-SHA-512")


def test_a_worker_with_the_wrong_oauth_secret(secured, secured_lane, tmp_path):
    kafka = secured.over_oauth(oauth_client_secret_file=str(secured.files.wrong))
    refused(secured_lane, kafka, tmp_path, "Failed to acquire SASL OAUTHBEARER token", "wrong client secret")


def reason(lane, kafka):
    """Why the broker cannot be used, and that it took seconds to find out; without a process of its own."""
    before = time.monotonic()
    check = BrokerCheck(worker_client(settings_of(lane.settings(kafka=kafka))))
    (reached,) = check.results([])
    assert reached.status == "failed"
    assert CANARY not in reached.detail
    assert time.monotonic() - before < 30
    return reached.detail


def test_a_mechanism_the_broker_does_not_offer(secured, secured_lane):
    assert "broker's supported mechanisms: SCRAM-SHA-512" in reason(secured_lane, secured.over_scram(mechanism="PLAIN"))


def test_a_client_certificate_that_a_stranger_signed(secured, secured_lane):
    stranger = {"cert_file": str(secured.files.rogue_cert), "key_file": str(secured.files.rogue_key)}
    assert "a client certificate from an authority it trusts" in reason(secured_lane, secured.over_mtls(**stranger))


def test_a_plain_client_at_a_tls_listener(secured, secured_lane):
    kafka = {"bootstrap_servers": secured.mtls}
    assert "hung up: set kafka.security.protocol" in reason(secured_lane, kafka)


def test_a_tls_client_at_a_plain_listener(secured, secured_lane):
    kafka = secured.over_mtls() | {"bootstrap_servers": secured.kafka}
    assert "set kafka.security.protocol to what this listener speaks" in reason(secured_lane, kafka)


def test_a_tls_client_without_credentials_at_a_listener_that_wants_them(secured, secured_lane):
    kafka = secured.over_mtls() | {"bootstrap_servers": secured.scram}
    assert "hung up: set kafka.security.protocol" in reason(secured_lane, kafka)


def test_a_token_endpoint_that_nobody_runs(secured, secured_lane):
    kafka = secured.over_oauth(oauth_token_url="http://127.0.0.1:1/token")
    assert "Failed to acquire SASL OAUTHBEARER token: Failed to connect to 127.0.0.1" in reason(secured_lane, kafka)


def test_something_that_accepts_and_never_answers(secured_lane):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kafka = {"bootstrap_servers": f"127.0.0.1:{silent.getsockname()[1]}"}
        assert "nothing answered" in reason(secured_lane, kafka)


def check_config(settings, folder, *options):
    """(exit status, everything it said) of `inference-worker check-config`."""
    file = folder / "worker.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "app", "check-config", "--config", file, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean_environment(), check=False)
    assert CANARY not in done.stdout + done.stderr
    return done.returncode, done.stdout


def test_check_config_asks_everything_and_changes_nothing(secured, secured_lane, tmp_path):
    settings = secured_lane.settings(kafka=secured.over_scram(), log=DEBUG)
    grant(secured.kafka, documented_commands()[0], names_of(secured_lane, settings))
    status, said = check_config(settings, tmp_path, "--live", "--json")
    checks = json.loads(said)["checks"]
    assert status == 0
    assert {one["status"] for one in checks} == {"ok", "not asked"}
    assert [one["what"].split(" on ")[1].split()[0] for one in checks if one["status"] == "not asked"] == [
        "TransactionalId"
    ]


def test_check_config_tells_all_that_is_wrong_and_not_only_the_first(secured, secured_lane, tmp_path):
    settings = secured_lane.settings(
        kafka=secured.over_scram(),
        pipeline={"model": "absent"},
        schemas={"registry_url": "http://127.0.0.1:1"},
    )
    status, said = check_config(settings, tmp_path, "--live")
    failed = [line for line in said.splitlines() if line.startswith("failed")]
    assert status == 2
    for part in ("model absent", secured_lane.inputs[0], secured_lane.output, settings["kafka"]["group_id"]):
        assert any(part in line for line in failed), said
